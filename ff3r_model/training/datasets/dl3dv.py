"""DL3DV-10K's layout: scene folders with images_4/*.png (or another size) beside transforms.json (nerfstudio's)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.frames.natural_order import natural_key
from ff3r_model.training.datasets.base import DataError, View, opened
from ff3r_model.training.datasets.footage import read_image

IMAGES = "images_4"
"""The folder that DL3DV's 960P release has: a quarter of the original size."""
OPENGL_FROM_OPENCV = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
"""Nerfstudio's cameras have y up and look along -z."""


@dataclass(frozen=True)
class _Frame:
    file: Path
    world_from_camera: Float[Tensor, "4 4"]


class Dl3dvScene:
    """One scene; poses are COLMAP's, in a unit of its own. Lens distortion stays in the images."""

    def __init__(self, transforms: Path, images: str = IMAGES) -> None:
        """Raises DataError where the file or the images it lists are not as they should be."""
        folder = transforms.parent
        self.name = folder.parent.name if folder.name == "nerfstudio" else folder.name
        stated = _read(transforms)
        try:
            self._camera = {key: float(stated[key]) for key in ("w", "h", "fl_x", "fl_y", "cx", "cy")}
            if min(self._camera["w"], self._camera["h"]) <= 0:
                raise ValueError(f"w and h must be positive, not {self._camera['w']:g} and {self._camera['h']:g}")
            frames = [_frame(folder / images, entry) for entry in stated["frames"]]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{transforms} is not nerfstudio's: {type(error).__name__} {error}") from error
        self._frames = sorted(
            (frame for frame in frames if frame.file.is_file()), key=lambda frame: natural_key(frame.file.name)
        )
        if not self._frames:
            raise DataError(f"{transforms} lists {len(frames)} frames, and none is in {folder / images}")

    def __len__(self) -> int:
        return len(self._frames)

    def view(self, index: int) -> View:
        """The picture with its pose, and the intrinsics at its size."""
        frame = self._frames[index]
        image = read_image(frame.file)
        across, down = image.shape[1] / self._camera["w"], image.shape[0] / self._camera["h"]
        c = self._camera
        rows = [[c["fl_x"] * across, 0, c["cx"] * across], [0, c["fl_y"] * down, c["cy"] * down], [0, 0, 1]]
        return View(str(frame.file), image, torch.tensor(rows), frame.world_from_camera)


def open_dl3dv(root: Path, images: str = IMAGES) -> list[Dl3dvScene]:
    """Every scene below `root`, however deep (1K/<hash>, <hash>/nerfstudio). Raises DataError where there is none."""
    root = root.expanduser()
    files = sorted(root.rglob("transforms.json"))
    if not files:
        raise DataError(f"{root} holds no transforms.json: DL3DV-10K is <scene>/transforms.json and <scene>/{images}/")
    return opened(files, lambda file: Dl3dvScene(file, images))


def _frame(folder: Path, entry: dict[str, Any]) -> _Frame:
    matrix = torch.tensor(entry["transform_matrix"], dtype=torch.float32)
    if matrix.shape != (4, 4):
        raise ValueError(f"transform_matrix of {entry['file_path']} is {tuple(matrix.shape)}, not 4×4")
    return _Frame(folder / Path(entry["file_path"]).name, matrix @ OPENGL_FROM_OPENCV)


def _read(path: Path) -> dict[str, Any]:
    try:
        stated = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(stated, dict):
        raise DataError(f"{path} should be an object, not {type(stated).__name__}")
    return stated
