"""A batch of synthetic training windows, normalised the way the network is asked to predict them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid, transform_points, unproject


@dataclass(frozen=True)
class RoomWindow:
    """A batch of windows with everything that the synthetic world knows about them."""

    images: Float[Tensor, "batch views 3 height width"]
    depth: Float[Tensor, "batch views height width"]
    """In units of `metres`; 0 where the ray hit nothing."""
    camera_from_world: Float[Tensor, "batch views 4 4"]
    """The world is the first view's camera, in units of `metres`."""
    intrinsics: Float[Tensor, "batch views 3 3"]
    classes: Int[Tensor, "batch views height width"]
    colors: Int[Tensor, "batch views height width"]
    metres: Float[Tensor, " batch"]
    """Metres per unit: the mean distance of the window's points from the first camera (as VGGT normalises)."""


def make_window(arrays: dict[str, np.ndarray], mirror: bool = False) -> RoomWindow:
    """Windows in the first view's frame, normalised, optionally mirrored left to right."""
    images = torch.from_numpy(arrays["images"]).permute(0, 1, 4, 2, 3).float() / 255
    depth = torch.from_numpy(arrays["depth"].astype(np.float32))
    depth = torch.where(torch.isfinite(depth) & (depth < 100), depth, torch.zeros_like(depth))
    classes, colors = (torch.from_numpy(arrays[name].astype(np.int64)) for name in ("classes", "colors"))
    world_from_camera = torch.from_numpy(arrays["world_from_camera"]).double()
    # The world is the first camera.
    camera_from_world = invert_rigid(world_from_camera) @ world_from_camera[:, :1]
    if mirror:
        images, depth, classes, colors = (x.flip(-1) for x in (images, depth, classes, colors))
        flip = torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64))
        camera_from_world = flip @ camera_from_world @ flip
    intrinsics = torch.from_numpy(arrays["intrinsics"]).float()[:, None].expand(-1, images.shape[1], 3, 3)
    # The unit is the mean distance of the points.
    metres = _metres_per_unit(depth, camera_from_world.float(), intrinsics)
    camera_from_world[..., :3, 3] /= metres[:, None, None].double()
    depth = depth / metres[:, None, None, None]
    return RoomWindow(images, depth, camera_from_world.float(), intrinsics, classes, colors, metres)


def _metres_per_unit(depth: Tensor, camera_from_world: Tensor, intrinsics: Tensor) -> Float[Tensor, " batch"]:
    """Mean distance of all points from the first camera's centre."""
    points = unproject(depth, intrinsics).flatten(2, 3)
    points = transform_points(invert_rigid(camera_from_world), points)
    valid = (depth > 0).flatten(2)
    return (points.norm(dim=-1) * valid).sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)
