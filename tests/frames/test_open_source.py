"""What is no source says so, and why, whatever kind of thing it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from ff3r_model.frames.image_folder import FolderSource
from ff3r_model.frames.open_source import is_bag, open_source
from ff3r_model.frames.source import SourceError
from tests.support.videos import picture


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("https://example.org/video.mp4", r"https://example\.org/video\.mp4: URLs are not read; save"),
        (Path("rtsp://10.0.0.1:554/live"), r"rtsp://10\.0\.0\.1:554/live: URLs are not read"),
        ("file:///data/v.mp4", r"file:///data/v\.mp4: URLs are not read; give the path, /data/v\.mp4"),
        ("0", "0: cameras and pipes are not read"),
        ("/dev/video0", "/dev/video0: cameras and pipes are not read"),
        ("-", "-: cameras and pipes are not read"),
    ],
)
def test_addresses_and_cameras(given: str | Path, message: str) -> None:
    with pytest.raises(SourceError, match=f"^{message}"):
        open_source(given)


def test_empty_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(SourceError, match="is empty"):
        open_source(tmp_path / "clip.mp4")
    with pytest.raises(SourceError, match="nowhere does not exist"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(SourceError, match="link is a broken link"):
        open_source(tmp_path / "link")
    with pytest.raises(SourceError, match="cannot be read: File name too long"):
        open_source(tmp_path / ("x" * 300))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="pipe is neither a file nor a folder"):
        open_source(tmp_path / "pipe")


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"content")
    monkeypatch.setattr(os, "access", lambda *_: False)
    for path in (tmp_path / "clip.mp4", tmp_path):
        with pytest.raises(SourceError, match="cannot be read: permission denied"):
            open_source(path)


def test_one_image(tmp_path: Path) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "a.jpg")
    with pytest.raises(SourceError, match=r"a\.jpg is one image; a map needs several: give the folder"):
        open_source(tmp_path / "a.jpg")


def test_photos_beside_what_looks_like_a_bag(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "a.jpg")
    (tmp_path / "metadata.yaml").write_text("camera: phone\n")
    assert isinstance(open_source(tmp_path), FolderSource)
    (tmp_path / "metadata.yaml").write_text("rosbag2_bagfile_information:\n  version: 9\n")
    assert is_bag(tmp_path)
    (tmp_path / "b.mcap").touch()
    assert is_bag(tmp_path)
    assert "holds 1 images beside b.mcap: the bag is read, not the images" in caplog.text


def test_options_of_other_sources(tmp_path: Path) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "a.jpg")
    for options in ({"topic": "/x"}, {"depth": "/x"}, {"odom_frame": "odom"}, {"depth_unit": 0.001}):
        with pytest.raises(SourceError, match=r"so it has no "):
            open_source(tmp_path, **options)  # type: ignore[arg-type]
