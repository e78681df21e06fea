"""Half precision by explicit casts, as strongly typed TensorRT wants it: what autocast does, written into the graph."""

from __future__ import annotations

import copy
import itertools
from typing import Literal

import torch
from torch import Tensor, nn

from ff3r_model.network.dpt import ResidualUnit
from ff3r_model.network.model import FF3R

Precision = Literal["float32", "float16"]
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "float16": torch.float16}
HEAVY = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
"""Where the arithmetic is. Attention follows the dtype of its projections."""
DELICATE = (nn.LayerNorm, nn.GroupNorm)
"""Sums of squares overflow in float16."""
EXACT = ("camera_head", "depth_head")
"""Parts that stay float32 throughout, as in the published code and in the torch engine."""


class Cast(nn.Module):
    """A module that computes in one dtype, whatever comes in. Its weights are narrowed; the original's stay."""

    def __init__(self, inner: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        for name, weight in list(inner.named_parameters(recurse=False)):
            setattr(inner, name, nn.Parameter(weight.detach().to(dtype), requires_grad=False))
        self.inner = inner
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.to(self.dtype))


def in_precision(network: FF3R, precision: Precision) -> FF3R:
    """`network` with its matrix products in `precision`; norms, residual stream, camera and depth head stay float32.

    The original is left as it is; unchanged weights are shared with it. Batch norms are folded into convolutions.
    """
    kept = {id(tensor): tensor for tensor in itertools.chain(network.parameters(), network.buffers())}
    result = copy.deepcopy(network, kept).eval()
    for module in result.modules():
        if isinstance(module, ResidualUnit):
            _fold_norms(module)
    if precision != "float32":
        for name, child in result.named_children():
            if name not in EXACT:
                _cast(child, DTYPES[precision])
    return result


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    for name, child in module.named_children():
        if isinstance(child, HEAVY):
            setattr(module, name, Cast(child, dtype))
        elif isinstance(child, DELICATE):
            setattr(module, name, Cast(child, torch.float32))
        else:
            _cast(child, dtype)


def _fold_norms(unit: ResidualUnit) -> None:
    for conv, norm in (("conv1", "bn1"), ("conv2", "bn2")):
        batch_norm = getattr(unit, norm)
        if isinstance(batch_norm, nn.BatchNorm2d):
            setattr(unit, conv, torch.nn.utils.fuse_conv_bn_eval(getattr(unit, conv), batch_norm))
            setattr(unit, norm, nn.Identity())
