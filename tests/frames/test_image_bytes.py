"""Cut image bytes are told from whole ones, whatever a decoder would make of them."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from ff3r_model.frames.image_bytes import is_cut

NOISE = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
FORMATS = {
    "baseline": (".jpg", []),
    "progressive": (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    "restarts": (".jpg", [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
    "png": (".png", []),
    "webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 90]),
    "lossless webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
    "bmp": (".bmp", []),
}


def encoded(name: str) -> bytes:
    suffix, options = FORMATS[name]
    return bytes(cv2.imencode(suffix, NOISE, options)[1].tobytes())


@pytest.mark.parametrize("name", FORMATS)
def test_every_cut_is_seen_and_no_whole_image_is_called_cut(name: str) -> None:
    data = encoded(name)
    assert not is_cut(data) and not is_cut(data + bytes(100)), "whole, and padded as some cameras do"
    lengths = {*range(12, len(data), max(1, len(data) // 200)), len(data) - 1}
    assert all(is_cut(data[:length]) for length in lengths)


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_picture() -> None:
    """A camera's JPEG holds a small JPEG in its EXIF segment, whose end marker comes long before the cut."""
    thumbnail = io.BytesIO()
    Image.fromarray(NOISE).resize((16, 12)).save(thumbnail, "JPEG")
    exif = b"\xff\xe1" + (len(thumbnail.getvalue()) + 2).to_bytes(2, "big") + thumbnail.getvalue()
    data = encoded("baseline")
    camera = data[:2] + exif + data[2:]
    assert cv2.imdecode(np.frombuffer(camera, np.uint8), cv2.IMREAD_COLOR).shape == NOISE.shape
    assert not is_cut(camera) and is_cut(camera[: len(camera) // 2]) and is_cut(camera[:-2])


def test_other_bytes_are_for_the_decoder_to_judge() -> None:
    assert not is_cut(b"") and not is_cut(b"\xff\xd8nothing") and not is_cut(b"GIF89a")
