"""Own footage: folders of images as they are, and videos, whose frames are taken out once."""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
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

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"})
"""What counts as a video in a folder; a file that is given by name is tried whatever it is called."""
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
    """A scene per folder of images and per video; of a folder that has neither, those of the folders in it.

    Frames of videos go to `frames_folder`, once. Raises DataError for what is none of these.
    """
    return [scene for path in paths for scene in _open(path.expanduser(), frames_folder)]


def _open(path: Path, frames_folder: Path) -> list[ImageScene]:
    if path.is_file():
        try:
            return [_video(path, path.stem, frames_folder)]
        except SourceError as error:
            raise DataError(str(error)) from error
    if not path.is_dir():
        raise DataError(f"{path} does not exist: give folders of images, or videos")
    name = path.resolve().name
    scenes = _scenes_in(path, name, frames_folder)
    if not scenes:
        inner = sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith("."))
        scenes = [scene for item in inner for scene in _scenes_in(item, f"{name}/{item.name}", frames_folder)]
    if not scenes:
        images, videos = (" ".join(sorted(suffixes)) for suffixes in (IMAGE_SUFFIXES, VIDEO_SUFFIXES))
        raise DataError(
            f"{path} holds no images ({images}) or videos ({videos}) that can be read, nor do the folders in it"
        )
    return scenes


def _scenes_in(folder: Path, name: str, frames_folder: Path) -> list[ImageScene]:
    """The images of a folder as one scene, each of its videos as another; what cannot be read is left out, and said."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    scenes = []
    try:
        if any(file.suffix.lower() in IMAGE_SUFFIXES for file in files):
            scenes.append(ImageScene(name, [picture.file for picture in color_images(folder)]))
    except SourceError as error:
        log.warning("%s", error)
    for file in (file for file in files if file.suffix.lower() in VIDEO_SUFFIXES):
        try:
            scenes.append(_video(file, f"{name}/{file.stem}", frames_folder))
        except SourceError as error:
            log.warning("left out: %s", error)
    return scenes


def _video(path: Path, name: str, frames_folder: Path) -> ImageScene:
    """The frames of a video as PNG files, made once: a folder under its final name is complete. Raises SourceError."""
    folder = frames_folder / f"{path.stem}_{path.stat().st_size}"
    if not folder.is_dir():
        frames_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=frames_folder) as scratch:
            partial = Path(scratch, "frames")
            partial.mkdir()
            _extract(VideoSource(path), partial)
            with contextlib.suppress(OSError):  # another process was first
                partial.rename(folder)
    return ImageScene(name, sorted(folder.glob("*.png")))


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
