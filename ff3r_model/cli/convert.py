"""From the files that others publish to a checkpoint of ours."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ff3r_model.network.public_weights import convert

Precision = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Plan:
    """What to convert; the fields are the options of `ff3r convert`."""

    output: Path
    vggt: Path | None = None
    lseg: Path | None = None
    clip: Path | None = None
    ff3r: Path | None = None
    channels: int = 64
    precision: Precision = "float32"


def run(plan: Plan) -> str:
    """Write the checkpoint; returns the summary. Raises ConvertError, CheckpointError."""
    dtype = None if plan.precision == "float32" else getattr(torch, plan.precision)
    with _steps_shown():
        if plan.ff3r is not None:
            if plan.vggt or plan.lseg or plan.clip:
                raise convert.ConvertError("--ff3r is a whole checkpoint: give it without --vggt, --lseg and --clip")
            convert.convert_own(plan.ff3r, plan.output, dtype=dtype)
            return _written(plan.output)
        if plan.vggt is None or plan.lseg is None:
            raise convert.ConvertError("give --vggt and --lseg, or --ff3r for a checkpoint of FF3R's own")
        basis = convert.convert(plan.vggt, plan.lseg, plan.output, clip=plan.clip, channels=plan.channels, dtype=dtype)
    kept = f"cosine kept {basis.mean_cosine:.3f} on average, {basis.worst_cosine:.3f} at worst"
    return f"{_written(plan.output)}\nlifting mode, {plan.channels} channels; of {basis.words:,} words: {kept}"


def _written(path: Path) -> str:
    return f"{path}: {path.stat().st_size / 1e6:,.1f} MB"


@contextmanager
def _steps_shown() -> Iterator[None]:
    """The steps, each of which can take minutes, are told while they happen."""
    logger = logging.getLogger(convert.__name__)
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
