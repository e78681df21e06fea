"""Pictures with known camera poses and no depth: NAME.jpg beside NAME.pose.txt, and camera-intrinsics.txt."""

from __future__ import annotations

from pathlib import Path

import cv2
import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import nearest_rotation, rigid
from ff3r_model.frames.image_folder import IMAGE_SUFFIXES, natural_key
from ff3r_model.frames.source import SourceError
from ff3r_model.training.datasets.base import View

POSE = ".pose.txt"
INTRINSICS = "camera-intrinsics.txt"


class PosedPictures:
    """A folder of pictures with poses as a scene of views; its unit is that of the pose files."""

    def __init__(self, folder: Path) -> None:
        """Raises SourceError where pictures, poses or intrinsics are missing."""
        self.name = folder.name
        files = sorted((file for file in folder.iterdir() if _posed(file)), key=lambda file: natural_key(file.name))
        if not files:
            raise SourceError(f"{folder} holds no picture NAME.jpg with a pose NAME{POSE} beside it")
        self.files = files
        self.intrinsics = _matrix(folder / INTRINSICS, 3)

    def __len__(self) -> int:
        return len(self.files)

    def view(self, index: int) -> View:
        """One picture with its truth. Raises SourceError."""
        file = self.files[index]
        bgr = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if bgr is None:
            raise SourceError(f"{file} cannot be decoded")
        pose = _matrix(file.with_name(file.stem + POSE), 4).double()
        world_from_camera = rigid(nearest_rotation(pose[:3, :3]), pose[:3, 3]).float()
        return View(
            str(file), torch.from_numpy(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)), self.intrinsics, world_from_camera
        )


def is_posed(folder: Path) -> bool:
    """Whether a folder has pictures with poses beside them and one camera's intrinsics."""
    return (folder / INTRINSICS).is_file() and any(_posed(file) for file in folder.iterdir())


def _posed(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES and file.with_name(file.stem + POSE).is_file()


def _matrix(path: Path, size: int) -> Float[Tensor, "size size"]:
    try:
        values = torch.tensor([float(word) for word in path.read_text().split()])
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    if len(values) != size * size or not bool(values.isfinite().all()):
        raise SourceError(f"{path} must hold {size * size} finite numbers; it holds {len(values)}")
    return values.view(size, size)
