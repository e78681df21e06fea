"""What cameras in a furnished room see: colour as a camera would record it, and exact depth, classes and instances."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid
from ff3r_model.core.types import Cameras
from ff3r_model.synthetic.furnished.camera_response import CameraResponse
from ff3r_model.synthetic.furnished.room import FurnishedRoom
from ff3r_model.synthetic.raytracer import RenderedViews
from ff3r_model.synthetic.vocabulary import COLOR_ID

MIDDLE_GREY = 0.32
"""Of the picture's mean radiance, after exposure."""
GAMMA = 1 / 2.2


@dataclass(frozen=True)
class Traced:
    """One view, before a camera's response."""

    radiance: Float[ndarray, "h w 3"]
    depth: Float[ndarray, "h w"]
    triangle: ndarray


def render_furnished(
    room: FurnishedRoom,
    world_from_camera: Float[Tensor, "v 4 4"],
    intrinsics: Float[Tensor, "v 3 3"],
    height: int,
    width: int,
    supersample: int = 2,
    response: CameraResponse | None = None,
) -> RenderedViews:
    """Views of cameras inside the building, all at one exposure; `response` is what the camera makes of the light.

    Poses in metres (OpenCV axes), intrinsics in pixels of height × width. Depth and labels are of the ray through a
    pixel's centre; classes index `classes.CLASSES`, colours `vocabulary.COLORS`.
    """
    views = [trace(room, pose, K, height, width, supersample) for pose, K in
             zip(world_from_camera.double().numpy(), intrinsics.double().numpy(), strict=True)]  # fmt: skip
    exposure = MIDDLE_GREY / max(float(np.mean([view.radiance.mean() for view in views])), 1e-6)
    rng = np.random.default_rng([room.seed, len(views)])
    images = np.stack([_recorded(view.radiance * exposure, response, rng) for view in views])
    at = np.stack([view.triangle for view in views])
    instances = room.scene.instance[at]
    colors = np.array([COLOR_ID[thing.color] for thing in room.instances], np.int16)
    return RenderedViews(
        images=torch.from_numpy(images),
        depth=torch.from_numpy(np.stack([view.depth for view in views])),
        classes=torch.from_numpy(room.scene.class_id[at]),
        colors=torch.from_numpy(colors[instances]),
        instances=torch.from_numpy(instances),
        cameras=Cameras(invert_rigid(world_from_camera.float()), intrinsics.float()),
    )


def _recorded(
    light: Float[ndarray, "h w 3"], response: CameraResponse | None, rng: np.random.Generator
) -> UInt8[ndarray, "h w 3"]:
    if response is not None:
        return response.record(light, rng)
    return (255 * np.clip(light, 0, 1) ** GAMMA).round().astype(np.uint8)


def trace(
    room: FurnishedRoom,
    world_from_camera: Float[ndarray, "4 4"],
    intrinsics: Float[ndarray, "3 3"],
    height: int,
    width: int,
    supersample: int,
) -> Traced:
    """One view: colour from supersample² rays per pixel, the rest from the one through its centre."""
    origins, directions, scale = camera_rays(world_from_camera, intrinsics, height, width, 1)
    hits = room.tracer.hits(origins, directions)
    if supersample == 1:
        radiance = room.tracer.shade(origins, directions, hits).reshape(height, width, 3)
    else:
        fine, towards, _ = camera_rays(world_from_camera, intrinsics, height, width, supersample)
        colors = room.tracer.shade(fine, towards, room.tracer.hits(fine, towards))
        large = colors.reshape(height * supersample, width * supersample, 3)
        radiance = cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)
    depth = (hits.distance / scale).reshape(height, width).astype(np.float32)
    return Traced(radiance, depth, np.maximum(hits.triangle, 0).reshape(height, width))


def camera_rays(
    world_from_camera: Float[ndarray, "4 4"], intrinsics: Float[ndarray, "3 3"], height: int, width: int, fine: int
) -> tuple[ndarray, ndarray, ndarray]:
    """Origins and unit directions of fine² rays per pixel, row by row, and the length of each at z = 1."""
    columns, rows = np.meshgrid((np.arange(width * fine) + 0.5) / fine, (np.arange(height * fine) + 0.5) / fine)
    pixels = np.stack([columns, rows, np.ones_like(rows)], axis=-1).reshape(-1, 3)
    local = pixels @ np.linalg.inv(intrinsics).T
    scale = np.linalg.norm(local, axis=1)
    directions = (local / scale[:, None]) @ world_from_camera[:3, :3].T
    origins = np.broadcast_to(world_from_camera[:3, 3].astype(np.float32), directions.shape)
    return np.ascontiguousarray(origins), directions.astype(np.float32), scale
