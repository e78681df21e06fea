"""The paper's objective: images and a teacher's word in, rendered, compared, and summed."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ff3r_model.core.geometry import invert_rigid
from ff3r_model.core.types import Cameras, Gaussians, Prediction
from ff3r_model.gaussians.render import Rendering, render
from ff3r_model.gaussians.voxelize import VoxelizeConfig, voxelize
from ff3r_model.network.decode import decode_cameras, predict
from ff3r_model.network.gaussian_head import RawGaussians
from ff3r_model.network.model import FF3R, NetworkOutput
from ff3r_model.training.datasets.batches import TrainingBatch
from ff3r_model.training.objectives.paper_losses import (
    PaperWeights,
    camera_loss,
    confident,
    depth_loss,
    feature_loss,
    rgb_loss,
    sample_pairs,
    total_loss,
    warping_loss,
)
from ff3r_model.training.objectives.perceptual import perceptual_distance


@dataclass(frozen=True)
class PaperConfig:
    """The objective's switches, and what the paper leaves open."""

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
    """Views rendered per window and step, drawn at random; None: all. Ours: on a CPU, rendering takes most time."""
    target_views: int = 0
    """Last views of each window that the network does not see: rendered at the teacher's cameras. Ours; the paper
    renders context views."""
    epsilon: float = 0.01
    """Edge of the voxels as a share of the window's median depth: about a pixel of a small image. Ours."""
    distance_weight: float = 1.0
    """λ of equation 7. Ours."""
    depth_share: float = 0.7
    """N of equation 12: share of the pixels, the most confident, whose depth is learned. AnySplat's."""
    camera_gamma: float = 0.6
    """Weight of each iteration of the camera head relative to the next. AnySplat's."""
    camera_delta: float = 1.0
    """Where equation 11's Huber turns from square to linear. AnySplat's."""
    warp_pairs: int = 8
    """Pairs of views warped onto each other per window. Ours."""
    warp_tolerance: float = 0.05
    """Relative difference of depth beyond which a point counts as hidden. Ours."""


class PaperObjective(nn.Module):
    """Network and batch in, named loss terms out; `total` is what training minimises (equation 13)."""

    def __init__(self, config: PaperConfig | None = None) -> None:
        super().__init__()
        self.config = config or PaperConfig()
        self.perceptual = perceptual_distance(self.config.trunk)

    def forward(self, network: FF3R, batch: TrainingBatch) -> dict[str, Tensor]:
        """Means over the batch's windows. Raises ValueError without a teacher's targets or Gaussians to render."""
        if batch.targets is None:
            raise ValueError("the paper's objective needs a teacher: the batch has no targets")
        context = batch.images.shape[1] - self.config.target_views
        output = network(batch.images[:, :context], semantics=False)
        if output.gaussians is None:
            raise ValueError("lifting mode has no Gaussian head to train: set decode_gaussians in the configuration")
        with torch.autocast(batch.images.device.type, enabled=False):
            windows = [self._window_terms(network, output, batch, index) for index in range(len(batch.images))]
            terms = {name: torch.stack([window[name] for window in windows]).mean() for name in windows[0]}
            if self.config.distillation:
                poses = batch.targets.pose_encodings[:, :context].float()
                encodings = output.pose_encodings.float()
                terms["camera"] = camera_loss(encodings, poses, self.config.camera_gamma, self.config.camera_delta)
            terms["total"] = total_loss(terms, self.config.weights)
        return terms

    def _window_terms(
        self, network: FF3R, output: NetworkOutput, batch: TrainingBatch, index: int
    ) -> dict[str, Tensor]:
        """Everything that is rendered or warped of one window."""
        assert batch.targets is not None
        images, taught = batch.images[index].float(), batch.targets
        poses, depth, features = (x[index].float() for x in (taught.pose_encodings, taught.depth, taught.features))
        window: Any = window_output(output, index)  # to mypy, frozen fields do not fit a protocol's
        prediction = predict(window)
        picks = self._rendered(len(prediction.depth), len(images)).to(images.device)
        cameras = with_targets(prediction.cameras, decode_cameras(poses, *images.shape[-2:]))
        seen = render(self._gaussians(prediction), select_cameras(cameras, picks), *images.shape[-2:])
        colors, weights = seen.colors.permute(0, 3, 1, 2), self.config.weights
        words = text_features(network, seen, (features.shape[-2], features.shape[-1]))
        terms = {
            "rgb": rgb_loss(colors, images[picks], self.perceptual, weights.perceptual),
            "feature": feature_loss(words, features[picks]),
        }
        if self.config.distillation:
            mask = confident(taught.depth_confidence[index].float(), depth, self.config.depth_share)
            terms["depth"] = depth_loss(seen.depth, depth[picks], mask[picks])
        if self.config.warping:
            terms["warp"] = self._warping(prediction)
        return terms

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

    def _warping(self, prediction: Prediction) -> Float[Tensor, ""]:
        """Of the Gaussians' features where they were decoded; geometry guides and learns nothing from it (ours)."""
        depth, cameras = prediction.depth.detach(), prediction.cameras
        features = prediction.gaussians.features.unflatten(0, tuple(depth.shape)).permute(0, 3, 1, 2)
        fixed = Cameras(cameras.camera_from_world.detach(), cameras.intrinsics.detach())
        pairs = sample_pairs(len(depth), self.config.warp_pairs).to(depth.device)
        return warping_loss(features, depth, fixed, pairs, self.config.warp_tolerance)


def text_features(network: FF3R, seen: Rendering, size: tuple[int, int]) -> Float[Tensor, "views text rows columns"]:
    """Rendered features in the text's space, at the teacher's resolution."""
    compact = interpolate(seen.features.permute(0, 3, 1, 2), size, mode="area")
    decoded: Tensor = network.feature_decoder(compact.permute(0, 2, 3, 1))
    return decoded.permute(0, 3, 1, 2)


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
        raise ValueError("fusion can only be left out where it is a residual: set fusion_residual in the configuration")
    nn.init.zeros_(network.fusion.proj.weight)
    nn.init.zeros_(network.fusion.proj.bias)
    network.fusion.requires_grad_(False)
