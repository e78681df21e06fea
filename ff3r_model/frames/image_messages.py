"""Image messages (sensor_msgs/Image, CompressedImage) → RGB or depth tensors, from a live robot and from a bag alike.

Duck-typed: everything with a message's fields will do. Every unusable message raises ImageRejected with a reason.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image as HeaderReader
from torch import Tensor

from ff3r_model.frames.image_bytes import is_cut
from ff3r_model.frames.rectify import MAX_PIXELS, MAX_SHOWN, MAX_SIDE, SIZE_LIMITS

Message = Any
"""Anything with the fields of sensor_msgs/Image: height, width, encoding, is_bigendian, step and data."""
CompressedMessage = Any
"""Anything with the fields of sensor_msgs/CompressedImage: format and data."""
ImageTensor = UInt8[Tensor, "height width 3"]
Decoder = Callable[[Message], NDArray[np.uint8]]
"""An image message of a known encoding → RGB array (height, width, 3)."""


class ImageRejected(ValueError):
    """An image message that cannot become a frame. `reason` is a short fixed phrase, fit for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@dataclass(frozen=True)
class PixelLayout:
    """How an encoding lies in memory."""

    dtype: str
    channels: int
    planes: float = 1.0
    """Rows in memory per image row (planar YUV has more than one)."""


def _layouts() -> dict[str, PixelLayout]:
    layouts = {name: PixelLayout("uint8", 1, planes) for name, planes in (("nv12", 1.5), ("nv21", 1.5), ("nv24", 3.0))}
    layouts |= {name: PixelLayout("uint8", 2) for name in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv")}
    colours = {"mono": 1, "rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4}
    colours |= {f"bayer_{order}": 1 for order in ("rggb", "bggr", "gbrg", "grbg")}
    for name, channels in colours.items():
        layouts |= {f"{name}{bits}": PixelLayout(f"uint{bits}", channels) for bits in (8, 16)}
    for channels in (1, 3, 4):
        layouts |= {f"{bits}UC{channels}": PixelLayout(f"uint{bits}", channels) for bits in (8, 16)}
        layouts |= {f"{bits}FC{channels}": PixelLayout(f"float{bits}", channels) for bits in (32, 64)}
    return layouts | {"8UC": layouts["8UC1"], "16UC": layouts["16UC1"]}


LAYOUTS = _layouts()
GENERIC_COLOURS = {1: "mono", 3: "bgr", 4: "bgra"}
"""What the generic OpenCV types mean: OpenCV's own channel order."""
TO_RGB = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
"""OpenCV's conversions of these, by their channels."""
DEPTH_UNITS = {"16UC1": np.float32(1e-3), "mono16": np.float32(1e-3), "32FC1": np.float32(1)}
"""Metres per unit of a depth image's encoding."""
FLOAT_RANGE = (-0.1, 1.1)
"""What the values of a floating-point picture may reach: intensities in [0, 1], and what resampling adds."""
EXCESS = 1.25
"""Times the bytes of its rows that an image's data may have at most; with more, another encoding is meant."""
COLOR_ENCODINGS = frozenset(f"{name}{bits}" for name in ("rgb", "bgr", "rgba", "bgra") for bits in (8, 16))
_EIGHT_BITS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_PNG = b"\x89PNG"
_TIFF = (b"II*\0", b"MM\0*")
_PNG_HEADER = 26
"""Bytes of a PNG up to its depth and colour type."""
_DEPTH_HEADER = 12
"""Bytes that compressed_depth_image_transport puts before the PNG."""
DEPTH_ONLY = frozenset({"16UC1", "16UC", "16SC1", "32FC1", "64FC1"})
"""Encodings that hold depth in practice, whatever else they could hold."""


def decode_with_rosbags(message: Message) -> NDArray[np.uint8]:
    """RGB through rosbags-image, which wants rows without padding."""
    from rosbags.image import image_to_cvimage

    rows = _rows(message, LAYOUTS[message.encoding])
    packed: Any = SimpleNamespace(
        height=message.height,
        width=message.width,
        encoding=message.encoding,
        is_bigendian=sys.byteorder == "big",
        data=np.ascontiguousarray(rows).reshape(-1).view(np.uint8),
    )
    return np.asarray(image_to_cvimage(packed, "rgb8"), np.uint8)


def decode(message: Message | CompressedMessage) -> ImageTensor:
    """The RGB picture of a raw or a compressed image message; raises ImageRejected as the two below do."""
    return decode_compressed(message) if hasattr(message, "format") else decode_image(message)


def decode_image(message: Message, decoder: Decoder = decode_with_rosbags) -> ImageTensor:
    """The RGB picture of a raw image message.

    rgb8 shares the message's memory where that may be written to; bgr8 and mono8 are one vectorised pass; rarer
    encodings go through `decoder`. 16-bit encodings use their full range; floating-point images are intensities in
    [0, 1]. The height of planar YUV may count the rows of the picture or, as cv_bridge has it, those in memory.
    Raises ImageRejected: "depth image", "zero-size image", "too large image", "unknown encoding", "short data",
    "excess data", "unknown range", "undecodable image".
    """
    if depth := holds_depth(message):
        raise ImageRejected("depth image", depth)
    message = _with_picture_rows(message)
    layout = _checked_layout(message)
    encoding = message.encoding
    if encoding == "rgb8":
        pixels = _rows(message, layout)
        return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
    if encoding in ("bgr8", "8UC3", "mono8", "8UC1", "8UC"):
        return torch.from_numpy(cv2.cvtColor(_rows(message, layout), TO_RGB[layout.channels]))
    try:
        return torch.from_numpy(_decode_rare(message, layout, decoder))
    except ImageRejected:
        raise
    except Exception as error:  # OpenCV, cv_bridge and rosbags each raise their own
        raise ImageRejected("undecodable image", f"{_describe(message)}: {error}") from error


def decode_compressed(message: CompressedMessage) -> ImageTensor:
    """The RGB picture of a compressed image message (what OpenCV reads: JPEG, PNG, WebP, …).

    Its channels are ordered as compressed_image_transport does it. A format without ";" is the bare codec, and the
    picture an ordinary one. With it, as in "rgb8; jpeg compressed bgr8", the first word is the raw image's encoding;
    colours were put into the order that ordinary pictures have only where "compressed bgr" follows, and a Bayer mosaic
    was compressed as it is.
    Raises ImageRejected: "depth image", "zero-size image", "too large image", "truncated image", "undecodable image".
    """
    if depth := holds_depth(message):
        raise ImageRejected("depth image", depth)
    encoding, _, compressed = message.format.partition(";")
    if encoding.startswith("bayer_"):
        return _decode_mosaic(message, encoding)
    image = _opened(message, _EIGHT_BITS)
    swapped = encoding in COLOR_ENCODINGS and "compressed bgr" not in compressed
    return torch.from_numpy(image if swapped else cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def _decode_mosaic(message: CompressedMessage, encoding: str) -> ImageTensor:
    """The picture of a compressed Bayer mosaic; of an ordinary colour image where that was compressed instead."""
    pixels = _opened(message, cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 3:
        return torch.from_numpy(cv2.cvtColor(_opened(message, _EIGHT_BITS), cv2.COLOR_BGR2RGB))
    mosaic = SimpleNamespace(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding.rstrip("0123456789") + str(8 * pixels.itemsize),
        is_bigendian=sys.byteorder == "big",
        step=pixels.strides[0],
        data=pixels.tobytes(),
    )
    return decode_image(mosaic)


def _opened(message: CompressedMessage, flags: int) -> NDArray[Any]:
    """The pixels as OpenCV has them: blue, green, red."""
    data = bytes(message.data)
    if not data:
        raise ImageRejected("zero-size image", f"{_bytes_of(message)} cannot be decoded")
    if is_cut(data):
        raise ImageRejected("truncated image", f"{_bytes_of(message)} end within the picture")
    _check_header(data, _bytes_of(message))
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageRejected("undecodable image", f"{_bytes_of(message)}: {error}") from error
    if pixels is None:
        raise ImageRejected("undecodable image", f"{_bytes_of(message)}")
    return np.asarray(pixels)


def _check_header(data: bytes, described: str) -> None:
    """Look at the size that a compressed image says it has, before memory is taken for it.

    Raises ImageRejected: "too large image", and "undecodable image" for what has no header that Pillow knows.
    """
    try:
        with HeaderReader.open(io.BytesIO(data)) as header:
            width, height = header.size
    except HeaderReader.DecompressionBombError as error:
        raise ImageRejected("too large image", f"{error}; {SIZE_LIMITS}") from error
    except Exception as error:  # parsers of some fifty formats, each with errors of its own
        raise ImageRejected("undecodable image", described) from error
    _check_size(width, height)


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageRejected("too large image", f"{width}x{height}; {SIZE_LIMITS}")


def _bytes_of(message: CompressedMessage) -> str:
    return f"{len(message.data)} bytes of format {_shown(message.format)}"


def _shown(text: str) -> str:
    """A foreign text, short enough for a message."""
    return repr(text[:MAX_SHOWN]) + ("…" if len(text) > MAX_SHOWN else "")


def decode_depth(message: Message | CompressedMessage) -> Float[Tensor, "height width"]:
    """Metres of a depth image: 16UC1 or mono16 in millimetres, 32FC1 in metres (REP-118). 0 where unknown.

    Of compressed ones 16-bit PNG is understood, as compressed_depth_image_transport sends 16UC1, or by itself.
    Raises ImageRejected: "zero-size image", "too large image", "unknown encoding", "short data", "excess data",
    "truncated image", "undecodable image".
    """
    if hasattr(message, "format"):
        return torch.from_numpy(_decode_depth_png(message).astype(np.float32) * DEPTH_UNITS["16UC1"])
    if message.encoding not in DEPTH_UNITS:
        known = ", ".join(DEPTH_UNITS)
        raise ImageRejected("unknown encoding", f"{_shown(message.encoding)}; depth images are {known}")
    layout = _checked_layout(message)
    metres = _rows(message, layout).astype(np.float32) * DEPTH_UNITS[message.encoding]
    return torch.from_numpy(np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0)))


def _decode_depth_png(message: CompressedMessage) -> NDArray[np.uint16]:
    """Millimetres."""
    data = bytes(message.data)
    if data[_DEPTH_HEADER:].startswith(_PNG) and not data.startswith(_PNG):
        data = data[_DEPTH_HEADER:]
    if not data.startswith(_PNG) or message.format.startswith("32FC1"):
        raise ImageRejected("undecodable image", f"{_bytes_of(message)} are no 16UC1 as PNG")
    pixels = _opened(SimpleNamespace(format=message.format, data=data), cv2.IMREAD_UNCHANGED)
    if pixels.ndim != 2 or pixels.dtype != np.uint16:
        detail = f"{pixels.dtype} {pixels.shape} of format {_shown(message.format)}; depth images are 16-bit grey"
        raise ImageRejected("unknown encoding", detail)
    return np.asarray(pixels, np.uint16)


def holds_depth(message: Message | CompressedMessage) -> str:
    """Why an image message shows depth and no colours, in words; empty for a picture."""
    if not hasattr(message, "format"):
        return f"encoding {_shown(message.encoding)} holds depth, not colour" if message.encoding in DEPTH_ONLY else ""
    encoding = message.format.partition(";")[0]
    if "compressedDepth" in message.format or encoding in DEPTH_ONLY:
        return f"format {_shown(message.format)} holds depth, not colour"
    if encoding != "mono16" and not encoding.startswith("bayer_") and _is_deep_grey(message):
        return f"format {_shown(message.format)} with 16-bit grey values holds depth, not colour"
    return ""


def _is_deep_grey(message: CompressedMessage) -> bool:
    """Whether a compressed image is grey with more than 8 bits, which no JPEG is."""
    start = bytes(message.data[:_PNG_HEADER])
    if start.startswith(_PNG):  # whose header has the bits per value, and 0 for grey
        return start[24:] == b"\x10\x00"
    if not start.startswith(_TIFF):
        return False
    image = _opened(message, cv2.IMREAD_UNCHANGED)
    return image.ndim == 2 and image.dtype != np.uint8


def _decode_rare(message: Message, layout: PixelLayout, decoder: Decoder) -> NDArray[np.uint8]:
    if message.encoding.startswith("nv"):
        return _decode_planar(_rows(message, layout), message.encoding)
    if layout.dtype.startswith("float"):
        values = np.nan_to_num(_rows(message, layout), nan=0.0)
        if values.min() < FLOAT_RANGE[0] or values.max() > FLOAT_RANGE[1]:
            found = f"{_describe(message)} with values from {values.min():.4g} to {values.max():.4g}"
            raise ImageRejected("unknown range", f"{found}; floating-point pictures have 0 to 1")
        pixels = (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)
        return np.asarray(cv2.cvtColor(pixels, TO_RGB[layout.channels]), np.uint8)
    if "UC" in message.encoding:
        encoding = f"{GENERIC_COLOURS[layout.channels]}{layout.dtype.removeprefix('uint')}"
        message = _changed(message, encoding=encoding)
    return np.ascontiguousarray(decoder(message))


def _changed(message: Message, **changes: object) -> Message:
    """The same message with other values in some of its fields."""
    names = ("height", "width", "encoding", "is_bigendian", "step", "data")
    return SimpleNamespace(**{name: getattr(message, name) for name in names} | changes)


def _decode_planar(rows: NDArray[np.uint8], encoding: str) -> NDArray[np.uint8]:
    if encoding == "nv24":  # full-resolution chroma behind the luma plane
        height, width = rows.shape[0] // 3, rows.shape[1]
        chroma = np.ascontiguousarray(rows[height:]).reshape(height, width, 2)
        planes = np.dstack([rows[:height], chroma[..., 1], chroma[..., 0]])
        return np.asarray(cv2.cvtColor(planes, cv2.COLOR_YCrCb2RGB), np.uint8)
    code = cv2.COLOR_YUV2RGB_NV12 if encoding == "nv12" else cv2.COLOR_YUV2RGB_NV21
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(rows), code), np.uint8)


def _with_picture_rows(message: Message) -> Message:
    """The message with the picture's height, where a planar one gives the rows in memory (data of height × step)."""
    layout = LAYOUTS.get(message.encoding)
    if layout is None or layout.planes == 1 or len(message.data) != message.height * message.step:
        return message
    height = message.height / layout.planes
    if height != int(height):
        detail = f"{_describe(message)}: {message.height} rows are not {layout.planes:g} times a picture's"
        raise ImageRejected("short data", detail)
    return _changed(message, height=int(height))


def _checked_layout(message: Message) -> PixelLayout:
    """The layout of the message's encoding. Raises ImageRejected where its sizes and its data cannot be."""
    if message.height == 0 or message.width == 0:
        raise ImageRejected("zero-size image", f"{message.width}x{message.height}")
    _check_size(message.width, message.height)
    layout = LAYOUTS.get(message.encoding)
    if layout is None:
        known = ", ".join(sorted(LAYOUTS))
        raise ImageRejected("unknown encoding", f"{_shown(message.encoding)}; known are {known}")
    row_bytes = message.width * layout.channels * np.dtype(layout.dtype).itemsize
    if message.step < row_bytes:
        detail = f"{_describe(message)} has step {message.step}, a row needs {row_bytes} bytes"
        raise ImageRejected("short data", detail)
    needed = message.step * (int(message.height * layout.planes) - 1) + row_bytes
    if len(message.data) < needed:
        detail = f"{_describe(message)} with step {message.step} needs {needed} bytes, has {len(message.data)}"
        raise ImageRejected("short data", detail)
    if len(message.data) > EXCESS * message.step * message.height * layout.planes:
        detail = f"{_describe(message)} with step {message.step} needs {needed} bytes, has {len(message.data)}"
        raise ImageRejected("excess data", f"{detail}: another encoding or size is meant")
    return layout


def _rows(message: Message, layout: PixelLayout) -> NDArray[Any]:
    """The pixels as an array over the message's memory, without padding, in the machine's byte order."""
    dtype = np.dtype(layout.dtype).newbyteorder(">" if message.is_bigendian else "<")
    rows = int(message.height * layout.planes)
    strides = (message.step, layout.channels * dtype.itemsize, dtype.itemsize)
    shape = (rows, message.width, layout.channels)
    pixels: NDArray[Any] = np.ndarray(shape, dtype, buffer=message.data, strides=strides)
    pixels = pixels[..., 0] if layout.channels == 1 else pixels
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _describe(message: Message) -> str:
    return f"{message.width}x{message.height} {_shown(message.encoding)}"
