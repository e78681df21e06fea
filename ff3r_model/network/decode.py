"""Decoding: the network's output as cameras, depth and Gaussians in the window's frame."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from ff3r_model.core.geometry import (
    anchored,
    invert_rigid,
    matrix_to_quaternion,
    quaternion_multiply,
    quaternion_to_matrix,
    rigid,
    transform_points,
    unproject,
)
from ff3r_model.core.types import DEPTH_CONFIDENCE_WEIGHT, Cameras, Gaussians, Prediction, harmonics_from_rgb
from ff3r_model.network.gaussian_head import RawGaussians
from ff3r_model.network.known_cameras import scale_from_known
from ff3r_model.network.model import NetworkOutput

FOOTPRINTS = (0.1, 10.0)
"""Smallest and largest standard deviation of a Gaussian, in pixel footprints (depth / focal length): ours, the paper
says nothing. It keeps a Gaussian near the size of the pixel that it came from."""
LEAST_SCALE = 1e-6
"""Below it, predicted centres have nothing to do with the known ones, which are then left."""
LIFTED_OPACITY = 0.9
"""Opacity of the Gaussians of lifting mode, which has no Gaussian head (ours)."""


def decode_cameras(encoding: Float[Tensor, "views 9"], height: int, width: int) -> Cameras:
    """VGGT's pose encoding as cameras.

    The encoding is camera_from_world as translation (3) and quaternion xyzw (4, any norm), then the vertical and the
    horizontal field of view in radians. The principal point is the centre; `height` and `width` are in pixels.
    """
    rotation = quaternion_to_matrix(encoding[:, [6, 3, 4, 5]])
    size = torch.tensor([height, width], dtype=encoding.dtype, device=encoding.device)
    focal = size / 2 / torch.tan(encoding[:, 7:].clamp(1e-3, torch.pi - 1e-3) / 2)
    intrinsics = torch.zeros_like(rotation)
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = focal[:, 1], focal[:, 0]
    intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 2, 2] = width / 2, height / 2, 1
    return Cameras(rigid(rotation, encoding[:, :3]), intrinsics)


def predict(
    output: NetworkOutput,
    intrinsics: Float[Tensor, "views 3 3"] | None = None,
    images: Float[Tensor, "views 3 h w"] | None = None,
    known: Float[Tensor, "views 4 4"] | None = None,
) -> Prediction:
    """What the network's output for one window (a batch of one) means, in float32 and in the first camera's frame.

    Known `intrinsics` replace the predicted ones. `known` poses (camera_from_world) that the network was given replace
    those that it predicts all the same, and depth follows their unit. `images` (RGB in [0, 1]) colour the Gaussians of
    lifting mode, which are grey without them.
    """
    depth, confidence = output.depth[0].float(), output.depth_confidence[0].float()
    cameras = decode_cameras(output.pose_encodings[-1, 0].float(), *depth.shape[1:])
    intrinsics = cameras.intrinsics if intrinsics is None else intrinsics.to(depth)
    poses = cameras.camera_from_world
    if known is not None and (scale := scale_from_known(poses, known)) > LEAST_SCALE:
        poses, depth = known.to(depth), depth / scale
    cameras = Cameras(anchored(poses), intrinsics)
    if output.gaussians is not None:
        gaussians = _activate(output.gaussians, depth, confidence, cameras)
    elif output.lifted is not None:
        gaussians = _lift(output.lifted[0].float(), depth, confidence, cameras, images)
    else:
        raise ValueError("the network's output has neither Gaussians nor lifted features")
    descriptors = normalize(output.tokens[0].float().mean(dim=1), dim=-1)
    return Prediction(cameras, depth, confidence, gaussians, descriptors)


def _means(depth: Float[Tensor, "views h w"], cameras: Cameras) -> Float[Tensor, "n 3"]:
    """Each pixel's point in the first camera's frame."""
    points = unproject(depth, cameras.intrinsics).flatten(1, 2)
    return transform_points(invert_rigid(cameras.camera_from_world), points).flatten(0, 1)


def _footprint(depth: Float[Tensor, "views h w"], cameras: Cameras) -> Float[Tensor, "n 1"]:
    """The width of a pixel at its depth."""
    focal = (cameras.intrinsics[:, 0, 0] + cameras.intrinsics[:, 1, 1]) / 2
    return (depth / focal[:, None, None]).reshape(-1, 1)


def _activate(
    raw: RawGaussians,
    depth: Float[Tensor, "views h w"],
    confidence: Float[Tensor, "views h w"],
    cameras: Cameras,
) -> Gaussians:
    """One Gaussian per pixel from the Gaussian head's channels; its quaternions are in the pixel's camera's frame."""

    def rows(channels: Float[Tensor, "batch views c h w"]) -> Float[Tensor, "n c"]:
        return channels[0].float().permute(0, 2, 3, 1).flatten(0, 2)

    views, pixels = depth.shape[0], depth[0].numel()
    world_from_camera = matrix_to_quaternion(cameras.camera_from_world[:, :3, :3].mT)
    camera_from_gaussian = normalize(rows(raw.quaternion), dim=1).unflatten(0, (views, pixels))
    return Gaussians(
        means=_means(depth, cameras),
        scales=rows(raw.log_scale).exp().clamp(*FOOTPRINTS) * _footprint(depth, cameras),
        quaternions=quaternion_multiply(world_from_camera[:, None], camera_from_gaussian).flatten(0, 1),
        harmonics=rows(raw.harmonics).unflatten(1, (-1, 3)),
        opacities=rows(raw.opacity_logit)[:, 0].sigmoid(),
        confidences=rows(raw.confidence_logit)[:, 0] + DEPTH_CONFIDENCE_WEIGHT * confidence.log().flatten(),
        features=rows(raw.feature),
    )


def _lift(
    features: Float[Tensor, "views channels hs ws"],
    depth: Float[Tensor, "views h w"],
    confidence: Float[Tensor, "views h w"],
    cameras: Cameras,
    images: Float[Tensor, "views 3 h w"] | None,
) -> Gaussians:
    """One round Gaussian per pixel, with the semantic features interpolated to the pixel."""
    count = depth.numel()
    last = features.contiguous(memory_format=torch.channels_last)  # so that rows per pixel below are a view, no copy
    full = interpolate(last, size=tuple(depth.shape[1:]), mode="bilinear", align_corners=False)
    colors = depth.new_full((count, 3), 0.5) if images is None else images.to(depth).permute(0, 2, 3, 1).flatten(0, 2)
    return Gaussians(
        means=_means(depth, cameras),
        scales=_footprint(depth, cameras).expand(count, 3).contiguous(),
        quaternions=depth.new_tensor([1.0, 0, 0, 0]).repeat(count, 1),
        harmonics=harmonics_from_rgb(colors)[:, None],
        opacities=depth.new_full((count,), LIFTED_OPACITY),
        confidences=DEPTH_CONFIDENCE_WEIGHT * confidence.log().flatten(),
        features=full.permute(0, 2, 3, 1).flatten(0, 2),
    )
