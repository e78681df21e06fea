"""Image files are read as they were written, upright; damaged ones are refused by name, or come out whole."""

from __future__ import annotations

import io
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ff3r_model.frames import read_image
from ff3r_model.frames.read_image import ImageFileError, opened, read_color, read_depth, upright_size


def scene(height: int = 40, width: int = 60) -> np.ndarray:
    """A smooth picture without symmetry."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 5, columns * 4, 255 - rows * 2 - columns * 2], axis=-1).astype(np.uint8)


AS_STORED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image, -1),
}
"""How a camera stores an upright picture under each EXIF orientation."""


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", AS_STORED)
def test_orientation(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(AS_STORED[orientation](scene()))
    Image.fromarray(stored).save(tmp_path / f"a.{suffix}", exif=exif)
    read = read_color(tmp_path / f"a.{suffix}").numpy()
    with opened(tmp_path / f"a.{suffix}") as image:
        assert upright_size(image) == (40, 60)
    assert np.abs(read.astype(int) - scene()).mean() < 3


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_modes(mode: str, tmp_path: Path) -> None:
    image, suffix = Image.fromarray(scene()).convert(mode), "tif" if mode == "CMYK" else "png"
    image.save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_color(tmp_path / f"a.{suffix}").numpy(), np.asarray(image.convert("RGB")))


def test_depth_keeps_its_values(tmp_path: Path) -> None:
    values = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_depth(tmp_path / "a.png"), values)
    Image.fromarray(scene()).save(tmp_path / "b.png")
    with pytest.raises(ImageFileError, match=r"b\.png is no depth image: it has 3 channels"):
        read_depth(tmp_path / "b.png")


def test_what_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageFileError, match=r"none\.png is not there"):
        read_color(tmp_path / "none.png")
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(ImageFileError, match=r"a\.png \(7 bytes\) cannot be decoded"):
        read_color(tmp_path / "a.png")
    monkeypatch.setattr(Image, "open", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(ImageFileError, match=r"a\.png cannot be read: permission denied"):
        read_color(tmp_path / "a.png")


def test_sizes_beyond_the_budget_are_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    """A PNG of 69 bytes that claims 50,000 x 50,000 pixels, and one that Pillow itself lets pass."""
    for side in (50_000, 12_000):
        header = side.to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
        data = b"".join(
            len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
            for kind, body in chunks
        )
        (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ImageFileError, match=r"bomb\.png.*pixels"):
                read_color(tmp_path / "bomb.png")
    assert read_image.MAX_PIXELS < 12_000**2


def encoded(suffix: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(scene()).save(file, suffix)
    return file.getvalue()


WHOLE = {suffix: encoded(suffix) for suffix in ("jpeg", "png", "webp", "tiff", "bmp", "ppm")}


@pytest.mark.fuzz
@given(st.sampled_from(sorted(WHOLE)), st.floats(0, 1))
def test_cut_files_are_refused_or_whole(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(WHOLE[suffix])
    whole = read_color(path)
    path.write_bytes(WHOLE[suffix][: int(share * len(WHOLE[suffix]))])
    try:
        assert read_color(path).equal(whole)
    except ImageFileError as error:
        assert str(path) in str(error)


@pytest.mark.fuzz
@given(st.sampled_from(sorted(WHOLE)), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_damaged_files_are_refused_or_decoded(tmp_path: Path, suffix: str, place: float, flip: int) -> None:
    """PNG alone has checksums over all that matters; in others a changed byte is another picture."""
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(WHOLE[suffix])
    whole = read_color(path)
    data = bytearray(WHOLE[suffix])
    data[int(place * len(data))] ^= flip
    path.write_bytes(data)
    try:
        read = read_color(path)
    except ImageFileError as error:
        assert str(path) in str(error)
        return
    assert suffix != "png" or read.equal(whole)
