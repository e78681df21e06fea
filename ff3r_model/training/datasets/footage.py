"""Own footage: folders of images as they are, and videos, whose frames are taken out once."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from ff3r_model.frames.image_folder import color_images
from ff3r_model.frames.read_image import IMAGE_SUFFIXES, ImageFileError, read_color
from ff3r_model.frames.source import SourceError
from ff3r_model.frames.video import VideoSource
from ff3r_model.training.datasets.base import DataError, View

log = logging.getLogger(__name__)

VIDEO_FRAMES = 400
"""Most frames that are taken from a video, evenly."""
VIDEO_SIDE = 640
"""Long side, pixels, at which a video's frames are kept: above the largest training size."""


class ImageScene:
    """Image files of one place."""

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        self.name, self.files = name, tuple(files)

    def __len__(self) -> int:
        return len(self.files)

    def view(self, index: int) -> View:
        """The picture alone. Raises DataError for a file that cannot be decoded."""
        file = self.files[index]
        return View(str(file), read_image(file))


def read_image(path: Path) -> UInt8[Tensor, "height width 3"]:
    """A colour image. Raises DataError naming a file that is missing, damaged or no image."""
    try:
        return read_color(path)
    except ImageFileError as error:
        raise DataError(f"{error}: remove it or fetch it again") from error


def open_footage(paths: Sequence[Path], frames_folder: Path) -> list[ImageScene]:
    """A scene per folder of images, per video, and per folder within a folder that has no images itself.

    Frames of videos go to `frames_folder`, once. Raises DataError for what is none of these.
    """
    return [scene for path in paths for scene in _open(path.expanduser(), frames_folder)]


def _open(path: Path, frames_folder: Path) -> list[ImageScene]:
    try:
        if path.is_file():
            return [_video(path, frames_folder)]
        if not path.is_dir():
            raise DataError(f"{path} does not exist: give folders of images, or videos")
        if any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.iterdir() if file.is_file()):
            return [ImageScene(path.resolve().name, [picture.file for picture in color_images(path)])]
    except SourceError as error:
        raise DataError(str(error)) from error
    inner = sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith("."))
    scenes = [ImageScene(f"{path.name}/{item.name}", _images_of(item)) for item in inner]
    scenes = [scene for scene in scenes if len(scene)]
    if not scenes:
        raise DataError(f"{path} holds no images ({' '.join(sorted(IMAGE_SUFFIXES))}), nor do the folders in it")
    return scenes


def _images_of(folder: Path) -> list[Path]:
    try:
        return [picture.file for picture in color_images(folder)]
    except SourceError as error:
        log.warning("%s", error)
        return []


def _video(path: Path, frames_folder: Path) -> ImageScene:
    """The frames of a video as PNG files, made once: a folder under its final name is complete."""
    folder = frames_folder / f"{path.stem}_{path.stat().st_size}"
    if not folder.is_dir():
        partial = folder.with_name(f".{folder.name}.{os.getpid()}")
        partial.mkdir(parents=True, exist_ok=True)
        _extract(VideoSource(path), partial)
        try:
            partial.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(partial)
    return ImageScene(path.stem, sorted(folder.glob("*.png")))


def _extract(video: VideoSource, folder: Path) -> None:
    stride = max(1, math.ceil((video.count or 0) / VIDEO_FRAMES))
    for index, frame in enumerate(tqdm(video, total=video.count, desc=f"frames of {video.name}", disable=None)):
        if index % stride:
            continue
        image = frame.image.numpy()
        shrink = VIDEO_SIDE / max(image.shape[:2])
        if shrink < 1:
            size = (max(1, round(image.shape[1] * shrink)), max(1, round(image.shape[0] * shrink)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        if not cv2.imwrite(str(folder / f"{index:06d}.png"), image[..., ::-1]):
            raise DataError(f"{folder} cannot be written: is the disk full?")
