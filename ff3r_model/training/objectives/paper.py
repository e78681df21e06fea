"""The paper's objective: images and a teacher's targets in, rendered, compared, and summed (equation 13)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ff3r_model.core.geometry import invert_rigid
from ff3r_model.core.ranges import AT_LEAST_ONE, Range, check_range
from ff3r_model.core.types import MAX_VIEWS, MIN_VIEWS, Cameras, Gaussians, Prediction
from ff3r_model.gaussians.render import render
from ff3r_model.gaussians.voxelize import VoxelizeConfig, voxelize
from ff3r_model.network.decode import decode_cameras, predict
from ff3r_model.network.gaussian_head import RawGaussians
from ff3r_model.network.model import FF3R, NetworkOutput
from ff3r_model.training.datasets.batches import TeacherTargets, TrainingBatch
from ff3r_model.training.objectives.loss import Loss, ObjectiveError, evaluate, total_loss
from ff3r_model.training.objectives.paper_losses import (
    CameraDistillationLoss,
    CameraTargets,
    PaperContext,
    PaperWeights,
    RenderedColorLoss,
    RenderedDepthLoss,
    RenderedFeatureLoss,
    WarpingLoss,
)
from ff3r_model.training.objectives.perceptual import perceptual_distance


@dataclass(frozen=True)
class PaperConfig:
    """The objective's switches, and what the paper leaves open: ours, or AnySplat's where it says so."""

    weights: PaperWeights = field(default_factory=PaperWeights)
    warping: bool = True
    """Geometry-guided feature warping, the paper's G→S."""
    voxelization: bool = True
    """Semantic-aware voxelization before rendering, the paper's S→G; off: one Gaussian per pixel."""
    distillation: bool = True
    """Cameras and depth of the teacher; its features are always learned from."""
    trunk: Path | None = None
    """VGG-16 of LPIPS; None: SSIM stands in for it."""
    render_views: int | None = None
    """Views rendered per window and step, drawn at random; None: all. On a CPU, rendering takes most time."""
    target_views: int = 0
    """Last views of each window that the network does not see: rendered at the teacher's cameras. The paper
    renders context views."""
    epsilon: float = 0.01
    """Edge of the voxels as a share of the window's median depth: about a pixel of a small image."""
    distance_weight: float = 1.0
    """λ of equation 7."""
    depth_share: float = 0.7
    """N of equation 12: share of the pixels, the most confident, whose depth is learned. AnySplat's."""
    camera_gamma: float = 0.6
    """Weight of each iteration of the camera head relative to the next. AnySplat's."""
    camera_delta: float = 1.0
    """Where equation 11's Huber turns from square to linear. AnySplat's."""
    warp_pairs: int = 8
    """Pairs of views warped onto each other per window."""
    warp_tolerance: float = 0.05
    """Relative difference of depth beyond which a point counts as hidden."""

    def __post_init__(self) -> None:
        check_range(self, AT_LEAST_ONE, "render_views")
        check_range(self, Range(0, MAX_VIEWS - MIN_VIEWS), "target_views")
        check_range(self, Range(0, 1e4), "distance_weight", "warp_pairs")
        check_range(self, Range(0, 1, above=True), "epsilon", "depth_share", "camera_gamma")
        check_range(self, Range(0, 1e4, above=True), "camera_delta", "warp_tolerance")


class PaperObjective(nn.Module):
    """Network and batch in, named loss terms out; `total` is what training minimises (equation 13)."""

    def __init__(self, config: PaperConfig | None = None) -> None:
        super().__init__()
        self.config = config or PaperConfig()
        self.perceptual = perceptual_distance(self.config.trunk)
        self.window_losses = window_losses(self.config, self.perceptual)
        self.camera_losses = camera_losses(self.config)

    @property
    def losses(self) -> list[Loss[Any]]:
        """The objective: those of single windows, then those of the batch."""
        return [*self.window_losses, *self.camera_losses]

    def forward(self, network: FF3R, batch: TrainingBatch) -> dict[str, Tensor]:
        """Means over the batch's windows. ObjectiveError without Gaussians to render, ValueError without a teacher."""
        taught = batch.targets
        if taught is None:
            raise ValueError("the paper's objective needs a teacher: the batch has no targets")
        # The network sees the context views.
        context = batch.images.shape[1] - self.config.target_views
        output = network(batch.images[:, :context], semantics=False)
        if output.gaussians is None:
            raise ObjectiveError(
                "lifting mode has no Gaussian head to train: set decode_gaussians in the configuration"
            )
        with torch.autocast(batch.images.device.type, enabled=False):
            # Each window is rendered and compared by itself.
            contexts = (
                self._context(network, output, batch.images, taught, index) for index in range(len(output.depth))
            )
            windows = [evaluate(self.window_losses, window) for window in contexts]
            terms = {
                loss.name: torch.stack([window[loss.name] for window in windows]).mean() for loss in self.window_losses
            }
            # Cameras are compared batch by batch; then equation 13.
            cameras = CameraTargets(output.pose_encodings.float(), taught.pose_encodings[:, :context].float())
            terms |= evaluate(self.camera_losses, cameras)
            terms["total"] = total_loss(self.losses, terms)
        return terms

    def _context(
        self, network: FF3R, output: NetworkOutput, images: Tensor, taught: TeacherTargets, index: int
    ) -> PaperContext:
        """One window of the batch, rendered."""
        seen, poses = images[index].float(), taught.pose_encodings[index].float()
        prediction = predict(window_output(output, index))
        picks = self._rendered(len(prediction.depth), len(seen)).to(seen.device)
        cameras = with_targets(prediction.cameras, decode_cameras(poses, *seen.shape[-2:]))
        return PaperContext(
            prediction=prediction,
            rendering=render(self._gaussians(prediction), select_cameras(cameras, picks), *seen.shape[-2:]),
            picks=picks,
            images=seen,
            depth=taught.depth[index].float(),
            depth_confidence=taught.depth_confidence[index].float(),
            features=taught.features[index].float(),
            decoder=network.feature_decoder,
        )

    def _rendered(self, context: int, views: int) -> Int[Tensor, " picks"]:
        """The views to render: some or all of the context, and all targets."""
        chosen = torch.randperm(context)[: self.config.render_views].sort().values
        return torch.cat([chosen, torch.arange(context, views)])

    def _gaussians(self, prediction: Prediction) -> Gaussians:
        """One per pixel, or one per voxel."""
        if not self.config.voxelization:
            return prediction.gaussians
        edge = self.config.epsilon * float(prediction.depth.detach().median())
        return voxelize(prediction.gaussians, VoxelizeConfig(edge, self.config.distance_weight)).gaussians


def window_losses(config: PaperConfig, perceptual: nn.Module) -> list[Loss[PaperContext]]:
    """The losses of single windows that the configuration switches on."""
    weights = config.weights
    losses: list[Loss[PaperContext]] = [
        RenderedColorLoss(weights.rgb, perceptual, weights.perceptual),
        RenderedFeatureLoss(weights.feature),
    ]
    if config.distillation:
        losses.append(RenderedDepthLoss(weights.depth, config.depth_share))
    if config.warping:
        losses.append(WarpingLoss(weights.warp, config.warp_pairs, config.warp_tolerance))
    return losses


def camera_losses(config: PaperConfig) -> list[Loss[CameraTargets]]:
    """The losses of whole batches that the configuration switches on."""
    if not config.distillation:
        return []
    return [CameraDistillationLoss(config.weights.camera, config.camera_gamma, config.camera_delta)]


def window_output(output: NetworkOutput, index: int) -> NetworkOutput:
    """One window of a batch, as a batch of one."""

    def parts(whole: NetworkOutput | RawGaussians) -> dict[str, Any]:
        values = {each.name: getattr(whole, each.name) for each in fields(whole)}
        return {name: value[index : index + 1] for name, value in values.items() if isinstance(value, Tensor)}

    raw = output.gaussians
    assert raw is not None
    changed = parts(output) | {"pose_encodings": output.pose_encodings[:, index : index + 1]}
    return replace(output, **changed, gaussians=replace(raw, **parts(raw)))


def with_targets(predicted: Cameras, taught: Cameras) -> Cameras:
    """The context's predicted cameras, then the teacher's of the views that the network has not seen."""
    context = len(predicted.intrinsics)
    poses = taught.camera_from_world @ invert_rigid(taught.camera_from_world[:1])
    return Cameras(
        torch.cat([predicted.camera_from_world, poses[context:]]),
        torch.cat([predicted.intrinsics, taught.intrinsics[context:]]),
    )


def select_cameras(cameras: Cameras, index: Int[Tensor, " picks"]) -> Cameras:
    """The cameras at `index`."""
    return Cameras(cameras.camera_from_world[index], cameras.intrinsics[index])


def without_fusion(network: FF3R) -> None:
    """Hold equation 1's contribution at zero: geometry tokens pass unchanged, and the architecture stays."""
    if not network.config.fusion_residual:
        raise ObjectiveError(
            "fusion can only be left out where it is a residual: set fusion_residual in the configuration"
        )
    nn.init.zeros_(network.fusion.proj.weight)
    nn.init.zeros_(network.fusion.proj.bias)
    network.fusion.requires_grad_(False)
