"""Frames from a folder of images, in natural order."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.types import Frame
from ff3r_model.frames.folder_hints import empty_folder
from ff3r_model.frames.intrinsics import exif_intrinsics
from ff3r_model.frames.pictures import Picture, look_into, some
from ff3r_model.frames.prepare import ImageError, check_size, warn_of_panorama
from ff3r_model.frames.read_image import ImageFileError, opened, read_color
from ff3r_model.frames.source import NOMINAL_FPS, LeftOut, SourceError

log = logging.getLogger(__name__)

SAME_SHAPE = 0.02
"""Difference of two aspect ratios, relative, up to which pictures have one shape."""
TIME_NAMES = {
    re.compile(r"\d{9,10}\.\d{3,9}"): Decimal(10**9),
    re.compile(r"\d{19}"): Decimal(1),
    re.compile(r"\d{16}"): Decimal(1000),
}
"""Names that are times since 1970, and nanoseconds per unit: seconds with decimals, nanoseconds, microseconds."""


class ImageList:
    """Image files as frames, with the intrinsics that EXIF tells of photos; a damaged one is left out, by name."""

    def __init__(self, name: str, files: Sequence[Path], stamps: Sequence[int] | None = None) -> None:
        """`stamps` in nanoseconds; by default those that the files' names are, or NOMINAL_FPS."""
        self.name, self.files = name, list(files)
        stamps = _times(files) if stamps is None else stamps
        self.stamps = stamps or [round(index * 1e9 / NOMINAL_FPS) for index in range(len(files))]
        seconds = (self.stamps[-1] - self.stamps[0]) / 1e9
        self.fps = (len(files) - 1) / seconds if seconds > 0 else NOMINAL_FPS
        self.count: int | None = len(self.files)

    def __iter__(self) -> Iterator[Frame]:
        left_out = LeftOut(self.name)
        told = False
        for file, stamp in zip(self.files, self.stamps, strict=True):
            try:
                image, matrix = read_color(file), _exif_intrinsics(file)
            except ImageFileError as error:
                left_out.add(error)
                continue
            if matrix is not None and not told:
                told = True
                log.info("%s: focal length by EXIF, %.0f pixels in %s", self.name, float(matrix[0, 0]), file.name)
            yield Frame(image, stamp=stamp, intrinsics=matrix)
        left_out.tell_rest()


def _exif_intrinsics(file: Path) -> Float[Tensor, "3 3"] | None:
    with opened(file) as picture:
        return exif_intrinsics(picture)


class FolderSource(ImageList):
    """The colour images of a folder in natural order (frame2 before frame10), of the shape that most have.

    Depth pictures, masks, damaged files and what else is no picture of the scene are left out, which is said.
    """

    def __init__(self, path: Path) -> None:
        """Raises SourceError when no colour image is there, or images that no map can be made of."""
        files = usable(path, color_images(path))
        super().__init__(path.resolve().name, files)


def color_images(path: Path) -> list[Picture]:
    """The colour images of a folder, of any shape; what is left out is said. Raises SourceError where there is none."""
    try:
        folder = look_into(path)
    except PermissionError as error:
        raise SourceError(f"{path} cannot be read: permission denied") from error
    if not folder.pictures:
        raise SourceError(empty_folder(path, folder))
    if told := folder.told():
        count = sum(map(len, folder.others.values()))
        log.warning("%s: left out %d files that are no colour images: %s", path, count, told)
    return folder.pictures


def usable(path: Path, pictures: Sequence[Picture]) -> list[Path]:
    """The files of the commonest shape. Raises SourceError for one that the network cannot use."""
    kept = _of_one_shape(pictures)
    others = [picture for picture in pictures if picture not in kept]
    height, width = kept[0].height, kept[0].width
    if others:
        names, shape = some([picture.file.name for picture in others]), f"{width}x{height}"
        log.warning("%s: left out %d images that have not the shape of %s: %s", path, len(others), shape, names)
    try:
        check_size(height, width)
    except ImageError as error:
        raise SourceError(f"{path}: {error}") from error
    warn_of_panorama(path, height, width)
    return [picture.file for picture in kept]


def _of_one_shape(pictures: Sequence[Picture]) -> list[Picture]:
    """The largest group of one aspect ratio; of equal ones the first."""
    ratios = [picture.width / picture.height for picture in pictures]
    groups = ([abs(other - ratio) <= SAME_SHAPE * ratio for other in ratios] for ratio in dict.fromkeys(ratios))
    largest = max(groups, key=sum)
    return [picture for picture, alike in zip(pictures, largest, strict=True) if alike]


def _times(files: Sequence[Path]) -> list[int]:
    """Nanoseconds that the files' names say, all in one way and in order; empty where they do not."""
    for pattern, unit in TIME_NAMES.items():
        if all(pattern.fullmatch(file.stem) for file in files):
            times = [round(Decimal(file.stem) * unit) for file in files]
            return times if all(before < after for before, after in pairwise(times)) else []
    return []
