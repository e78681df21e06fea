"""`ff3r query`: where in a saved map a text is, as text and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from tyro.conf import Positional, arg

from ff3r_model.core.errors import UserError

if TYPE_CHECKING:
    from ff3r_model.pipeline import Pipeline
    from ff3r_model.voxel_map.queries import Mask

APART = 8
"""Listed places are at least this many voxels apart; nearer ones belong to the same thing."""


class QueryError(UserError):
    """An option that cannot be used."""


@dataclass(frozen=True)
class Query:
    """Find a text in a map."""

    map: Positional[Path]
    """Map file that `ff3r reconstruct` wrote."""
    text: Positional[str]
    """What to look for, such as "red chair"."""
    output: Annotated[Path | None, arg(aliases=["-o"])] = None
    """Picture to write, the map from above with what was found."""
    threshold: float | None = None
    """Score from which a voxel matches, 0 to 1."""
    top: int = 5
    """How many places to list."""
    weights: Path | None = None
    """Checkpoint whose words to use; it must be the one that the map was made with."""
    config: Path | None = None
    """YAML file of the pipeline's configuration, of which `queries` counts here; `ff3r config` prints one."""

    def __call__(self) -> str:
        """What the map says about the text; writes a picture where one is wanted."""
        import torch

        from ff3r_model.cli.map_files import pipeline_with_map
        from ff3r_model.visualization.pictures import save_picture

        pipeline = pipeline_with_map(self.map, self.weights, self.config)
        if self.threshold is not None:
            if not 0 <= self.threshold <= 1:
                raise QueryError(f"threshold must be 0 to 1, not {self.threshold}")
            pipeline.queries.set_threshold(self.threshold)
        pipeline.queries.add(self.text)
        with torch.inference_mode():
            mask = pipeline.queries.masks(pipeline.map)[0]
        if self.output is not None:
            save_picture(self.output, _picture(pipeline, mask))
        return _answer(pipeline, mask, self.top)


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
    from ff3r_model.cli.map_files import map_arrays
    from ff3r_model.visualization.pictures import faded, heat_colors, top_down

    points, colors, path = map_arrays(pipeline.map)
    scores = mask.scores.double().numpy(force=True)
    points = np.concatenate([points, centres(mask)])
    colors = np.concatenate([faded(colors), heat_colors(scores, mask.threshold)])
    return top_down(
        points, colors, path, voxel_size=pipeline.map.config.voxel_size, metric=pipeline.map.metric, on_top=len(scores)
    )
