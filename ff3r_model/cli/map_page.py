"""A saved map in the browser, with a text box for queries."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from ff3r_model.cli.map_files import map_arrays, parts_of
from ff3r_model.cli.query import centres
from ff3r_model.pipeline import Pipeline
from ff3r_model.visualization.web_viewer import ShownQuery, Viewer
from ff3r_model.voxel_map.queries import Mask, QueryRejected
from ff3r_model.voxel_map.voxel_map import VoxelMap

GAP = 0.15
"""Between parts that stand side by side, as a share of the larger one's width."""


class MapPage:
    """A viewer on a map that does not change; parts without a common frame stand side by side."""

    def __init__(self, pipeline: Pipeline, host: str, port: int, allowed_hosts: Sequence[str] = ()) -> None:
        self._pipeline = pipeline
        self._lock = threading.Lock()  # the viewer calls from threads of its own
        self._parts = list(parts_of(pipeline).values())
        self.viewer = Viewer(port, host, allowed_hosts=allowed_hosts, on_query=self.ask, on_remove=self.remove)
        points, colors, positions = zip(*map(map_arrays, self._parts), strict=True)
        self._shifts = side_by_side(points)
        shifted = [part + shift for part, shift in zip(points, self._shifts, strict=True)]
        pieces = [_ended(part + shift) for part, shift in zip(positions, self._shifts, strict=True)]
        self.viewer.show_path(np.concatenate(pieces))
        size = max(part.config.voxel_size for part in self._parts)
        self.viewer.show_cloud(np.concatenate(shifted).astype(np.float32), np.concatenate(colors), size)
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
        queries = self._pipeline.queries
        with torch.inference_mode():
            found = [queries.masks(part) for part in self._parts]
        shown = [
            ShownQuery(query.id, query.text, self._places([masks[index] for masks in found]))
            for index, query in enumerate(queries.active)
        ]
        self.viewer.show_queries(shown)
        doubts = [query.doubt for query in queries.active if query.doubt]
        self.viewer.show_status(trouble or "\n".join([self._about(), *doubts]))

    def _places(self, masks: Sequence[Mask]) -> Float[ndarray, "n 3"]:
        """Where a query's voxels of all parts are shown."""
        return np.concatenate([centres(mask) + shift for mask, shift in zip(masks, self._shifts, strict=True)])

    def _about(self) -> str:
        """What the map is."""
        lines = [_told(part) for part in self._parts]
        if len(lines) == 1:
            return lines[0]
        heading = f"{len(lines)} parts side by side: how they lie to each other is not known"
        return "\n".join([heading, *(f"part {number}: {line}" for number, line in enumerate(lines, 1))])


def side_by_side(parts: Sequence[Float[ndarray, "_ 3"]]) -> Float[ndarray, "parts 3"]:
    """Shifts of point clouds along −y, from left to right, so that each has the ground to itself; the first stays."""
    shifts = np.zeros((len(parts), 3))
    for index in range(1, len(parts)):
        before, here = parts[index - 1] + shifts[index - 1], parts[index]
        gap = GAP * max(np.ptp(before[:, 1]), np.ptp(here[:, 1]))
        shifts[index, 1] = before[:, 1].min() - gap - here[:, 1].max()
    return shifts


def _ended(path: Float[ndarray, "n 3"]) -> Float[ndarray, "m 3"]:
    """A path with a row of NaN, which ends it."""
    return np.concatenate([path, np.full((1, 3), np.nan)])


def _told(part: VoxelMap) -> str:
    return f"{len(part):,} voxels, {'metric' if part.metric else 'unscaled'}"
