"""Frames from a folder of images, in natural order."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import torch
from PIL import Image, UnidentifiedImageError

from ff3r_model.core.types import Frame
from ff3r_model.frames.source import NOMINAL_FPS, SourceError

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


class FolderSource:
    """The colour images of a folder in natural order (frame2 before frame10). Depth maps beside them are left out."""

    def __init__(self, path: Path) -> None:
        """Raises SourceError when no colour image is there."""
        self.name, self.fps = path.name, NOMINAL_FPS
        files = sorted((file for file in path.iterdir() if _visible(file)), key=lambda file: natural_key(file.name))
        self.files = [file for file in files if _is_color_image(file)]
        skipped = sorted({file.name for file in files} - {file.name for file in self.files})
        if not self.files:
            found = f"only {_some(skipped)}" if skipped else "nothing"
            raise SourceError(f"{path} holds no colour images ({' '.join(sorted(IMAGE_SUFFIXES))}): {found} found")
        if skipped:
            log.warning("%s: left out %d files that are no colour images: %s", path, len(skipped), _some(skipped))
        self.count: int | None = len(self.files)

    def __iter__(self) -> Iterator[Frame]:
        for index, file in enumerate(self.files):
            bgr = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if bgr is None:
                log.warning("%s cannot be decoded: left out", file)
                continue
            yield Frame(torch.from_numpy(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)), stamp=round(index * 1e9 / self.fps))


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sorts numbers inside names by value: a2 < a10."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts if part]


def _visible(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".")


def _is_color_image(file: Path) -> bool:
    """Judged by suffix and header, without decoding: 16-bit and float greys are depth."""
    if file.suffix.lower() not in IMAGE_SUFFIXES:
        return False
    try:
        with Image.open(file) as image:
            return not image.mode.startswith(("I", "F"))
    except (UnidentifiedImageError, OSError):
        return False


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
