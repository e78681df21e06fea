"""All supervised terms of one batch, and their sum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ff3r_model.core.types import rgb_from_harmonics
from ff3r_model.network.gaussian_head import split
from ff3r_model.network.layers import Block
from ff3r_model.network.model import FF3R
from ff3r_model.training.datasets.batches import TrainingBatch
from ff3r_model.training.datasets.room_views import Views
from ff3r_model.training.objectives.supervised_losses import (
    LossWeights,
    at_pixels,
    balanced_pixels,
    camera_losses,
    depth_losses,
    flow_loss,
    matching_loss,
    patch_matches,
    patch_points,
    phrase_loss,
)


@dataclass(frozen=True)
class TextTargets:
    """Unit embeddings that semantic features are taught, in the order of the synthetic vocabulary."""

    classes: Float[Tensor, "classes channels"]
    phrases: Float[Tensor, "phrases channels"]
    """Class by colour name, the colour varying fastest: phrase = class · colours + colour."""


Part = Literal["all", "geometry", "words"]


@dataclass(frozen=True)
class SupervisedConfig:
    """What of the network is taught, and how. All ours."""

    weights: LossWeights = field(default_factory=LossWeights)
    part: Part = "all"
    """geometry: matches and cameras alone, without the dense heads; words: LSeg alone. Each is learned several times
    faster by itself; what joins them needs both."""
    dense_views: int = 6
    """Views per step whose dense maps are decoded with part "all": a pose is one sample per view, a map thousands."""
    pixels_per_view: int = 256
    """Pixels per view that are named."""
    matching_blocks: tuple[int, ...] = (0, 1, 2)
    """Global blocks that are taught where each patch lies in the other views."""
    pose_blocks: tuple[int, ...] = (2, -2, -1)
    """Global blocks from which poses and points are read off linearly; negative ones count from the last."""


class Objective(nn.Module):
    """Network and batch in, named loss terms out; `total` is what training minimises.

    Cameras and matches are supervised in all views, the dense heads in a random share of them: every pixel there is
    a sample, while a pose is one sample per view, so time is better spent on more windows.
    """

    classes: Tensor
    phrases: Tensor

    def __init__(self, config: SupervisedConfig, targets: TextTargets, width: int) -> None:
        """`width`: of the aggregator's tokens."""
        super().__init__()
        self.config, self.weights = config, config.weights
        self.register_buffer("classes", targets.classes, persistent=False)
        self.register_buffer("phrases", targets.phrases, persistent=False)
        self.contrast = nn.Linear(width, 64)
        self.flow = nn.ModuleList(nn.Linear(width, 2) for _ in config.matching_blocks)
        self.pose = nn.ModuleList(nn.Linear(width, 12) for _ in config.pose_blocks)
        self.point = nn.ModuleList(nn.Linear(width, 3) for _ in config.pose_blocks)

    def forward(self, network: FF3R, batch: TrainingBatch) -> dict[str, Tensor]:
        """Run the network on the batch's images and compare with its truth, which must be there."""
        assert batch.truth is not None, "the supervised objective needs the synthetic world's truth"
        part = self.config.part
        if part == "words":
            terms = self._words(network, batch.images.flatten(0, 1), batch.truth)
        else:
            terms = self._geometry(network, batch, batch.truth, dense=part == "all")
        terms["total"] = torch.stack([getattr(self.weights, name) * term for name, term in terms.items()]).sum()
        return terms

    def _words(self, network: FF3R, images: Float[Tensor, "n 3 h w"], truth: Views) -> dict[str, Tensor]:
        """What LSeg alone says of every view."""
        semantics = network.lseg(network.lseg.resize(images, patch_grid(network, images))).features
        return {"semantics": self._phrase_terms(semantics, truth.classes.flatten(0, 1), truth.colors.flatten(0, 1))}

    def _geometry(self, network: FF3R, batch: TrainingBatch, truth: Views, dense: bool) -> dict[str, Tensor]:
        """Cameras and matches of all views, dense maps of some."""
        with captured_calls([network.aggregator.patch_embed, *network.aggregator.global_blocks]) as calls:
            aggregated = network.aggregator(batch.images)
        with torch.autocast(batch.images.device.type, enabled=False):
            poses = network.camera_head(aggregated.camera.float())
        terms = camera_losses(poses, truth, self.weights.gamma) | self._matching_terms(network, calls, truth)
        if not dense:
            return terms
        picks = torch.randperm(batch.images.shape[:2].numel(), device=batch.images.device)[: self.config.dense_views]
        layers = [layer[:, :, aggregated.special :].flatten(0, 1)[picks] for layer in aggregated.layers]
        return terms | self._dense_terms(network, layers, batch.images.flatten(0, 1)[picks], truth, picks)

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
        color = rgb_from_harmonics(gaussians.harmonics[:, 0, :3].float())
        identity = torch.tensor([1.0, 0, 0, 0], device=color.device)[:, None, None]
        rotation = F.normalize(gaussians.quaternion[:, 0].float(), dim=1)
        terms["color"] = F.l1_loss(color, images)
        terms["gaussian"] = (
            gaussians.log_scale.float().abs().mean()
            + (rotation - identity).abs().mean()
            + F.softplus(-gaussians.opacity_logit.float()).mean()
            + F.smooth_l1_loss(gaussians.confidence_logit[:, 0, 0].float(), -10 * error.clamp(max=0.5))
        )
        terms["semantics"] = self._phrase_terms(semantics, classes, colors)
        terms["feature"] = self._phrase_terms(gaussians.feature[:, 0], classes, colors, network.feature_decoder)
        return terms

    def _phrase_terms(
        self, features: Tensor, classes: Tensor, colors: Tensor, decoder: nn.Module | None = None
    ) -> Tensor:
        """Features at sampled pixels, classified over classes and over colour phrases."""
        picks = balanced_pixels(classes.flatten(1), self.config.pixels_per_view, len(self.classes))
        sampled = at_pixels(features, picks, classes.shape[-2:]).flatten(0, 1)
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
        grid = patch_grid(network, batch.images)
        views, count = batch.images.shape[1], grid[0] * grid[1]
        matches, visible = patch_matches(batch, patch)
        encoded = F.normalize(self.contrast(calls[0].output).float(), dim=-1).unflatten(0, (-1, views))
        similarity = torch.einsum("bvnc,btmc->bvntm", encoded, encoded) / CONTRAST_TEMPERATURE
        blocks = list(zip(network.aggregator.global_blocks, calls[1:], strict=True))
        terms = {"contrast": matching_loss(similarity.log_softmax(-1), matches, visible, grid)}
        matching, flow = [], []
        for probe, index in zip(self.flow, self.config.matching_blocks, strict=True):
            block, call = blocks[index]
            assert isinstance(block, Block)
            first, within = _attention_to_views(block, call.inputs, views, count)
            matching.append(matching_loss(first[..., :1, :], matches[:, :, :1], visible[:, :, :1], grid))
            matching.append(matching_loss(within, matches, visible, grid))
            flow.append(flow_loss(probe(call.output.unflatten(1, (views, -1))[:, :, -count:]), matches, visible))
        pose, point, truth = [], [], patch_points(batch, patch)
        for to_pose, to_point, index in zip(self.pose, self.point, self.config.pose_blocks, strict=True):
            tokens = blocks[index][1].output.unflatten(1, (views, -1))
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


def patch_grid(network: FF3R, images: Float[Tensor, "*batch 3 h w"]) -> tuple[int, int]:
    """Rows and columns of the aggregator's patches."""
    patch = network.aggregator.patch
    return images.shape[-2] // patch, images.shape[-1] // patch


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
