"""Supervised matching losses: attention, encoder and tokens are taught where patches lie in the other views.

Nothing is added to the network: linear probes, thrown away after training, read the answers off its tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ff3r_model.network.layers import Block
from ff3r_model.training.datasets.room_views import RoomWindow
from ff3r_model.training.objectives.loss import Loss
from ff3r_model.training.objectives.patch_matching import flow_loss, matching_loss, patch_matches, patch_points

CONTRAST_TEMPERATURE = 0.1


@dataclass(frozen=True)
class Call:
    """Positional inputs and output of one call of a module."""

    inputs: tuple[Any, ...]
    output: Any


@dataclass(frozen=True)
class MatchingContext:
    """What encoder and global blocks made of the patches, beside where each patch lies in every view."""

    encoded: Float[Tensor, "batch views n width"]
    """The encoder's patches, which know of no other view."""
    blocks: Sequence[tuple[nn.Module, Call]]
    """Global blocks with their calls, in order."""
    truth: RoomWindow
    grid: tuple[int, int]
    """Rows and columns of patches."""
    matches: Float[Tensor, "batch views target n 2"]
    """As from `patch_matches`."""
    visible: Bool[Tensor, "batch views target n"]
    points: Float[Tensor, "batch views n 3"]
    """As from `patch_points`."""

    @classmethod
    def of(
        cls,
        encoded: Float[Tensor, "batch views tokens width"],
        blocks: Sequence[tuple[nn.Module, Call]],
        truth: RoomWindow,
        patch: int,
    ) -> MatchingContext:
        """From what the encoder gave, blocks and their calls, and patches of `patch` pixels a side."""
        matches, visible = patch_matches(truth, patch)
        grid = (truth.depth.shape[-2] // patch, truth.depth.shape[-1] // patch)
        patches = encoded[:, :, -grid[0] * grid[1] :]
        return cls(patches, blocks, truth, grid, matches, visible, patch_points(truth, patch))

    @property
    def views(self) -> int:
        """Views of a window."""
        return self.matches.shape[1]

    def tokens(self, index: int) -> Float[Tensor, "batch views tokens width"]:
        """Output of a global block, view by view."""
        output: Tensor = self.blocks[index][1].output
        return output.unflatten(1, (self.views, -1))

    def patches(self, index: int) -> Float[Tensor, "batch views n width"]:
        """The patches' tokens among them."""
        return self.tokens(index)[:, :, -self.matches.shape[3] :]


@dataclass(frozen=True)
class ContrastLoss(Loss[MatchingContext]):
    """Contrastive loss: the encoder's patches are told apart by their matches."""

    name: ClassVar[str] = "contrast"
    probe: nn.Module

    def __call__(self, context: MatchingContext) -> Float[Tensor, ""]:
        encoded = F.normalize(self.probe(context.encoded).float(), dim=-1)
        similarity = torch.einsum("bvnc,btmc->bvntm", encoded, encoded) / CONTRAST_TEMPERATURE
        return matching_loss(similarity.log_softmax(-1), context.matches, context.visible, context.grid)


@dataclass(frozen=True)
class BlockLoss(Loss[MatchingContext]):
    """A loss on the tokens of some global blocks, the mean over them."""

    blocks: tuple[int, ...]
    """Negative ones count from the last."""


@dataclass(frozen=True)
class MatchingLoss(BlockLoss):
    """Attention as matching: head 0 looks for the first view's match among all tokens, head 1 within each view."""

    name: ClassVar[str] = "matching"

    def __call__(self, context: MatchingContext) -> Float[Tensor, ""]:
        matches, visible, grid = context.matches, context.visible, context.grid
        terms = []
        for index in self.blocks:
            block, call = context.blocks[index]
            assert isinstance(block, Block)
            first, within = _attention_to_views(block, call.inputs, context.views, matches.shape[3])
            terms.append(matching_loss(first[..., :1, :], matches[:, :, :1], visible[:, :, :1], grid))
            terms.append(matching_loss(within, matches, visible, grid))
        return torch.stack(terms).mean()


@dataclass(frozen=True)
class ProbeLoss(BlockLoss):
    """A loss on what linear probes, one per block, read off the tokens."""

    probes: nn.ModuleList


@dataclass(frozen=True)
class FlowLoss(ProbeLoss):
    """Optical flow: each patch's position in the first view."""

    name: ClassVar[str] = "flow"

    def __call__(self, context: MatchingContext) -> Float[Tensor, ""]:
        terms = [
            flow_loss(probe(context.patches(index)), context.matches, context.visible)
            for probe, index in zip(self.probes, self.blocks, strict=True)
        ]
        return torch.stack(terms).mean()


@dataclass(frozen=True)
class PoseProbeLoss(ProbeLoss):
    """camera_from_world read linearly off the camera tokens: absolute error, entry by entry."""

    name: ClassVar[str] = "pose_probe"

    def __call__(self, context: MatchingContext) -> Float[Tensor, ""]:
        true = context.truth.camera_from_world[..., :3, :]
        terms = []
        for probe, index in zip(self.probes, self.blocks, strict=True):
            predicted = probe(context.tokens(index)[:, :, 0]).float().unflatten(-1, (3, 4))
            terms.append((predicted - true).abs().sum((-1, -2)).mean())
        return torch.stack(terms).mean()


@dataclass(frozen=True)
class PointProbeLoss(ProbeLoss):
    """Each patch's point in the first camera's frame, read linearly off its token: L1."""

    name: ClassVar[str] = "point_probe"

    def __call__(self, context: MatchingContext) -> Float[Tensor, ""]:
        terms = [
            (probe(context.patches(index)).float() - context.points).abs().sum(-1).mean()
            for probe, index in zip(self.probes, self.blocks, strict=True)
        ]
        return torch.stack(terms).mean()


def _attention_to_views(block: Block, inputs: tuple[Any, ...], views: int, count: int) -> tuple[Tensor, Tensor]:
    """Log attention of patches to patches [batch views n target m]: head 0 over all tokens, head 1 within each view."""
    tokens, rope = inputs
    queries, keys = (x[:, :2].float() for x in block.attn.queries_keys(block.norm1(tokens), rope))
    logits = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
    return _patches(logits[:, 0].log_softmax(-1), views, count), _patches(logits[:, 1], views, count).log_softmax(-1)


def _patches(attention: Tensor, views: int, count: int) -> Float[Tensor, "batch views n target m"]:
    """From all tokens × all tokens to patches of each view × patches of each view."""
    split_views = attention.unflatten(1, (views, -1)).unflatten(-1, (views, -1))
    return split_views[:, :, -count:, :, -count:]


@contextmanager
def captured_calls(modules: Sequence[nn.Module]) -> Iterator[list[Call]]:
    """One call of each module within the block, in the order in which they happened."""
    calls: list[Call] = []
    handles = [m.register_forward_hook(lambda _, inputs, output: calls.append(Call(inputs, output))) for m in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
