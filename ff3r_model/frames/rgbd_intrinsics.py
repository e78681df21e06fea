"""Camera matrices of RGB-D folders, for the images as they are stored."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.frames.tum_lists import RgbdError, read_numbers

SEVEN_SCENES_INTRINSICS = (585.0, 585.0, 320.0, 240.0)
"""fx, fy, cx, cy that 7-Scenes gives for all its scenes."""
SEVEN_SCENES_SIZE = (480, 640)
"""Height and width of the images that these are of."""
TYPICAL_FOCAL = 0.85
"""Focal length of depth cameras, in widths of their images."""
CENTRE = (0.3, 0.7)
"""Where principal points lie, as shares of width and height."""


def read_intrinsics(path: Path, size: tuple[int, int], seven_scenes: bool) -> Float[Tensor, "3 3"] | None:
    """From the file that lies beside the images; 7-Scenes has one camera for all. Raises RgbdError."""
    file = path / "camera-intrinsics.txt"
    if file.is_file():
        matrix = read_numbers(file, 9).reshape(3, 3).float()
    elif (file := path / "intrinsics.txt").is_file():
        fx, fy, cx, cy = read_numbers(file, 4).tolist()
        matrix = torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    elif seven_scenes:
        return _seven_scenes_intrinsics(size)
    else:
        return None
    _check_intrinsics(file, matrix, size)
    return matrix


def _check_intrinsics(file: Path, matrix: Float[Tensor, "3 3"], size: tuple[int, int]) -> None:
    """Raise RgbdError for a camera matrix that cannot be, or is of images of another size."""
    height, width = size
    (fx, _, cx), (_, fy, cy), last = matrix.tolist()
    if not matrix.isfinite().all() or min(fx, fy) <= 0 or last != [0, 0, 1]:
        raise RgbdError(f"{file} is no camera matrix: fx, fy = {fx:g}, {fy:g}, last row {last}")
    if not (CENTRE[0] <= cx / width <= CENTRE[1] and CENTRE[0] <= cy / height <= CENTRE[1]):
        raise RgbdError(
            f"{file}: the centre ({cx:g}, {cy:g}) is not that of {width}x{height} images: "
            "write the intrinsics of the images as they are stored"
        )


def _seven_scenes_intrinsics(size: tuple[int, int]) -> Float[Tensor, "3 3"]:
    fx, fy, cx, cy = SEVEN_SCENES_INTRINSICS
    return at_size(torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]), SEVEN_SCENES_SIZE, size)


def at_size(matrix: Float[Tensor, "3 3"], of: tuple[int, int], size: tuple[int, int]) -> Float[Tensor, "3 3"]:
    """The camera matrix of images that were resized from `of` to `size`, both (height, width)."""
    return torch.diag(torch.tensor([size[1] / of[1], size[0] / of[0], 1.0])) @ matrix


def typical_intrinsics(size: tuple[int, int]) -> Float[Tensor, "3 3"]:
    """A guess, good to a fifth or so."""
    height, width = size
    focal = TYPICAL_FOCAL * width
    return torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
