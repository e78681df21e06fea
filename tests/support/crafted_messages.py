"""Crafted messages: what no camera, robot or person sends, as strategies of hypothesis and as generators of numbers."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu, RegionOfInterest
from std_msgs.msg import Header, String
from tf2_msgs.msg import TFMessage

from ff3r_model.frames.image_messages import LAYOUTS
from ff3r_model.frames.rectify import FISHEYE_MODELS, PINHOLE_MODELS

Draw = Callable[[st.SearchStrategy[Any]], Any]

UINT32 = st.one_of(
    st.integers(0, 700), st.sampled_from([0, 1, 32_767, 32_768, 2**31, 2**32 - 1]), st.integers(0, 2**32 - 1)
)
FLOAT = st.one_of(
    st.floats(-1000, 1000), st.floats(), st.sampled_from([0.0, 1e-170, 1e200, 1e308, float("nan"), float("inf"), -1.0])
)
NAMES = st.sampled_from(["", "odom", "/odom", "base_link", "optical", "map", "a" * 5000, "\ufffd"])
TIMES = st.one_of(
    st.builds(Time, sec=st.integers(1, 100), nanosec=st.integers(0, 10**9 - 1)),
    st.builds(Time, sec=st.integers(-(2**31), 2**31 - 1), nanosec=st.integers(0, 2**32 - 1)),
)
HEADERS = st.builds(Header, stamp=TIMES, frame_id=NAMES)


def png(width: int, height: int, bits: int = 8, colour: int = 2, rows: bytes = b"\0" * 10) -> bytes:
    """A PNG whose header says this, whatever is in it."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@st.composite
def camera_infos(draw: Draw) -> CameraInfo:
    """A good calibration, of which some fields hold anything."""
    info = CameraInfo(width=64, height=48, distortion_model="plumb_bob", d=[-0.3, 0.1, 0.0, 0.0, 0.0])
    info.k = [100.0, 0.0, 32.0, 0.0, 100.0, 24.0, 0.0, 0.0, 1.0]
    regions = st.builds(RegionOfInterest, x_offset=UINT32, y_offset=UINT32, width=UINT32, height=UINT32)
    models = [*PINHOLE_MODELS, *FISHEYE_MODELS, "double_sphere", "", "x" * 9999]
    focal = st.one_of(st.floats(10, 5000), FLOAT)
    anything = {
        "header": HEADERS,
        "width": UINT32,
        "height": UINT32,
        "binning_x": UINT32,
        "binning_y": UINT32,
        "roi": regions,
        "distortion_model": st.sampled_from(models),
        "d": st.lists(st.one_of(st.floats(-1, 1), FLOAT), max_size=14),
        "p": st.lists(FLOAT, min_size=12, max_size=12),
        "k": st.one_of(
            st.builds(lambda f, g, x, y: [f, 0.0, x, 0.0, g, y, 0.0, 0.0, 1.0], focal, focal, FLOAT, FLOAT),
            st.lists(FLOAT, min_size=9, max_size=9),
        ),
    }
    for name in draw(st.sets(st.sampled_from(sorted(anything)))):
        setattr(info, name, draw(anything[name]))
    return info


def transforms() -> st.SearchStrategy[TFMessage]:
    """Transforms of any value, and of few frames, so that some hang together."""
    vector = st.builds(Vector3, x=FLOAT, y=FLOAT, z=FLOAT)
    turn = st.builds(Quaternion, x=FLOAT, y=FLOAT, z=FLOAT, w=FLOAT)
    pose = st.builds(Transform, translation=vector, rotation=turn)
    one = st.builds(TransformStamped, header=HEADERS, child_frame_id=NAMES, transform=pose)
    return st.builds(TFMessage, transforms=st.lists(one, max_size=3))


@st.composite
def images(draw: Draw) -> Image:
    """Raw images of every encoding; most have about as many bytes as they say."""
    encoding = draw(st.sampled_from([*LAYOUTS, "rgb9", "", "e" * 9999]))
    height, width = draw(st.integers(0, 48)), draw(st.integers(0, 64))
    layout = LAYOUTS.get(encoding)
    row = width * (np.dtype(layout.dtype).itemsize * layout.channels if layout else 3)
    data = draw(st.binary(min_size=8, max_size=8)) * (height * row * 3 // 8)
    message = Image(
        header=draw(HEADERS), encoding=encoding, is_bigendian=draw(st.integers(0, 255)),
        height=draw(st.one_of(st.just(height), UINT32)), width=draw(st.one_of(st.just(width), UINT32)),
        step=draw(st.one_of(st.just(row), UINT32)),
    )  # fmt: skip
    message.data.frombytes(data[: draw(st.one_of(st.just(height * row), st.integers(0, len(data))))])
    return message


@st.composite
def compressed_images(draw: Draw) -> CompressedImage:
    """Files of images with wrong sizes and damaged bytes, and bytes that are no file."""
    size = st.one_of(st.integers(1, 64), st.integers(0, 2**31 - 1))
    bits, colours = st.sampled_from([1, 8, 16]), st.sampled_from([0, 2, 3, 4, 6])
    data = bytearray(draw(st.one_of(st.builds(png, size, size, bits, colours, st.binary(max_size=99)), st.binary())))
    for _ in range(draw(st.integers(0, 3)) if data else 0):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    formats = ["png", "jpeg", "rgb8; jpeg compressed bgr8", "bayer_rggb8; png compressed", "16UC1; compressedDepth", ""]
    message = CompressedImage(header=draw(HEADERS), format=draw(st.sampled_from(formats)))
    message.data.frombytes(bytes(data))
    return message


def imu_messages() -> st.SearchStrategy[Imu]:
    """Directions of any length."""
    vector = st.builds(Vector3, x=FLOAT, y=FLOAT, z=FLOAT)
    turn = st.builds(Quaternion, x=FLOAT, y=FLOAT, z=FLOAT, w=FLOAT)
    covariance = st.sampled_from([[-1.0] + [0.0] * 8, [0.0] * 9])
    return st.builds(
        Imu, header=HEADERS, orientation=turn, orientation_covariance=covariance, linear_acceleration=vector
    )


def texts() -> st.SearchStrategy[String]:
    """Queries that people type, and others."""
    return st.builds(
        String, data=st.one_of(st.text(max_size=30), st.sampled_from(["chair", "²", "9" * 200, "x" * 10**5]))
    )
