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
    allowed_hosts: tuple[str, ...] = ()
    """Further names by which browsers reach the page, such as that of a proxy in front of it."""
    weights: str | None = None
    """Checkpoint, by name or file, whose words to use; it must be the one that the map was made with."""
    config: Path | None = None
    """YAML file of the pipeline's configuration, of which `queries` counts here; `ff3r config` prints one."""

    def __call__(self) -> None:
        from ff3r_model.cli.map_files import pipeline_with_map
        from ff3r_model.cli.map_page import MapPage
        from ff3r_model.visualization.web_address import listen
        from ff3r_model.visualization.web_guard import guard

        # what cannot be is told before the map is read
        guard(self.host, self.allowed_hosts)
        listen(self.host, self.port).close()
        pipeline = pipeline_with_map(self.map, self.weights, self.config)
        page = MapPage(pipeline, self.host, self.port, self.allowed_hosts)
        tell(f"{'  '.join(page.viewer.urls)}  (Ctrl-C ends)")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
        finally:
            page.viewer.close()
