"""Random image messages become frames or are refused by name; they never end the process."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from ff3r_model.frames.image_messages import DEPTH_UNITS, LAYOUTS, ImageRejected, decode, decode_depth
from tests.support.messages import Message

REASONS = {
    "depth image",
    "zero-size image",
    "too large image",
    "unknown encoding",
    "short data",
    "excess data",
    "unknown range",
    "truncated image",
    "undecodable image",
}
ENCODINGS = st.sampled_from([*sorted(LAYOUTS), *sorted(DEPTH_UNITS), "", "i420", "h264", "jpeg"])
SIZES = st.integers(0, 9) | st.sampled_from([2**16, 2**31 - 1, 2**32 - 1])
FORMATS = ENCODINGS.flatmap(
    lambda encoding: st.sampled_from(
        [encoding, f"{encoding}; jpeg compressed bgr8", f"{encoding}; png compressed ", f"{encoding}; compressedDepth"]
    )
)


def picture(kind: str, dtype: type = np.uint8, channels: int = 3) -> bytes:
    values = np.random.default_rng(0).integers(0, 255, (8, 12, channels)).astype(dtype)
    return bytes(cv2.imencode(kind, values.squeeze())[1].tobytes())


def gif() -> bytes:
    stream = io.BytesIO()
    Image.new("P", (8, 8)).save(stream, "GIF")
    return stream.getvalue()


WHOLE = [
    *(picture(kind) for kind in (".jpg", ".png", ".webp", ".bmp", ".tiff", ".ppm")),
    *(picture(kind, np.uint16, channels) for kind in (".png", ".tiff") for channels in (1, 3, 4)),
    picture(".tiff", np.float32, 1),
    gif(),
]


def check(message: Any) -> None:
    """As a picture and as depth: an image of the right type, or a refusal that can be counted."""
    for read, channels, dtype in ((decode, (3,), torch.uint8), (decode_depth, (), torch.float32)):
        try:
            image = read(message)
        except ImageRejected as rejection:
            assert rejection.reason in REASONS and str(rejection).startswith(rejection.reason)
        else:
            assert image.dtype == dtype and image.shape[2:] == channels and image.numel() > 0


@pytest.mark.fuzz
@given(encoding=ENCODINGS, height=SIZES, width=SIZES, step=st.none() | SIZES, big=st.integers(0, 2), data=st.data())
def test_random_images(encoding: str, height: int, width: int, step: int | None, big: int, data: st.DataObject) -> None:
    """With sizes that fit the data, and with such as do not."""
    layout = LAYOUTS.get(encoding, LAYOUTS["rgb8"])
    row = width * layout.channels * np.dtype(layout.dtype).itemsize
    step = row if step is None else step
    fitting = min(4000, int(step * height * layout.planes))
    length = data.draw(st.sampled_from([fitting, step * height]) | st.integers(0, 600))
    content = data.draw(st.randoms(use_true_random=False)).randbytes(min(4000, length))
    check(Message(height=height, width=width, encoding=encoding, step=step, is_bigendian=big, data=content))


@pytest.mark.fuzz
@given(kind=FORMATS | st.text(max_size=20), whole=st.sampled_from(WHOLE), data=st.data())
def test_random_compressed_images(kind: str, whole: bytes, data: st.DataObject) -> None:
    """Whole ones, cut ones, some with wrong bytes, and noise."""
    content = bytearray(whole[: data.draw(st.integers(0, len(whole)) | st.just(len(whole)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    check(Message(format=kind, data=bytes(data.draw(st.sampled_from([0, 12]))) + bytes(content)))


@pytest.mark.fuzz
@given(kind=FORMATS, content=st.binary(max_size=100))
@example("png", b"\x89PNG\r\n\x1a\n")
@example("jpeg", b"\xff\xd8\xff")
@example("16UC1; compressedDepth", b"")
def test_noise_is_no_compressed_image(kind: str, content: bytes) -> None:
    with pytest.raises(ImageRejected):
        decode(Message(format=kind, data=content))
