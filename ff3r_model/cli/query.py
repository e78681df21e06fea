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
    from ff3r_model.voxel_map.queries import Mask
    from ff3r_model.voxel_map.voxel_map import VoxelMap

APART = 8
"""Listed places are at least this many voxels apart; nearer ones belong to the same thing."""


class QueryError(UserError):
    """An option that cannot be used."""


@dataclass(frozen=True)
class Query:
    """Find a text in a map.

    A map of several parts is searched in all of them. They have no common frame, so places are told part by part.
    """

    map: Positional[Path]
    """Map file that `ff3r reconstruct` wrote, or the folder that it is in."""
    text: Annotated[Positional[tuple[str, ...]], arg(metavar="TEXT")]
    """What to look for, such as "red chair"."""
    output: Annotated[Path | None, arg(aliases=["-o"])] = None
    """Picture to write, the map from above with what was found."""
    threshold: float | None = None
    """Score from which a voxel matches, 0 to 1."""
    top: int = 5
    """How many places to list, of each part."""
    weights: str | None = None
    """Checkpoint, by name or file, whose words to use; it must be the one that the map was made with."""
    config: Path | None = None
    """YAML file of the pipeline's configuration, of which `queries` counts here; `ff3r config` prints one."""

    def __call__(self) -> str:
        """What the map says about the text; writes a picture where one is wanted."""
        import torch

        from ff3r_model.cli.map_files import parts_of, pipeline_with_map
        from ff3r_model.visualization.pictures import save_picture, suffix_of

        self._check()
        if self.output is not None:
            suffix_of(self.output)
        pipeline = pipeline_with_map(self.map, self.weights, self.config)
        if self.threshold is not None:
            pipeline.queries.set_threshold(self.threshold)
        pipeline.queries.add(" ".join(self.text))
        parts = parts_of(pipeline)
        with torch.inference_mode():
            masks = [pipeline.queries.masks(part)[0] for part in parts.values()]
        if self.output is not None:
            save_picture(self.output, _pictures(parts, masks))
        return _answer(parts, masks, self.top)

    def _check(self) -> None:
        """Raises QueryError for what can be seen before anything is read."""
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise QueryError(f"threshold must be 0 to 1, not {self.threshold}")
        if self.top < 0:
            raise QueryError(f"top must be at least 0, not {self.top}")
        if self.text and not self.map.exists() and Path(self.text[-1]).exists():
            raise QueryError(f'the map comes before the text: ff3r query {self.text[-1]} "{self.map}"')


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


def _answer(parts: dict[int, VoxelMap], masks: list[Mask], top: int) -> str:
    """How many voxels of the map match, and where, part by part, the part of the best place first."""
    found, total = sum(len(mask.indices) for mask in masks), sum(map(len, parts.values()))
    lines = [f'"{masks[0].query.text}": {found:,} of {total:,} voxels score at least {masks[0].threshold:g}']
    if len(parts) == 1:
        return "\n".join([*lines, *_places(masks[0], top)])
    lines[0] += f", in a map of {len(parts)} parts that have no common frame"
    numbered = list(zip(range(1, len(parts) + 1), parts.values(), masks, strict=True))
    for number, part, mask in sorted(numbered, key=lambda each: -max(each[2].scores.tolist(), default=-1.0)):
        lines.append(f"part {number}: {len(mask.indices):,} of {len(part):,} voxels")
        lines += _places(mask, top)
    return "\n".join(lines)


def _places(mask: Mask, top: int) -> list[str]:
    """The best places of a mask, in words."""
    if not len(mask.indices):
        return []
    unit = "m" if mask.metric else "units"
    places = best_places(centres(mask), mask.scores.double().numpy(force=True), APART * mask.voxel_size, top)
    lines = [f"  score {score:.3f} at x {x:.2f} y {y:.2f} z {z:.2f} {unit}" for (x, y, z), score in places]
    return lines if mask.metric else [*lines, "  the map is unscaled: these are not metres"]


def _pictures(parts: dict[int, VoxelMap], masks: list[Mask]) -> ndarray:
    """Each part from above, one below the other where there are several."""
    from ff3r_model.visualization.pictures import stacked

    pictures = [_picture(part, mask) for part, mask in zip(parts.values(), masks, strict=True)]
    if len(pictures) == 1:
        return pictures[0]
    return stacked(pictures, [f"part {number} of {len(pictures)}" for number in range(1, len(pictures) + 1)])


def _picture(voxel_map: VoxelMap, mask: Mask) -> ndarray:
    """The map in pale grey, what matches in colour and on top of everything."""
    from ff3r_model.cli.map_files import map_arrays
    from ff3r_model.visualization.pictures import faded, heat_colors, top_down

    points, colors, path = map_arrays(voxel_map)
    scores = mask.scores.double().numpy(force=True)
    points = np.concatenate([points, centres(mask)])
    colors = np.concatenate([faded(colors), heat_colors(scores, mask.threshold)])
    return top_down(
        points, colors, path, voxel_size=voxel_map.config.voxel_size, metric=voxel_map.metric, on_top=len(scores)
    )
