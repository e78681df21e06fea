"""Queries against a saved map: as text, as a picture, and in the browser."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from ff3r_model.cli.reconstruct import ReconstructError, map_arrays
from ff3r_model.pipeline import Pipeline
from ff3r_model.visualization.pictures import faded, heat_colors, save_picture, top_down
from ff3r_model.visualization.web_viewer import ShownQuery, Viewer
from ff3r_model.voxel_map.queries import Mask, QueryRejected

log = logging.getLogger(__name__)

APART = 8
"""Listed places are at least this many voxels apart; nearer ones belong to the same thing."""


def ask(path: Path, text: str, *, picture: Path | None, threshold: float | None, top: int, weights: Path | None) -> str:
    """What a map says about a text; writes a picture where one is wanted.

    Raises MapFileError, CheckpointError, QueryRejected, ReconstructError (a bad threshold), OSError.
    """
    pipeline = _load(path, weights)
    if threshold is not None:
        if not 0 <= threshold <= 1:
            raise ReconstructError(f"threshold must be 0 to 1, not {threshold}")
        pipeline.queries.set_threshold(threshold)
    pipeline.queries.add(text)
    with torch.inference_mode():
        mask = pipeline.queries.masks(pipeline.map)[0]
    if picture is not None:
        save_picture(picture, _picture(pipeline, mask))
    return _answer(pipeline, mask, top)


def view(path: Path, *, host: str, port: int, weights: Path | None) -> None:
    """Serve a saved map until interrupted. Raises MapFileError and CheckpointError."""
    pipeline = _load(path, weights)
    page = MapPage(pipeline, host, port)
    print(f"{page.viewer.url}  (Ctrl-C ends)", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        page.viewer.close()


class MapPage:
    """A viewer on a map that does not change."""

    def __init__(self, pipeline: Pipeline, host: str, port: int) -> None:
        self._pipeline = pipeline
        self._lock = threading.Lock()  # the viewer calls from threads of its own
        self.viewer = Viewer(port, host, on_query=self.ask, on_remove=self.remove)
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


def centres(mask: Mask) -> Float[ndarray, "n 3"]:
    """Centres of a mask's voxels, map frame and unit."""
    return (mask.origin + (mask.indices + 0.5) * mask.voxel_size).double().numpy(force=True)


def best_places(
    points: Float[ndarray, "n 3"], scores: Float[ndarray, " n"], apart: float, limit: int
) -> list[tuple[Float[ndarray, " 3"], float]]:
    """The best-scored points with at least `apart` between them, best first."""
    places: list[tuple[ndarray, float]] = []
    order = np.argsort(-scores, kind="stable")
    points, scores = points[order], scores[order]
    while len(points) and len(places) < limit:
        places.append((points[0], float(scores[0])))
        far = np.linalg.norm(points - points[0], axis=1) > apart
        points, scores = points[far], scores[far]
    return places


def _load(path: Path, weights: Path | None) -> Pipeline:
    pipeline = Pipeline.from_checkpoint(weights)
    pipeline.load(path)
    return pipeline


def _answer(pipeline: Pipeline, mask: Mask, top: int) -> str:
    unit = "m" if mask.metric else "units"
    count, total = len(mask.indices), len(pipeline.map)
    lines = [f'"{mask.query.text}": {count:,} of {total:,} voxels score at least {mask.threshold:g}']
    if not count:
        return lines[0]
    places = best_places(centres(mask), mask.scores.double().numpy(force=True), APART * mask.voxel_size, top)
    lines += [f"  score {score:.3f} at x {x:.2f} y {y:.2f} z {z:.2f} {unit}" for (x, y, z), score in places]
    if not mask.metric:
        lines.append("  the map is unscaled: these are not metres")
    return "\n".join(lines)


def _picture(pipeline: Pipeline, mask: Mask) -> ndarray:
    """The map in pale grey, what matches in colour and on top of everything."""
    points, colors, path = map_arrays(pipeline.map)
    scores = mask.scores.double().numpy(force=True)
    points = np.concatenate([points, centres(mask)])
    colors = np.concatenate([faded(colors), heat_colors(scores, mask.threshold)])
    return top_down(
        points, colors, path, voxel_size=pipeline.map.config.voxel_size, metric=pipeline.map.metric, on_top=len(scores)
    )
