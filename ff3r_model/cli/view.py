"""`ff3r view`: a saved map in the browser."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from ff3r_model.cli.terminal import tell


@dataclass(frozen=True)
class View:
    """Show a map in a web browser, with a text box for queries, until Ctrl-C.

    Parts of a map that have no common frame stand side by side, the largest first.
    """

    map: Positional[Path]
    """Map file that `ff3r reconstruct` wrote, or the folder that it is in."""
    port: int = 8080
    """Port to serve on; the next free one where it is taken."""
    host: str = "127.0.0.1"
    """Address to serve on; 0.0.0.0 lets everybody on the network look."""
    weights: Path | None = None
    """Checkpoint whose words to use; it must be the one that the map was made with."""
    config: Path | None = None
    """YAML file of the pipeline's configuration, of which `queries` counts here; `ff3r config` prints one."""

    def __call__(self) -> None:
        from ff3r_model.cli.map_files import pipeline_with_map
        from ff3r_model.cli.map_page import MapPage

        page = MapPage(pipeline_with_map(self.map, self.weights, self.config), self.host, self.port)
        tell(f"{page.viewer.url}  (Ctrl-C ends)")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
        finally:
            page.viewer.close()
