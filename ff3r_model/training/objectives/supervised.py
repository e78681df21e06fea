"""The supervised objective: how `nano` is taught by the synthetic world's known geometry and classes.

The paper trains from images alone; these terms are ours, for rooms whose truth is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ff3r_model.core.ranges import AT_LEAST_ONE, Range, check_range
from ff3r_model.network.model import FF3R, NetworkOutput
from ff3r_model.training.datasets.batches import TrainingBatch
from ff3r_model.training.datasets.room_views import RoomWindow
from ff3r_model.training.objectives.camera_losses import (
    CameraContext,
    FieldOfViewLoss,
    PairLoss,
    RotationLoss,
    TranslationLoss,
)
from ff3r_model.training.objectives.dense_losses import (
    DenseContext,
    DepthGradientLoss,
    GaussianColorLoss,
    GaussianFeatureLoss,
    GaussianShapeLoss,
    LogDepthLoss,
    PhraseLoss,
    SemanticContext,
    SemanticsLoss,
)
from ff3r_model.training.objectives.loss import WEIGHTS, Loss, evaluate, total_loss
from ff3r_model.training.objectives.matching_losses import (
    Call,
    ContrastLoss,
    FlowLoss,
    MatchingContext,
    MatchingLoss,
    PointProbeLoss,
    PoseProbeLoss,
    captured_calls,
)


@dataclass(frozen=True)
class LossWeights:
    """How the loss terms add up."""

    rotation: float = 1.0
    translation: float = 3.0
    pair: float = 1.0
    """Of `pair_loss`."""
    field_of_view: float = 1.0
    depth: float = 1.0
    depth_gradient: float = 0.5
    confidence: float = 0.1
    """α of VGGT's confidence-weighted depth: c·|error| − α·log c."""
    contrast: float = 0.3
    matching: float = 0.5
    flow: float = 0.3
    pose_probe: float = 0.2
    point_probe: float = 0.3
    semantics: float = 0.5
    feature: float = 0.5
    color: float = 0.5
    gaussian: float = 0.1
    gamma: float = 0.6
    """Discount of the camera head's earlier iterations."""
    temperature: float = 0.07
    """Of the cosine classification over phrases."""

    def __post_init__(self) -> None:
        check_range(self, WEIGHTS, *vars(self))
        check_range(self, Range(1e-4, WEIGHTS.high), "temperature")


@dataclass(frozen=True)
class TextTargets:
    """Unit embeddings that semantic features are taught, in the order of the synthetic vocabulary."""

    classes: Float[Tensor, "classes channels"]
    phrases: Float[Tensor, "phrases channels"]
    """Class by colour name, the colour varying fastest: phrase = class · colours + colour."""


Part = Literal["all", "geometry", "words"]


@dataclass(frozen=True)
class SupervisedConfig:
    """What of the network is taught, and how."""

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

    def __post_init__(self) -> None:
        check_range(self, AT_LEAST_ONE, "dense_views", "pixels_per_view")


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
        self.config = config
        self.register_buffer("classes", targets.classes, persistent=False)
        self.register_buffer("phrases", targets.phrases, persistent=False)
        self.contrast = nn.Linear(width, 64)
        self.flow = nn.ModuleList(nn.Linear(width, 2) for _ in config.matching_blocks)
        self.pose = nn.ModuleList(nn.Linear(width, 12) for _ in config.pose_blocks)
        self.point = nn.ModuleList(nn.Linear(width, 3) for _ in config.pose_blocks)
        self._add_losses(config, config.weights)

    def _add_losses(self, config: SupervisedConfig, weights: LossWeights) -> None:
        phrases = PhraseLoss(config.pixels_per_view, weights.temperature)
        semantics = SemanticsLoss(weights.semantics, phrases)
        self.semantic_losses: list[Loss[SemanticContext]] = [semantics]
        self.camera_losses: list[Loss[CameraContext]] = [
            PairLoss(weights.pair, weights.gamma),
            RotationLoss(weights.rotation, weights.gamma),
            TranslationLoss(weights.translation, weights.gamma),
            FieldOfViewLoss(weights.field_of_view, weights.gamma),
        ]
        self.matching_losses: list[Loss[MatchingContext]] = [
            ContrastLoss(weights.contrast, self.contrast),
            MatchingLoss(weights.matching, config.matching_blocks),
            FlowLoss(weights.flow, config.matching_blocks, self.flow),
            PoseProbeLoss(weights.pose_probe, config.pose_blocks, self.pose),
            PointProbeLoss(weights.point_probe, config.pose_blocks, self.point),
        ]
        self.dense_losses: list[Loss[DenseContext]] = [
            LogDepthLoss(weights.depth, weights.confidence),
            DepthGradientLoss(weights.depth_gradient),
            GaussianColorLoss(weights.color),
            GaussianShapeLoss(weights.gaussian),
            semantics,
            GaussianFeatureLoss(weights.feature, phrases),
        ]

    @property
    def losses(self) -> list[Loss[Any]]:
        """The objective: the losses of the configured part."""
        if self.config.part == "words":
            return [*self.semantic_losses]
        dense = self.dense_losses if self.config.part == "all" else []
        return [*self.camera_losses, *self.matching_losses, *dense]

    def forward(self, network: FF3R, batch: TrainingBatch) -> dict[str, Tensor]:
        """Run the network on the batch's images and compare with its truth, which must be there."""
        assert batch.truth is not None, "the supervised objective needs the synthetic world's truth"
        parts = {"words": self._words, "geometry": self._geometry, "all": self._all}
        terms = parts[self.config.part](network, batch.images, batch.truth)
        terms["total"] = total_loss(self.losses, terms)
        return terms

    def _words(self, network: FF3R, images: Float[Tensor, "batch views 3 h w"], truth: RoomWindow) -> dict[str, Tensor]:
        """The semantic encoder alone, in every view."""
        views, patch = images.flatten(0, 1), network.aggregator.patch
        grid = (views.shape[-2] // patch, views.shape[-1] // patch)
        semantics = network.semantic_encoder.see(views, grid).features
        classes, colors = truth.classes.flatten(0, 1), truth.colors.flatten(0, 1)
        context = SemanticContext(semantics, classes, colors, self.classes, self.phrases)
        return evaluate(self.semantic_losses, context)

    def _geometry(
        self, network: FF3R, images: Float[Tensor, "batch views 3 h w"], truth: RoomWindow
    ) -> dict[str, Tensor]:
        """Cameras and matches of all views, without the dense heads."""
        patches = network.aggregator.encode(images)
        with captured_calls(list(network.aggregator.global_blocks)) as calls:
            poses, _ = network.estimate_cameras(images, patches)
        return self._across_views(network, poses, patches, calls, truth)

    def _all(self, network: FF3R, images: Float[Tensor, "batch views 3 h w"], truth: RoomWindow) -> dict[str, Tensor]:
        """Cameras and matches of all views, dense maps of some."""
        picks = torch.randperm(images.shape[:2].numel(), device=images.device)[: self.config.dense_views]
        with captured_calls(list(network.aggregator.global_blocks)) as calls:
            frames = network.encode_frames(images, semantics=True, dense_views=picks)
            output = network.decode_window(images, frames, dense_views=picks)
        terms = self._across_views(network, output.pose_encodings, frames.patches, calls, truth)
        return terms | evaluate(self.dense_losses, self._dense_context(network, output, images, truth, picks))

    def _across_views(
        self,
        network: FF3R,
        poses: Float[Tensor, "iterations batch views 9"],
        patches: Float[Tensor, "batch views tokens width"],
        calls: list[Call],
        truth: RoomWindow,
    ) -> dict[str, Tensor]:
        """What all views together say: cameras, and matches between them."""
        aggregator = network.aggregator
        blocks = list(zip(aggregator.global_blocks, calls, strict=True))
        matching = MatchingContext.of(patches, blocks, truth, aggregator.patch)
        return evaluate(self.camera_losses, CameraContext(poses, truth)) | evaluate(self.matching_losses, matching)

    def _dense_context(
        self, network: FF3R, output: NetworkOutput, images: Tensor, truth: RoomWindow, picks: Int[Tensor, " n"]
    ) -> DenseContext:
        """Dense maps of the picked views beside the truth."""
        assert output.gaussians is not None and output.semantics is not None, "lifting mode has nothing to train"
        return DenseContext(
            semantics=output.semantics[0],
            classes=truth.classes.flatten(0, 1)[picks],
            colors=truth.colors.flatten(0, 1)[picks],
            class_targets=self.classes,
            phrase_targets=self.phrases,
            images=images.flatten(0, 1)[picks],
            depth=output.depth[0].float(),
            depth_confidence=output.depth_confidence[0].float(),
            true_depth=truth.depth.flatten(0, 1)[picks],
            gaussians=output.gaussians,
            decoder=network.feature_decoder,
        )
