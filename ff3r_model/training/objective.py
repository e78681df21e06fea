"""All supervised terms of one batch, and their sum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ff3r_model.network.gaussian_head import split
from ff3r_model.network.layers import Block
from ff3r_model.network.model import FF3R
from ff3r_model.training.batches import TrainingBatch
from ff3r_model.training.losses import (
    LossWeights,
    balanced_pixels,
    camera_losses,
    depth_losses,
    flow_loss,
    matching_loss,
    patch_matches,
    patch_points,
    phrase_loss,
)
from ff3r_model.training.views import Views
from ff3r_model.types import SH_C0


@dataclass(frozen=True)
class TextTargets:
    """Unit embeddings that semantic features are taught, in the order of the synthetic vocabulary."""

    classes: Float[Tensor, "classes channels"]
    phrases: Float[Tensor, "phrases channels"]
    """Class by colour name, the colour varying fastest: phrase = class · colours + colour."""


class Objective(nn.Module):
    """Network and batch in, named loss terms out; `total` is what training minimises.

    Cameras and matches are supervised in all views, the dense heads in a random share of them: every pixel there is
    a sample, while a pose is one sample per view, so time is better spent on more windows.
    """

    classes: Tensor
    phrases: Tensor

    def __init__(
        self,
        weights: LossWeights,
        targets: TextTargets,
        width: int,
        *,
        matching_blocks: tuple[int, ...] = (0, 1, 2),
        pose_blocks: tuple[int, ...] = (2, 3),
        dense_views: int = 6,
        pixels_per_view: int = 256,
        geometry_share: float = 0.3,
    ) -> None:
        """`geometry_share` of the budget, at its start, trains matches and poses alone: nothing else teaches them, and
        steps without the dense heads take half the time."""
        super().__init__()
        self.geometry_share, self.dense = geometry_share, True
        self.weights = weights
        self.register_buffer("classes", targets.classes, persistent=False)
        self.register_buffer("phrases", targets.phrases, persistent=False)
        self.matching_blocks, self.pose_blocks = matching_blocks, pose_blocks
        self.dense_views, self.pixels_per_view = dense_views, pixels_per_view
        self.contrast = nn.Linear(width, 64)
        self.flow = nn.ModuleList(nn.Linear(width, 2) for _ in matching_blocks)
        self.pose = nn.ModuleList(nn.Linear(width, 12) for _ in pose_blocks)
        self.point = nn.ModuleList(nn.Linear(width, 3) for _ in pose_blocks)

    def at(self, progress: float) -> None:
        """The dense heads join once `geometry_share` of the budget is spent."""
        self.dense = progress >= self.geometry_share

    def forward(self, network: FF3R, batch: TrainingBatch) -> dict[str, Tensor]:
        """Run the network on the batch's images and compare with its truth, which must be there."""
        assert batch.truth is not None, "the supervised objective needs the synthetic world's truth"
        truth = batch.truth
        with captured_calls([network.aggregator.patch_embed, *network.aggregator.global_blocks]) as calls:
            aggregated = network.aggregator(batch.images)
        with torch.autocast(batch.images.device.type, enabled=False):
            poses = network.camera_head(aggregated.camera.float())
        terms = camera_losses(poses, truth, self.weights.gamma)
        terms |= self._matching_terms(network, calls, truth)
        if self.dense:
            picks = torch.randperm(batch.images.shape[:2].numel(), device=batch.images.device)[: self.dense_views]
            layers = [layer[:, :, aggregated.special :].flatten(0, 1)[picks] for layer in aggregated.layers]
            terms |= self._dense_terms(network, layers, batch.images.flatten(0, 1)[picks], truth, picks)
        terms["total"] = torch.stack([getattr(self.weights, name) * term for name, term in terms.items()]).sum()
        return terms

    def _dense_terms(
        self, network: FF3R, layers: list[Tensor], images: Tensor, known: Views, picks: Int[Tensor, " n"]
    ) -> dict[str, Tensor]:
        """Depth, semantics and Gaussians of the picked views."""
        truth, classes, colors = (x.flatten(0, 1)[picks] for x in (known.depth, known.classes, known.colors))
        depth, raw, semantics, _ = network.decode(images, layers)
        assert depth is not None and raw is not None and semantics is not None, "lifting mode has nothing to train"
        terms = depth_losses(depth[:, 0].float(), depth[:, 1].float(), truth, self.weights.confidence)
        gaussians = split(raw[:, None], network.config)
        error = (depth[:, 0].detach().float().clamp(min=1e-4).log() - truth.clamp(min=1e-4).log()).abs()
        color = gaussians.harmonics[:, 0, :3].float() * SH_C0 + 0.5
        identity = torch.tensor([1.0, 0, 0, 0], device=color.device)[:, None, None]
        rotation = F.normalize(gaussians.quaternion[:, 0].float(), dim=1)
        terms["color"] = F.l1_loss(color, images)
        terms["gaussian"] = (
            gaussians.log_scale.float().abs().mean()
            + (rotation - identity).abs().mean()
            + F.softplus(-gaussians.opacity_logit.float()).mean()
            + F.smooth_l1_loss(gaussians.confidence_logit[:, 0, 0].float(), -10 * error.clamp(max=0.5))
        )
        dense = F.interpolate(semantics, truth.shape[-2:], mode="bilinear", align_corners=False)
        terms["semantics"] = self._phrase_terms(dense, classes, colors)
        terms["feature"] = self._phrase_terms(gaussians.feature[:, 0], classes, colors, network.feature_decoder)
        return terms

    def _phrase_terms(
        self, features: Tensor, classes: Tensor, colors: Tensor, decoder: nn.Module | None = None
    ) -> Tensor:
        """Features at sampled pixels, classified over classes and over colour phrases."""
        picks = balanced_pixels(classes.flatten(1), self.pixels_per_view, len(self.classes))
        rows = features.flatten(2).transpose(1, 2)
        sampled = rows.gather(1, picks[..., None].expand(-1, -1, rows.shape[-1])).flatten(0, 1)
        sampled = sampled if decoder is None else decoder(sampled)
        classes, colors = (x.flatten(1).gather(1, picks).flatten() for x in (classes, colors))
        names = len(self.phrases) // len(self.classes)
        phrases = torch.where(colors >= 0, classes * names + colors, -1)
        temperature = self.weights.temperature
        return phrase_loss(sampled, classes, self.classes, temperature) + 0.5 * phrase_loss(
            sampled, phrases, self.phrases, temperature
        )

    def _matching_terms(self, network: FF3R, calls: list[Call], batch: Views) -> dict[str, Tensor]:
        """Tells encoder and global blocks where each patch lies elsewhere; nothing is added to the network.

        In each supervised block, head 0 attends to the first view's match among all tokens and head 1 to the match
        within each view. Linear probes, thrown away after training, read the position in the first view and the
        point in space off the patches and the pose off the camera tokens, and the encoder's patches are told apart by
        their matches.
        """
        patch = network.aggregator.patch
        grid = (batch.images.shape[-2] // patch, batch.images.shape[-1] // patch)
        views, count = batch.images.shape[1], grid[0] * grid[1]
        matches, visible = patch_matches(batch, patch)
        encoded = F.normalize(self.contrast(calls[0].output).float(), dim=-1).unflatten(0, (-1, views))
        similarity = torch.einsum("bvnc,btmc->bvntm", encoded, encoded) / CONTRAST_TEMPERATURE
        terms = {"contrast": matching_loss(similarity.log_softmax(-1), matches, visible, grid)}
        matching, flow = [], []
        for probe, index in zip(self.flow, self.matching_blocks, strict=True):
            block, call = network.aggregator.global_blocks[index], calls[1 + index]
            assert isinstance(block, Block)
            first, within = _attention_to_views(block, call.inputs, views, count)
            matching.append(matching_loss(first[..., :1, :], matches[:, :, :1], visible[:, :, :1], grid))
            matching.append(matching_loss(within, matches, visible, grid))
            flow.append(flow_loss(probe(call.output.unflatten(1, (views, -1))[:, :, -count:]), matches, visible))
        pose, point, truth = [], [], patch_points(batch, patch)
        for to_pose, to_point, index in zip(self.pose, self.point, self.pose_blocks, strict=True):
            tokens = calls[1 + index].output.unflatten(1, (views, -1))
            pose.append(_pose_error(to_pose(tokens[:, :, 0]).float(), batch))
            point.append((to_point(tokens[:, :, -count:]).float() - truth).abs().sum(-1).mean())
        probes = {"matching": matching, "flow": flow, "pose_probe": pose, "point_probe": point}
        return terms | {name: torch.stack(values).mean() for name, values in probes.items()}


CONTRAST_TEMPERATURE = 0.1


@dataclass
class Call:
    """Positional inputs and output of one call of a module."""

    inputs: tuple[Any, ...]
    output: Any


def _pose_error(predicted: Float[Tensor, "batch views 12"], truth: Views) -> Tensor:
    """Absolute error of a linearly predicted camera_from_world, entry by entry."""
    return (predicted.unflatten(-1, (3, 4)) - truth.camera_from_world[..., :3, :]).abs().sum((-1, -2)).mean()


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
