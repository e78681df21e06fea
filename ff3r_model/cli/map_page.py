"""A saved map in the browser, with a text box for queries."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import torch

from ff3r_model.cli.map_files import map_arrays
from ff3r_model.cli.query import centres
from ff3r_model.pipeline import Pipeline
from ff3r_model.visualization.web_viewer import ShownQuery, Viewer
from ff3r_model.voxel_map.queries import QueryRejected


class MapPage:
    """A viewer on a map that does not change."""

    def __init__(self, pipeline: Pipeline, host: str, port: int, allowed_hosts: Sequence[str] = ()) -> None:
        self._pipeline = pipeline
        self._lock = threading.Lock()  # the viewer calls from threads of its own
        self.viewer = Viewer(port, host, allowed_hosts=allowed_hosts, on_query=self.ask, on_remove=self.remove)
        points, colors, positions = map_arrays(pipeline.map)
        self.viewer.show_path(positions)
        self.viewer.show_cloud(points.astype(np.float32), colors, pipeline.map.config.voxel_size)
        self._show("")

    def ask(self, text: str) -> None:
        """Add a query; one that is refused says why in the status line."""
        with self._lock:
            try:
                self._pipeline.queries.add(text)
            except QueryRejected as rejection:
                self._show(str(rejection))
                return
            self._show("")

    def remove(self, query_id: int) -> None:
        """Take a query away."""
        with self._lock:
            self._pipeline.queries.remove(query_id)
            self._show("")

    def _show(self, trouble: str) -> None:
        with torch.inference_mode():
            masks = self._pipeline.queries.masks(self._pipeline.map)
        self.viewer.show_queries([ShownQuery(mask.query.id, mask.query.text, centres(mask)) for mask in masks])
        scale = "metric" if self._pipeline.map.metric else "unscaled"
        self.viewer.show_status(trouble or f"{len(self._pipeline.map):,} voxels, {scale}")
