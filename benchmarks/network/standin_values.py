"""Stand-in weights, whose every value follows from its tensor's published name and shape alone."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

VARIANCE_NOISE = (0.2, 1.0)
"""Factors s of the stand-in running variances, |s·noise| + 0.5: reference files follow either, and which one is
printed."""


def standin_tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """The stand-in value of the published tensor `name`: a function of its name and shape alone."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    kind = name.rsplit(".", 1)[-1]
    if kind == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if kind == "running_var":
        return noise.mul_(VARIANCE_NOISE[0]).abs_().add_(0.5)
    if name.endswith("fc_fov.0.bias"):  # Depth Anything 3's fields of view, which a ReLU would else cut off
        return noise.mul_(0.05).add_(1.5)
    if name.startswith("text_encoder.") and kind == "in_proj_weight":  # TIPSv2's text attention would else saturate
        return noise.div_(float(shape[1]) ** 0.5)
    if kind.startswith("gamma"):
        return noise.mul_(0.1).add_(1).mul_(0.1)
    if kind == "weight":
        return noise.mul_(0.1).add_(1) if len(shape) == 1 else noise.div_(float(np.prod(shape[1:])) ** 0.5)
    return noise.mul_(0.05 if kind == "bias" else 0.2)


def standin_state(shapes_file: Path) -> dict[str, Tensor]:
    """A whole stand-in state dict, of the names and shapes in a JSON file."""
    shapes = json.loads(shapes_file.read_text())
    return {name: standin_tensor(name, tuple(shape)) for name, shape in shapes.items()}
