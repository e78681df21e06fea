"""What a reconstruction tells of itself: windows, voxels, parts, scale, frames left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ff3r_model.cli.map_files import CLOUD, MAP, name_in_part, parts_of
from ff3r_model.pipeline import Pipeline
from ff3r_model.slam.mapper import MapUpdate

SHOWN = 3
"""Reasons of windows that a summary tells, the commonest first."""


def summary(pipeline: Pipeline, updates: Sequence[MapUpdate], stated: bool = False) -> str:
    """What was mapped, part by part where there are several; `stated`: the user gave the intrinsics."""
    used, parts = sum(update.accepted for update in updates), parts_of(pipeline)
    heading = f"{used} of {len(updates)} windows mapped, {sum(map(len, parts.values())):,} voxels"
    scales = [_scale(pipeline, number) for number in parts]
    if len(parts) == 1:
        lines = [f"{heading}, {scales[0]}"]
    else:
        lines = [f"{heading} in {len(parts)} parts that could not be joined"]
        for place, (part, scale) in enumerate(zip(parts.values(), scales, strict=True), 1):
            lines.append(f"  part {place}: {len(part):,} voxels, {scale}")
        lines.append(f"{MAP} holds all parts, {CLOUD} and its like the largest, {name_in_part(CLOUD, 2)} the next")
    if pipeline.camera is not None:
        given = "as stated" if stated else "from the recording"
        lines.append(f"focal length: {pipeline.camera.described(given)}")
    untrusted = sum(update.accepted and not update.trusted for update in updates)
    if untrusted:
        lines.append(f"windows not trusted: {untrusted}; they are in the cloud, and neither in grids nor in the scale")
    if refused := Counter(update.reason for update in updates if not update.accepted):
        told = "; ".join(f"{count} × {reason}" for reason, count in refused.most_common(SHOWN))
        lines.append(f"windows left out: {told}")
    left_out = {reason: count for reason, count in pipeline.windows.dropped.items() if count}
    if left_out:
        lines.append("frames left out: " + ", ".join(f"{count} {reason}" for reason, count in left_out.items()))
    return "\n".join(lines)


def failure(pipeline: Pipeline, updates: Sequence[MapUpdate]) -> str:
    """Why no window was mapped."""
    reasons = [f"{count} × {reason}" for reason, count in pipeline.windows.dropped.most_common() if count]
    reasons += [f"window: {update.reason}" for update in updates if update.reason]
    waiting = pipeline.windows.pending
    return "; ".join(reasons) or f"{waiting} usable frame(s) are too few, at least 2 are needed"


def _scale(pipeline: Pipeline, number: int) -> str:
    """Whether a part is in metres, and what is missing where it is not."""
    if pipeline.mapper.submaps[number].metric:
        return "metric"
    why = pipeline.mapper.why_unscaled(number) or "give --camera-height"
    return f"unscaled: lengths are not metres ({why})"
