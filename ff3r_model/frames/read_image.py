"""Image files read by Pillow: upright colours, depth as it is stored, and a reason for each file that is damaged."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image, ImageOps, TiffImagePlugin
from torch import Tensor

from ff3r_model.frames.source import MAX_PIXELS, SourceError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
ORIENTATION = 0x0112
"""EXIF's tag."""
ON_ITS_SIDE = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


class ImageFileError(SourceError):
    """An image file that cannot be read; the message names it and says why."""


def read_color(path: Path) -> UInt8[Tensor, "height width 3"]:
    """The RGB picture of a file, turned upright by its EXIF orientation. Raises ImageFileError, for a cut file too."""
    with _verified(path) as image:
        image.load()
        with suppress(Exception):  # EXIF may be damaged where the picture is not
            image = ImageOps.exif_transpose(image)
        return torch.from_numpy(np.array(image.convert("RGB")))


def read_depth(path: Path) -> Float[ndarray, "height width"]:
    """The values of a one-channel picture as they are stored. Raises ImageFileError."""
    with _verified(path) as image:
        values = np.array(image)
    if values.ndim != 2:
        raise ImageFileError(f"{path} is no depth image: it has {values.shape[-1]} channels")
    return values.astype(np.float32)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A file's header, read by Pillow; its pixels come with the first use. Raises ImageFileError, then too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow on large pictures and odd metadata: the budget is ours
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageFileError(f"{path}: {image.width}x{image.height} pixels are more than {MAX_PIXELS:,}")
                yield image
    except ImageFileError:
        raise
    except FileNotFoundError as error:
        raise ImageFileError(f"{path} is not there") from error
    except PermissionError as error:
        raise ImageFileError(f"{path} cannot be read: permission denied") from error
    except Exception as error:  # the decoders of Pillow raise what they like on damaged bytes
        size = path.stat().st_size if path.is_file() else 0
        raise ImageFileError(f"{path} ({size} bytes) cannot be decoded: {error}") from error


@contextmanager
def _verified(path: Path) -> Iterator[Image.Image]:
    """As `opened`; a PNG's checksums, which Pillow does not look at when it decodes, are tested before."""
    with opened(path) as image:
        image.verify()
    with opened(path) as image:
        yield image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) of an opened file once it is turned upright, by its header alone."""
    exif, tag = image.info.get("exif"), None
    if exif and not isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow turns TIFF itself
        with suppress(Exception):
            found = Image.Exif()
            found.load(exif)
            tag = found.get(ORIENTATION)
    return (image.width, image.height) if tag in ON_ITS_SIDE else (image.height, image.width)
