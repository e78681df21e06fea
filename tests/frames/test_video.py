"""Videos give the frames that were written, at their times, upright; what is wrong with others is said."""

from __future__ import annotations

import logging
import os
import random
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import av
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ff3r_model.frames import video
from ff3r_model.frames.open_source import open_source
from ff3r_model.frames.source import SourceError
from tests.support.videos import picture, write_sound, write_video

MILLISECOND = 10**6


def error(image: np.ndarray, index: int) -> float:
    """Mean difference in grey levels."""
    return float(np.abs(image.astype(int) - picture(index, *image.shape[:2])).mean())


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("phone.mp4", "libx264", "yuv420p"),
        ("ten_bits.mkv", "libx264", "yuv420p10le"),
        ("full_colour.mp4", "libx264", "yuv444p"),
        ("new.mp4", "libsvtav1", "yuv420p"),
        ("web.webm", "libvpx-vp9", "yuv420p"),
        ("cut_room.mov", "prores_ks", "yuva444p10le"),
        ("old.avi", "mjpeg", "yuvj420p"),
        ("older.avi", "mpeg4", "yuv420p"),
        ("no_suffix", "libx264", "yuv420p"),
        ("odd %d.MP4", "libx264", "yuv420p"),
    ],
)
def test_every_frame_in_order(name: str, codec: str, pixels: str, tmp_path: Path) -> None:
    written = write_video(tmp_path / ("plain.mp4" if name == "no_suffix" else name), codec, pixels)
    source = open_source(written.rename(tmp_path / name))
    frames = list(source)
    assert (source.name, source.fps, source.count) == (name, 20.0, 8)
    assert [frame.stamp for frame in frames] == [index * 50 * MILLISECOND for index in range(8)]
    assert max(error(frame.image.numpy(), index) for index, frame in enumerate(frames)) < 5
    assert len(list(source)) == 8, "iterating again starts again"


def test_stream_without_a_container(tmp_path: Path) -> None:
    source = open_source(write_video(tmp_path / "v.h264"))
    assert source.count is None
    assert [frame.stamp for frame in source] == [index * 40 * MILLISECOND for index in range(8)], "FFmpeg takes 25 fps"


def test_opencv_videos(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (128, 96))
    for index in range(7):
        writer.write(picture(index)[..., ::-1])
    writer.release()
    source = open_source(tmp_path / "v.avi")
    assert (source.fps, source.count) == (20.0, 7)
    assert [frame.stamp for frame in source] == [index * 50 * MILLISECOND for index in range(7)]


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts"])
def test_presentation_times(name: str, tmp_path: Path) -> None:
    """A variable rate and a late start, with frames that are stored in another order than they are shown."""
    times = [1.0, 1.05, 1.1, 1.2, 1.3, 2.5, 3.0, 10.0]
    path = write_video(tmp_path / name, times=times, options={"bf": "3"})
    stamps = [frame.stamp / 1e9 for frame in open_source(path)]
    assert stamps == pytest.approx([time - 1.0 for time in times], abs=1e-3)


def test_times_that_stand_or_are_missing_go_on_at_the_mean_rate() -> None:
    clock, frame = video._Clock(10.0), Mock(spec=av.VideoFrame, dts=None, time_base=Fraction(1, 1000))
    stamps = []
    for frame.pts in (120, 220, 320, 320, 1000, 500, None):
        stamps.append(clock.stamp(frame) / 1e6)
    assert stamps == [0, 100, 200, 300, 880, 980, 1080]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_tag(degrees: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mov", change=lambda stream: stream.set_display_rotation(degrees))
    frame = next(iter(open_source(path)))
    assert error(np.rot90(frame.image.numpy(), -degrees // 90), 0) < 4, "counter-clockwise"


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    def anamorphic(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    frame = next(iter(open_source(write_video(tmp_path / "v.mp4", change=anamorphic))))
    assert frame.image.shape == (96, 171, 3)
    assert error(frame.image.numpy(), 0) < 4


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("v.mp4", "libx264", {"flags": "+ildct+ilme", "x264-params": "interlaced=1:tff=1"}),
        ("v.mkv", "mpeg2video", {"flags": "+ildct+ilme", "qscale": "2"}),
        ("v.dv", "dvvideo", {}),
    ],
)
def test_interlaced(name: str, codec: str, options: dict[str, str], tmp_path: Path) -> None:
    def rate(stream: Any) -> None:
        stream.codec_context.time_base = Fraction(1, 25)
        stream.codec_context.framerate = Fraction(25)

    size, times = ((576, 720) if codec == "dvvideo" else (96, 128)), [index / 25 for index in range(4)]
    path = write_video(tmp_path / name, codec, times=times, size=size, options=options, change=rate)
    frames = list(open_source(path))
    assert [round(frame.stamp / 1e6) for frame in frames] == [0, 40, 80, 120]
    assert max(error(frame.image.numpy(), index) for index, frame in enumerate(frames)) < 6


@pytest.mark.parametrize(("matrix", "pixels"), [("ITU709", "yuv444p"), ("ITU601", "yuv444p"), ("ITU709", "yuvj444p")])
def test_colour_matrix_and_range(matrix: str, pixels: str, tmp_path: Path) -> None:
    def tag(stream: Any) -> None:
        stream.codec_context.colorspace = 1 if matrix == "ITU709" else 5
        stream.codec_context.color_range = 2 if pixels == "yuvj444p" else 1

    path = write_video(tmp_path / "v.mp4", pixels=pixels, matrix=matrix, change=tag)
    assert max(error(frame.image.numpy(), index) for index, frame in enumerate(open_source(path))) < 3


def test_high_dynamic_range_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def tag(stream: Any) -> None:
        stream.codec_context.color_trc = 16

    assert len(list(open_source(write_video(tmp_path / "v.mp4", pixels="yuv420p10le", change=tag)))) == 8
    assert "high dynamic range (PQ)" in caplog.text


def test_cut_video_gives_the_frames_before_the_cut(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    options = {"movflags": "+faststart"}
    path = write_video(tmp_path / "v.mp4", options={"g": "1"}, container_options=options)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    frames = list(open_source(path))
    assert 2 <= len(frames) < 8
    assert max(error(frame.image.numpy(), index) for index, frame in enumerate(frames)) < 4
    assert f"v.mp4 promises 8 frames; {len(frames)} could be decoded" in caplog.text
    assert capfd.readouterr().err == "", "FFmpeg's own messages stay inside"


def test_damaged_frames_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    times = [index / 20 for index in range(40)]
    path = write_video(tmp_path / "v.mp4", times=times, options={"g": "1", "qp": "10"})
    data, generator = bytearray(path.read_bytes()), random.Random(0)
    start = data.index(b"mdat")
    for _ in range(20):
        data[generator.randrange(start + 1000, len(data) - 4000)] ^= 0xFF
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        frames = list(open_source(path))
    assert 15 <= len(frames) < 40
    assert f"left out {40 - len(frames)} damaged frames" in caplog.text


@pytest.mark.parametrize(
    "content", [b"no video at all" * 100, b"\x80\x07" * 700, b"\x00\x00\x00\x08free" + b"\x00" * 5000]
)
def test_file_that_is_no_video(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=rf"clip\.mp4 does not open as a video \({len(content)} bytes\)"):
        open_source(path)


def test_recording_without_its_index(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", options={"g": "1"})
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(SourceError, match=r"its index \(moov\) is missing, the recording was not finished"):
        open_source(path)


def test_text_is_no_video(tmp_path: Path) -> None:
    """FFmpeg would open it, and show it as a terminal does; and a list of files as the videos in it."""
    (tmp_path / "notes.txt").write_text("one line\nand another ü\n" * 20)
    with pytest.raises(SourceError, match=r"notes\.txt does not open as a video"):
        open_source(tmp_path / "notes.txt")
    write_video(tmp_path / "secret.mp4")
    (tmp_path / "list.txt").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    with pytest.raises(SourceError, match=r"list\.txt is no video: it is a list of other files"):
        open_source(tmp_path / "list.txt")


def test_sound_and_covers_are_no_video(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no video, only audio$"):
        open_source(write_sound(tmp_path / "sound.mp3"))
    with pytest.raises(SourceError, match=r"holds no video, only audio and a cover picture$"):
        open_source(write_sound(tmp_path / "song.mp3", cover=True))


@pytest.mark.parametrize(("start", "kind"), [(b"PK\x03\x04", "zip"), (b"\x1f\x8b\x08", "gzip")])
def test_archives_are_to_be_unpacked(start: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "photos").write_bytes(start + bytes(100))
    with pytest.raises(SourceError, match=rf"photos is an archive \({kind}\): unpack it"):
        open_source(tmp_path / "photos")


def test_frames_beyond_the_budget_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "v.mp4")
    monkeypatch.setattr(video, "MAX_PIXELS", 10_000)
    with pytest.raises(SourceError, match=r"frames of 128x96 pixels are more than 10,000"):
        open_source(path)


def test_shapes_that_the_network_cannot_use(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SourceError, match=r"v\.mp4: an image of 320x64 pixels is longer than 1:4"):
        open_source(write_video(tmp_path / "v.mp4", size=(64, 320)))
    open_source(write_video(tmp_path / "w.mp4", size=(64, 128)))
    assert "128x64 is the shape of a 360° panorama" in caplog.text


@pytest.fixture(scope="module")
def whole_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    for name in ("v.mp4", "v.mkv", "v.ts"):
        write_video(folder / name)
    return folder


@pytest.mark.fuzz
@given(
    st.sampled_from(["v.mp4", "v.mkv", "v.ts"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=8),
    st.floats(0.05, 1),
)
def test_damaged_videos_are_refused_or_give_frames_in_order(
    tmp_path: Path, whole_videos: Path, name: str, damage: list[tuple[float, int]], share: float
) -> None:
    data = bytearray((whole_videos / name).read_bytes())
    for place, flip in damage:
        data[int(place * len(data))] ^= flip
    (tmp_path / name).write_bytes(data[: int(share * len(data))])
    try:
        frames = list(islice(open_source(tmp_path / name), 50))
    except SourceError as refusal:
        assert str(tmp_path / name) in str(refusal)
        return
    assert all(before.stamp < after.stamp for before, after in pairwise(frames))
    assert all(frame.image.dtype == torch.uint8 for frame in frames)


def test_unknown_codec(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv")
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/AVX"))
    with pytest.raises(SourceError, match=r"v\.mkv: its video is coded in a way that is not known here"):
        open_source(path)


def test_closing_early_closes_the_file(tmp_path: Path) -> None:
    frames = iter(open_source(write_video(tmp_path / "v.mp4")))
    next(frames)
    assert str(tmp_path / "v.mp4") in open_files()
    frames.close()  # type: ignore[attr-defined]
    assert str(tmp_path / "v.mp4") not in open_files()


def open_files() -> list[str]:
    return [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
