"""Features of each view alone, kept from window to window, and views in chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class FrameFeatures:
    """The half of the network that a view keeps when its window moves on: tensors alone, one entry per view.

    What the semantic encoder gives is there for all views, or for the `dense_views` that `encode_frames` was asked for,
    in one row.
    """

    patches: Float[Tensor, "batch views tokens width"]
    """The encoder's tokens, before any view has seen another; Depth Anything 3 has a class token before them."""
    semantic_maps: Float[Tensor, "dense_batch dense_views channels hs ws"]
    """Its features at its own resolution, projected to what the Gaussian decoder reads; in lifting mode of unit
    norm, in the compact space: the lifted features themselves, which `decode_window` only passes on."""
    semantic_tokens: Float[Tensor, "dense_batch dense_views patches semantic_width"] | None = None
    """Its final tokens on the geometry's grid, keys and values of equation 1; None in lifting mode."""
    features: Float[Tensor, "dense_batch dense_views text hs ws"] | None = None
    """Its features in the text's space; None where not asked for."""

    def tensors(self) -> dict[str, Tensor]:
        """By name, without those that are None."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def view(self, index: int) -> FrameFeatures:
        """One view of the first window, in memory of its own."""
        return FrameFeatures(**{name: x[:1, index : index + 1].clone() for name, x in self.tensors().items()})

    @staticmethod
    def join(views: Sequence[FrameFeatures]) -> FrameFeatures:
        """Views of one window, in this order."""
        parts = [view.tensors() for view in views]
        return FrameFeatures(**{name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]})

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors().values())


def in_chunks(
    function: Callable[..., Sequence[Tensor | None]], chunk: int | None, *inputs: Tensor
) -> Sequence[Tensor | None]:
    """`function(*inputs)` by `chunk` rows at a time; its results, each with a row per row, are never held twice."""
    count = inputs[0].shape[0]
    if chunk is None or count <= chunk:
        return function(*inputs)
    pieces = zip(*(x.split(chunk) for x in inputs), strict=True)
    if torch.is_grad_enabled():
        columns = zip(*(function(*piece) for piece in pieces), strict=True)
        return [None if parts[0] is None else torch.cat(parts) for parts in columns]
    whole: list[Tensor | None] = []
    for start, piece in zip(range(0, count, chunk), pieces, strict=True):
        results = function(*piece)
        whole = whole or [None if x is None else x.new_empty(count, *x.shape[1:]) for x in results]
        for target, part in zip(whole, results, strict=True):
            if target is not None and part is not None:
                target[start : start + len(part)] = part
    return whole
