"""Every encoding against OpenCV's own conversions of one picture, through each decoder that is installed."""

from __future__ import annotations

import importlib.util

import cv2
import numpy as np
import pytest
import torch
from sensor_msgs.msg import CompressedImage, Image

from ff3r_model.frames.image_messages import (
    DEPTH_ONLY,
    LAYOUTS,
    Decoder,
    ImageRejected,
    decode_compressed,
    decode_depth,
    decode_image,
    decode_with_rosbags,
)
from ff3r_ros.conversions.image_decoding import decode, decode_with_cv_bridge

HEIGHT, WIDTH = 24, 32


def picture() -> np.ndarray:
    """A smooth RGB picture: chroma subsampling and Bayer patterns lose little of it."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    channels = [x / WIDTH, y / HEIGHT, 0.5 + 0.4 * np.sin((x + y) / 20)]
    return (np.dstack(channels) * 255).astype(np.uint8)


def message(encoding: str, pixels: np.ndarray, *, padding: int = 0, bigendian: bool = False) -> Image:
    """An image message with `padding` bytes of rubbish at the end of each row."""
    rows = pixels.reshape(pixels.shape[0], -1)
    if bigendian:
        rows = rows.astype(rows.dtype.newbyteorder(">"))
    data = np.ascontiguousarray(rows).view(np.uint8).reshape(rows.shape[0], -1)
    padded = np.concatenate([data, np.full((data.shape[0], padding), 171, np.uint8)], axis=1)
    result = Image(height=HEIGHT, width=WIDTH, encoding=encoding, step=padded.shape[1], is_bigendian=int(bigendian))
    result.data.frombytes(padded.tobytes())
    return result


def bayer(rgb: np.ndarray, order: str) -> np.ndarray:
    """What a sensor with this colour filter sees."""
    channels = {"r": 0, "g": 1, "b": 2}
    mosaic = np.zeros(rgb.shape[:2], rgb.dtype)
    for index, colour in enumerate(order):
        row, column = divmod(index, 2)
        mosaic[row::2, column::2] = rgb[row::2, column::2, channels[colour]]
    return mosaic


def yuv(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """BT.601 studio-range Y, U, V at full resolution, from the definition (OpenCV's 4:2:2 and 4:2:0 convention)."""
    r, g, b = rgb.astype(np.float64).transpose(2, 0, 1)
    y = 16 + (65.738 * r + 129.057 * g + 25.064 * b) / 256
    u = 128 + (-37.945 * r - 74.494 * g + 112.439 * b) / 256
    v = 128 + (112.439 * r - 94.154 * g - 18.285 * b) / 256
    return y, u, v


def packed_422(rgb: np.ndarray, order: str) -> np.ndarray:
    y, u, v = yuv(rgb)
    chroma = np.empty_like(y)
    chroma[:, 0::2] = (u[:, 0::2] + u[:, 1::2]) / 2
    chroma[:, 1::2] = (v[:, 0::2] + v[:, 1::2]) / 2
    pair = [chroma, y] if order == "uyvy" else [y, chroma]
    return np.dstack(pair).round().astype(np.uint8)


def planar_420(rgb: np.ndarray, order: str) -> np.ndarray:
    y, u, v = yuv(rgb)
    small = [plane.reshape(HEIGHT // 2, 2, WIDTH // 2, 2).mean(axis=(1, 3)) for plane in (u, v)]
    chroma = np.dstack(small if order == "uv" else small[::-1]).reshape(HEIGHT // 2, WIDTH)
    return np.concatenate([y, chroma]).round().astype(np.uint8)


def planar_444(rgb: np.ndarray) -> np.ndarray:
    """Full-range Y plane, then VU interleaved at full resolution (NV24 as OpenCV's YCrCb has it)."""
    y, cr, cb = cv2.split(cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb))
    return np.concatenate([y, np.dstack([cb, cr]).reshape(HEIGHT * 2, WIDTH)])


RGB = picture()
GREY = cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY)
GREY3 = np.dstack([GREY] * 3)
ALPHA = np.full((HEIGHT, WIDTH), 200, np.uint8)
WIDE = RGB.astype(np.uint16) * 257
COLOURS = {
    "rgb8": (RGB, RGB, 0),
    "bgr8": (RGB[..., ::-1], RGB, 0),
    "8UC3": (RGB[..., ::-1], RGB, 0),
    "rgba8": (np.dstack([RGB, ALPHA]), RGB, 0),
    "bgra8": (np.dstack([RGB[..., ::-1], ALPHA]), RGB, 0),
    "8UC4": (np.dstack([RGB[..., ::-1], ALPHA]), RGB, 0),
    "mono8": (GREY, GREY3, 0),
    "8UC1": (GREY, GREY3, 0),
    "mono16": (GREY.astype(np.uint16) * 257, GREY3, 1),
    "rgb16": (WIDE, RGB, 1),
    "bgr16": (WIDE[..., ::-1], RGB, 1),
    "16UC3": (WIDE[..., ::-1], RGB, 1),
    "rgba16": (np.dstack([WIDE, ALPHA.astype(np.uint16) * 257]), RGB, 1),
    "bgra16": (np.dstack([WIDE[..., ::-1], ALPHA.astype(np.uint16) * 257]), RGB, 1),
    "32FC3": (RGB[..., ::-1].astype(np.float32) / 255, RGB, 0),
    "64FC3": (RGB[..., ::-1] / 255, RGB, 0),
    "uyvy": (packed_422(RGB, "uyvy"), RGB, 8),
    "yuv422": (packed_422(RGB, "uyvy"), RGB, 8),
    "yuyv": (packed_422(RGB, "yuyv"), RGB, 8),
    "yuv422_yuy2": (packed_422(RGB, "yuyv"), RGB, 8),
    "nv12": (planar_420(RGB, "uv"), RGB, 10),
    "nv21": (planar_420(RGB, "vu"), RGB, 10),
    "nv24": (planar_444(RGB), RGB, 3),
} | {
    f"bayer_{order}{bits}": (bayer(RGB if bits == 8 else WIDE, order), RGB, 12)
    for order in ("rggb", "bggr", "gbrg", "grbg")
    for bits in (8, 16)
}
"""Encoding → (pixels as sent, the RGB picture that was meant, largest difference allowed)."""


@pytest.fixture(params=["rosbags", "cv_bridge"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    if request.param == "cv_bridge" and importlib.util.find_spec("cv_bridge") is None:
        pytest.skip("cv_bridge comes with a native ROS only")
    return {"rosbags": decode_with_rosbags, "cv_bridge": decode_with_cv_bridge}[request.param]


@pytest.mark.parametrize("padding", [0, 16])
@pytest.mark.parametrize("encoding", COLOURS)
def test_encodings_mean_the_same_picture(encoding: str, padding: int, decoder: Decoder) -> None:
    sent, expected, tolerance = COLOURS[encoding]
    image = decode_image(message(encoding, sent, padding=padding), decoder)
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == torch.uint8
    inner = (slice(2, -2), slice(2, -2))  # demosaicing and chroma have nothing to interpolate from at the border
    difference = np.abs(image.numpy().astype(int) - expected.astype(int))[inner]
    assert difference.max() <= tolerance


@pytest.mark.parametrize("encoding", ["mono16", "rgb16", "16UC3", "32FC3", "bayer_rggb16"])
def test_big_endian_cameras(encoding: str, decoder: Decoder) -> None:
    sent, _, _ = COLOURS[encoding]
    big = decode_image(message(encoding, sent, bigendian=True), decoder)
    assert torch.equal(big, decode_image(message(encoding, sent), decoder))


def test_every_layout_is_tested() -> None:
    untested = set(LAYOUTS) - set(COLOURS)
    assert untested - DEPTH_ONLY == {"8UC", "16UC4", "32FC4", "64FC4"}  # as their siblings with other counts


def test_rgb8_shares_the_message_memory() -> None:
    raw = message("rgb8", RGB)
    image = decode_image(raw)
    raw.data[0] = 255 - raw.data[0]
    assert image[0, 0, 0] == raw.data[0]


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"encoding": "rgb9"}, "unknown encoding", "'rgb9'"),
        ({"encoding": ""}, "unknown encoding", "''"),
        ({"encoding": "i420"}, "unknown encoding", "mono8"),
        ({"encoding": "16SC1"}, "depth image", "'16SC1' holds depth, not colour"),
        ({"encoding": "mono8", "step": WIDTH}, "excess data", f"needs {WIDTH * HEIGHT} bytes, has"),
        ({"encoding": "nv12", "height": HEIGHT - 1, "step": WIDTH}, "excess data", "another encoding"),
        ({"height": HEIGHT + 1}, "short data", f"has {HEIGHT * WIDTH * 3}"),
        ({"step": WIDTH * 3 - 1}, "short data", f"needs {WIDTH * 3}"),
        ({"step": 0}, "short data", "step 0"),
        ({"height": 0}, "zero-size image", f"{WIDTH}x0"),
        ({"width": 0}, "zero-size image", f"0x{HEIGHT}"),
    ],
)
def test_bad_messages_are_named(change: dict[str, object], reason: str, words: str) -> None:
    bad = message("rgb8", RGB)
    for name, value in change.items():
        setattr(bad, name, value)
    with pytest.raises(ImageRejected, match=words) as rejection:
        decode_image(bad)
    assert rejection.value.reason == reason


def test_odd_width_422_is_refused_not_crashed() -> None:
    bad = message("uyvy", packed_422(RGB, "uyvy"))
    bad.width = WIDTH - 1
    with pytest.raises(ImageRejected, match="31x24 'uyvy'"):
        decode_image(bad)


@pytest.mark.parametrize("encoding", sorted(DEPTH_ONLY))
def test_depth_is_no_picture(encoding: str) -> None:
    with pytest.raises(ImageRejected, match=f"{encoding}' holds depth, not colour") as rejection:
        decode_image(message(encoding, np.ones((HEIGHT, WIDTH), np.uint16)))
    assert rejection.value.reason == "depth image"


@pytest.mark.parametrize("encoding", ["nv12", "nv21", "nv24"])
def test_height_in_memory_rows(encoding: str) -> None:
    """As cv_bridge wants planar images: height × step is the length of the data, not the picture's rows."""
    rows = COLOURS[encoding][0]
    by_picture, by_memory = message(encoding, rows, padding=8), message(encoding, rows, padding=8)
    by_memory.height = len(rows)
    assert torch.equal(decode_image(by_memory), decode_image(by_picture))
    odd = message(encoding, rows[:-1])
    odd.height = len(rows) - 1
    with pytest.raises(ImageRejected, match="rows are not"):
        decode_image(odd)


@pytest.mark.parametrize("values", [255.0, -1.0])
def test_floating_point_pictures_of_another_range_are_refused(values: float) -> None:
    """Colours of 0 to 255, normals, points: cutting them to [0, 1] would be garbage."""
    sent = RGB[..., ::-1].astype(np.float32) / 255 * values
    with pytest.raises(ImageRejected, match=r"'32FC3' with values from .*; floating-point pictures have 0 to 1"):
        decode_image(message("32FC3", sent))


def compressed_message(kind: str, data: bytes) -> CompressedImage:
    sent = CompressedImage(format=kind)
    sent.data.frombytes(data)
    return sent


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_compressed(suffix: str) -> None:
    _, data = cv2.imencode(suffix, RGB[..., ::-1])
    sent = compressed_message(f"rgb8; {suffix[1:]} compressed bgr8", data.tobytes())
    difference = decode(sent).numpy().astype(int) - RGB
    assert np.abs(difference).mean() < (0.1 if suffix == ".png" else 4)


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        ("rgb8; jpeg compressed bgr8", "bgr"),
        ("bgr8; png compressed bgr8", "bgr"),
        ("rgba8; png compressed bgra8", "bgr"),
        ("rgb16; png compressed bgr16", "bgr"),
        ("yuv422; jpeg compressed rgb8", "bgr"),
        ("jpeg", "bgr"),
        ("png", "bgr"),
        ("", "bgr"),
        ("no such codec", "bgr"),
        ("rgb8; jpeg compressed rgb8", "rgb"),
        ("rgb8; png compressed rgb8", "rgb"),
        ("bgr8; jpeg compressed rgb8", "rgb"),
        ("rgba8; png compressed ", "rgb"),
        ("bgr8; jpeg compressed ", "rgb"),
    ],
)
def test_channel_order_is_that_of_compressed_image_transport(kind: str, stored: str) -> None:
    """Colours that were not put into OpenCV's order before encoding come out of it with red in blue's place."""
    given = RGB[..., ::-1] if stored == "bgr" else RGB
    assert np.array_equal(decode(compressed_message(kind, cv2.imencode(".png", given)[1].tobytes())).numpy(), RGB)


@pytest.mark.parametrize(("encoding", "values"), [("bayer_grbg8", RGB), ("bayer_grbg16", WIDE)])
def test_compressed_mosaics_become_colours(encoding: str, values: np.ndarray) -> None:
    """image_transport compresses a Bayer mosaic as it is."""
    mosaic = bayer(values, "grbg")
    sent = compressed_message(f"{encoding}; png compressed ", cv2.imencode(".png", mosaic)[1].tobytes())
    assert torch.equal(decode(sent), decode_image(message(encoding, mosaic)))
    colours = compressed_message(f"{encoding}; png compressed ", cv2.imencode(".png", values[..., ::-1])[1].tobytes())
    assert np.abs(decode(colours).numpy() - RGB.astype(int)).max() <= 1


def test_grey_compressed_images_with_16_bits() -> None:
    """mono16 is a picture, compressed or not; of a bare codec, or 16UC1, such values are depth."""
    data = cv2.imencode(".png", GREY.astype(np.uint16) * 257)[1].tobytes()
    assert np.abs(decode(compressed_message("mono16; png compressed ", data)).numpy() - GREY3.astype(int)).max() <= 1
    tiff = cv2.imencode(".tiff", GREY.astype(np.uint16) * 257)[1].tobytes()
    for kind, content in (("png", data), ("16UC1; png compressed ", data), ("tiff", tiff)):
        with pytest.raises(ImageRejected, match="holds depth, not colour"):
            decode(compressed_message(kind, content))


NOISE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_cut_compressed_images_are_refused_whatever_the_decoder_does(suffix: str) -> None:
    data = cv2.imencode(suffix, NOISE)[1].tobytes()
    with pytest.raises(ImageRejected, match=f"{len(data) // 2} bytes of format 'jpeg' end within the picture"):
        decode(compressed_message("jpeg", data[: len(data) // 2]))


@pytest.mark.parametrize(("data", "reason"), [(b"", "zero-size image"), (b"\xff\xd8nothing", "undecodable image")])
def test_broken_compressed(data: bytes, reason: str) -> None:
    with pytest.raises(ImageRejected, match="'jpeg'") as rejection:
        decode_compressed(compressed_message("jpeg", data))
    assert rejection.value.reason == reason


@pytest.mark.parametrize(("encoding", "dtype", "unit"), [("16UC1", np.uint16, 1e-3), ("32FC1", np.float32, 1.0)])
@pytest.mark.parametrize("bigendian", [False, True])
def test_depth_is_in_metres_and_0_where_unknown(encoding: str, dtype: type, unit: float, bigendian: bool) -> None:
    metres = np.linspace(0.5, 4, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    values = (metres / unit).astype(dtype)
    values[0, 0] = 0
    if dtype is np.float32:
        values[1, :3] = np.nan, np.inf, -1
    decoded = decode_depth(message(encoding, values, padding=4, bigendian=bigendian)).numpy()
    unknown = np.zeros((HEIGHT, WIDTH), bool)
    unknown[0, 0] = True
    unknown[1, :3] = dtype is np.float32
    assert (decoded[unknown] == 0).all()
    assert (
        np.abs(decoded - metres)[~unknown].max() <= unit
        if unit < 1
        else np.array_equal(decoded[~unknown], metres[~unknown])
    )


def test_a_colour_image_is_no_depth_image() -> None:
    with pytest.raises(ImageRejected, match="depth images are 16UC1"):
        decode_depth(message("rgb8", picture()))
