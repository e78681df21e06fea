"""Image preparation: crop and resize for the network, and the way back to the camera's pixels."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from ff3r_model.core.errors import UserError
from ff3r_model.core.geometry import pixel_grid

log = logging.getLogger(__name__)

MIN_SIDE = 14
"""Fewest pixels along the short side: one patch of the network. Our choice; smaller pictures are icons."""
MAX_ASPECT = 4.0
"""Longer strips than 1:4 are refused: the network never saw any. Our choice; the paper's data stays within 1:2."""
MAX_STRETCH = 0.05
"""By which pixels may become higher than wide, or wider than high, so that less is cut off: the network hardly sees it,
and the intrinsics say it. Our choice."""
WHOLE = 0.98
"""Share of an image that the network is to see."""
MOST_SIDES = 64
"""Sides that are tried: with more patches than that along a side, the first shows everything."""
LEAST_SIDE = 0.85
"""Of the long side that is asked for, which whole patches may take less of where more of the image is seen so."""

PICTURE_SIDE = 640
"""Long side at most of the pictures that features are found in: more costs time and hardly helps."""


class ImageError(UserError, ValueError):
    """An image that cannot be prepared for the network."""


def check_size(height: int, width: int) -> None:
    """Raise ImageError for images that show too little, and for strips longer than 1:4."""
    if min(height, width) < MIN_SIDE:
        raise ImageError(f"an image of {width}x{height} pixels is too small: {MIN_SIDE} are needed along each side")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ImageError(
            f"an image of {width}x{height} pixels is longer than 1:{MAX_ASPECT:g}; crop or split it before"
        )


def warn_of_panorama(path: Path, height: int, width: int) -> None:
    """Say of pictures that are twice as wide as high what becomes of them if they show all directions."""
    if width == 2 * height:
        log.warning(
            "%s: %dx%d is the shape of a 360° panorama (equirectangular). If it is one, the map will be wrong: "
            "cut it into perspective views before; if not, all is well",
            path,
            width,
            height,
        )


@dataclass(frozen=True)
class Crop:
    """Which rectangle of the original image (whole pixels) the prepared image shows, and at what size.

    Coordinates follow `geometry`: pixel centres lie at integer + 0.5, so both maps are exact.
    """

    left: int
    top: int
    crop_width: int
    crop_height: int
    width: int
    """Of the prepared image, in pixels, like `height`."""
    height: int

    @property
    def step(self) -> tuple[float, float]:
        """Original pixels per prepared pixel, (x, y); the two differ by `MAX_STRETCH` and rounding at most."""
        return self.crop_width / self.width, self.crop_height / self.height

    def to_original(self, pixels: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """(u, v) of the original image from (u, v) of the prepared one."""
        return pixels * pixels.new_tensor(self.step) + pixels.new_tensor((self.left, self.top))

    def intrinsics(self, original: Float[Tensor, "3 3"]) -> Float[Tensor, "3 3"]:
        """The camera matrix of the prepared image from the original image's."""
        step_x, step_y = self.step
        prepared_from_original = original.new_tensor(
            [[1 / step_x, 0, -self.left / step_x], [0, 1 / step_y, -self.top / step_y], [0, 0, 1]]
        )
        return prepared_from_original @ original


def plan_crop(height: int, width: int, long_side: int, patch: int) -> Crop:
    """The largest centred rectangle of a height × width image that fits whole patches, stretched by 5 % at most.

    The long side becomes the largest multiple of `patch` within `long_side` with which 98 % of the image are seen, the
    short side the nearest multiple; where none of at least 0.85 · `long_side` shows as much, the one that shows most.
    Raises ImageError as `check_size` does, and for a `long_side` below one patch.
    """
    check_size(height, width)
    if long_side < patch:
        raise ImageError(f"long_side={long_side} is less than one patch of {patch} pixels")
    most = long_side // patch
    best, best_share = None, 0.0
    for long in range(most, max(math.ceil(LEAST_SIDE * most), most - MOST_SIDES + 1) - 1, -1):
        crop = _crop(height, width, long, patch)
        share = crop.crop_width * crop.crop_height / (width * height)
        if share > best_share:
            best, best_share = crop, share
        if share >= WHOLE:
            break
    assert best is not None
    return best


def _crop(height: int, width: int, long_patches: int, patch: int) -> Crop:
    """The crop that becomes so many patches long."""
    short_patches = max(1, round(long_patches * min(height, width) / max(height, width)))
    out_width, out_height = (long_patches, short_patches) if width >= height else (short_patches, long_patches)
    # Original pixels per patch: along one side all fit, along the other as many more as may be squeezed in.
    scale = min(width / out_width, height / out_height) * (1 + MAX_STRETCH)
    crop_width = min(width, max(1, round(scale * out_width)))
    crop_height = min(height, max(1, round(scale * out_height)))
    return Crop(
        left=(width - crop_width) // 2,
        top=(height - crop_height) // 2,
        crop_width=crop_width,
        crop_height=crop_height,
        width=out_width * patch,
        height=out_height * patch,
    )


def prepare(
    image: UInt8[Tensor, "h w 3"],
    intrinsics: Float[Tensor, "3 3"] | None,
    long_side: int,
    patch: int,
) -> tuple[Float[Tensor, "3 H W"], Float[Tensor, "3 3"] | None, Crop]:
    """The image, resized with antialiasing and scaled to [0, 1], its intrinsics, and the way back.

    Stays on the image's device. Raises ImageError where `plan_crop` does.
    """
    height, width = image.shape[:2]
    crop = plan_crop(height, width, long_side, patch)
    cropped = image[crop.top : crop.top + crop.crop_height, crop.left : crop.left + crop.crop_width]
    planes = cropped.permute(2, 0, 1)[None]
    if planes.device.type != "cpu":  # only the CPU resizes bytes directly (and 14 times faster than floats)
        planes = planes.float()
    resized = interpolate(planes, size=(crop.height, crop.width), mode="bilinear", antialias=True)[0]
    prepared = (resized.float() / 255).clamp(0, 1)
    return prepared.contiguous(), None if intrinsics is None else crop.intrinsics(intrinsics), crop


def prepare_picture(image: UInt8[Tensor, "h w 3"], crop: Crop) -> UInt8[Tensor, "rows columns"]:
    """What the prepared image shows, grey and on the CPU, its long side at most `PICTURE_SIDE`, for features."""
    colors = image[crop.top : crop.top + crop.crop_height, crop.left : crop.left + crop.crop_width].cpu().numpy()
    grey = cv2.cvtColor(np.ascontiguousarray(colors), cv2.COLOR_RGB2GRAY)
    shrink = PICTURE_SIDE / max(grey.shape)
    if shrink < 1:
        grey = cv2.resize(grey, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(grey)


def unprepare(images: Float[Tensor, "*batch 3 H W"]) -> UInt8[Tensor, "*batch H W 3"]:
    """Bytes as cameras give them from prepared images, for showing and saving."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).movedim(-3, -1).contiguous()


def prepare_depth(depth: Float[Tensor, "h w"], crop: Crop) -> Float[Tensor, "H W"]:
    """A depth image as the prepared image shows it: each pixel takes what was measured nearest to its centre.

    Never averaged: between a table's edge and the floor behind it lies nothing. 0, unknown, stays 0.
    """
    u, v = crop.to_original(pixel_grid(crop.height, crop.width, depth)).floor().long().unbind(-1)
    return depth[v.clamp(0, depth.shape[0] - 1), u.clamp(0, depth.shape[1] - 1)]
