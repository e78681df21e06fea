"""ScanNet's layout as its tools export it: color, depth, pose, intrinsic, label-filt; the paper's eight classes."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from ff3r_model.core.geometry import is_rigid
from ff3r_model.frames.natural_order import natural_key
from ff3r_model.frames.rgbd_intrinsics import at_size
from ff3r_model.training.datasets.base import DataError, View, opened
from ff3r_model.training.datasets.footage import read_image

log = logging.getLogger(__name__)

CLASSES = ("wall", "floor", "ceiling", "chair", "table", "sofa", "bed", "other")
"""The paper's. A thing is what the column `nyu40class` calls it; whatever has another name there is "other"."""
LABELS = "scannetv2-labels.combined.tsv"
MILLIMETRES = 1000.0
COLOR_SIZE = (968, 1296)
"""Height and width of the colour images that intrinsic_color.txt is of, where they were made smaller afterwards."""
CENTRE_ERROR = 0.1
"""Distance of a principal point from the middle, as a share of the width, up to which it is of images of a size."""


class ScanNetScene:
    """One scan: scene0000_00/color/0.jpg, depth/0.png, pose/0.txt, intrinsic/intrinsic_color.txt, label-filt/0.png."""

    def __init__(self, folder: Path, classes: Int[ndarray, " ids"] | None = None, truth: bool = True) -> None:
        """`classes` maps ScanNet's label ids to ours (`read_classes`). Without `truth` the pictures alone are read.

        Raises DataError where there are no colour images.
        """
        self.name, self.folder, self.classes, self.truth = folder.name, folder, classes, truth
        self._files = sorted((folder / "color").glob("*.jpg"), key=lambda file: natural_key(file.name))
        if not self._files:
            raise DataError(f"{folder / 'color'} holds no .jpg: export the scan's frames first (SensReader)")
        self._color, self._depth = (
            _matrix(folder / "intrinsic" / f"intrinsic_{kind}.txt") if truth else None for kind in ("color", "depth")
        )

    def __len__(self) -> int:
        return len(self._files)

    def view(self, index: int) -> View:
        """The picture and what the scan knows of it; frames whose tracking was lost have no pose."""
        file = self._files[index]
        image = read_image(file)
        if not self.truth:
            return View(str(file), image)
        pose = _matrix(self.folder / "pose" / f"{file.stem}.txt")
        return View(
            str(file),
            image,
            self._intrinsics(image.shape[0], image.shape[1]),
            pose if pose is not None and is_rigid(pose) else None,
            self._registered_depth(file.stem, image.shape[0], image.shape[1]),
            self._labels(file.stem, image.shape[0], image.shape[1]),
        )

    def _intrinsics(self, height: int, width: int) -> Float[Tensor, "3 3"] | None:
        """Of the colour images as they are stored. Raises DataError where the file is of images of another size."""
        if self._color is None:
            return None
        matrix = self._color[:3, :3]
        for size in ((height, width), COLOR_SIZE):
            if abs(float(matrix[0, 2]) - size[1] / 2) <= CENTRE_ERROR * size[1]:
                return at_size(matrix, size, (height, width))
        file = self.folder / "intrinsic" / "intrinsic_color.txt"
        raise DataError(f"{file}: the centre {float(matrix[0, 2]):g} is not that of images {width} pixels wide")

    def _registered_depth(self, stem: str, height: int, width: int) -> Float[Tensor, "height width"] | None:
        """Metres at each colour pixel. The two cameras differ in intrinsics; ScanNet takes them for one in place."""
        path = self.folder / "depth" / f"{stem}.png"
        color = self._intrinsics(height, width)
        if not path.is_file() or color is None or self._depth is None:
            return None
        depth = _png(path).astype(np.float32) / MILLIMETRES
        depth_from_color = (self._depth[:3, :3] @ torch.linalg.inv(color)).numpy()
        v, u = np.mgrid[0:height, 0:width] + 0.5
        across = depth_from_color[0, 0] * u + depth_from_color[0, 1] * v + depth_from_color[0, 2] - 0.5
        down = depth_from_color[1, 1] * v + depth_from_color[1, 2] - 0.5
        registered = cv2.remap(depth, across.astype(np.float32), down.astype(np.float32), cv2.INTER_NEAREST)
        return torch.from_numpy(registered)

    def _labels(self, stem: str, height: int, width: int) -> Int[Tensor, "height width"] | None:
        path = self.folder / "label-filt" / f"{stem}.png"
        if self.classes is None or not path.is_file():
            return None
        ids = _png(path)
        if ids.shape != (height, width):
            ids = cv2.resize(ids, (width, height), interpolation=cv2.INTER_NEAREST)
        known = np.where(ids < len(self.classes), ids, 0)
        return torch.from_numpy(self.classes[known].astype(np.int64))


def open_scannet(root: Path, *, truth: bool = False) -> list[ScanNetScene]:
    """The scans in `root` (or `root` itself, or those in its folder `scans`). Raises DataError where there is none."""
    root = root.expanduser()
    folders = [root] if (root / "color").is_dir() else sorted(path.parent for path in root.glob("*/color"))
    folders = folders or sorted(path.parent for path in root.glob("scans/*/color"))
    if not folders:
        raise DataError(f"{root} holds no scans: ScanNet, exported, is <scene>/color/*.jpg and so on")
    tables = [path for path in (root / LABELS, root.parent / LABELS) if path.is_file()]
    if truth and not tables:
        log.warning("%s is not in %s: no labels", LABELS, root)
    classes = read_classes(tables[0]) if truth and tables else None
    return opened(folders, lambda folder: ScanNetScene(folder, classes, truth))


def read_classes(table: Path) -> Int[ndarray, " ids"]:
    """ScanNet's label id → index into CLASSES; -1 for ids that mean nothing, such as 0. Raises DataError."""
    try:
        with table.open(newline="") as file:
            rows = [(int(row["id"]), row["nyu40class"].strip()) for row in csv.DictReader(file, delimiter="\t")]
    except (OSError, KeyError, ValueError, AttributeError) as error:
        raise DataError(f"{table} is not ScanNet's table of labels: {type(error).__name__} {error}") from error
    classes = np.full(max((label for label, _ in rows), default=0) + 1, -1)
    for label, name in rows:
        classes[label] = CLASSES.index(name) if name in CLASSES else CLASSES.index("other")
    return classes


def _matrix(path: Path) -> Float[Tensor, "4 4"] | None:
    """A 4×4 matrix in a text file; None where the file is missing."""
    if not path.is_file():
        return None
    try:
        return torch.from_numpy(np.loadtxt(path, dtype=np.float64).reshape(4, 4)).float()
    except ValueError as error:
        raise DataError(f"{path} is no 4×4 matrix: {error}") from error


def _png(path: Path) -> ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 2:
        raise DataError(f"{path} cannot be decoded as a one-channel PNG")
    return image
