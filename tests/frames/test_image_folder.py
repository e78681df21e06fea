"""Folders of images: which files are frames, in which order and at what times, and what is said of the others."""

from __future__ import annotations

import json
import logging
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ff3r_model.frames.open_source import open_source
from ff3r_model.frames.source import SourceError
from tests.support.videos import picture, write_video

HEIGHT, WIDTH = 48, 64


def write(path: Path, index: int = 0, height: int = HEIGHT, width: int = WIDTH) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(index, height, width)).save(path)


def names(path: Path) -> list[str]:
    """Of the files that are frames."""
    return [file.name for file in open_source(path).files]  # type: ignore[attr-defined]


def test_natural_order_without_what_is_no_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for index in (2, 10, 1):
        write(tmp_path / f"frame{index}.png", index)
    Image.fromarray(np.full((HEIGHT, WIDTH), 1500, np.uint16)).save(tmp_path / "frame3.depth.png")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / ".hidden").touch()
    with caplog.at_level(logging.WARNING):
        source = open_source(tmp_path)
    assert (
        "left out 4 files that are no colour images: broken.jpg, frame3.depth.png, gone.png and 1 more" in caplog.text
    )
    assert "(1 damaged, 1 depth, 1 broken links, 1 other files)" in caplog.text
    frames = list(source)
    assert source.count == 3
    for index, frame in zip((1, 2, 10), frames, strict=True):
        assert torch.equal(frame.image, torch.from_numpy(picture(index, HEIGHT, WIDTH)))
    assert all(later.stamp > earlier.stamp for earlier, later in pairwise(frames))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_cut_image_is_left_out(suffix: str, share: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(2):
        noise = np.random.default_rng(index).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{index}.{suffix}")
    whole = (tmp_path / f"1.{suffix}").read_bytes()
    (tmp_path / f"1.{suffix}").write_bytes(whole[: int(share * len(whole))])
    assert len(list(open_source(tmp_path))) == 1
    assert f"1.{suffix}" in caplog.text


def test_many_damaged_images_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(15):
        write(tmp_path / f"{index}.png", index)
        if index:
            whole = (tmp_path / f"{index}.png").read_bytes()
            (tmp_path / f"{index}.png").write_bytes(whole[: len(whole) // 2])
    assert len(list(open_source(tmp_path))) == 1
    assert "10.png" in caplog.text and "11.png" not in caplog.text
    assert "4 more frames are left out for such reasons" in caplog.text


def test_masks_depth_and_labels_are_no_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(4):
        write(tmp_path / f"{index}.jpg", index)
        areas = np.repeat(np.arange(4, dtype=np.uint8), HEIGHT // 4)[:, None].repeat(WIDTH, 1)
        Image.fromarray(areas * 255).save(tmp_path / f"{index}_mask.png")
        Image.fromarray(areas * 60).save(tmp_path / f"{index}.jpg.png")
        write(tmp_path / f"depth_{index}.png", index)
        labels = Image.fromarray(areas, "P")
        labels.putpalette(np.random.default_rng(0).integers(0, 255, 768, np.uint8).tobytes())
        labels.save(tmp_path / f"{index}.png")
    grey = Image.fromarray(picture(4, HEIGHT, WIDTH)).convert("L")
    grey.save(tmp_path / "4.png")
    Image.fromarray(picture(5, HEIGHT, WIDTH)).quantize(256).save(tmp_path / "5.png")
    assert names(tmp_path) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.png", "5.png"]
    assert "(12 masks or labels by name, 4 label images)" in caplog.text


def test_a_word_that_all_names_share_says_nothing(tmp_path: Path) -> None:
    for index in range(3):
        write(tmp_path / f"label_printer_{index}.jpg", index)
    assert len(names(tmp_path)) == 3


def test_folder_of_masks_alone(tmp_path: Path) -> None:
    for index in range(3):
        Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8)).save(tmp_path / f"{index}_mask.png")
    with pytest.raises(SourceError, match=r"holds no colour images .* \(3 masks or labels by name\) found"):
        open_source(tmp_path)


def test_commonest_shape_wins(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "0.png", 0, WIDTH, HEIGHT)
    for index in range(1, 4):
        write(tmp_path / f"{index}.png", index, HEIGHT * index, WIDTH * index)
    assert names(tmp_path) == ["1.png", "2.png", "3.png"]
    assert "left out 1 images that have not the shape of 64x48: 0.png" in caplog.text


@pytest.mark.parametrize(
    ("height", "width", "words"), [(1, 1, "too small"), (8, 10, "too small"), (20, 100, "longer than 1:4")]
)
def test_sizes_that_the_network_cannot_use(height: int, width: int, words: str, tmp_path: Path) -> None:
    for index in range(3):
        write(tmp_path / f"{index}.png", index, height, width)
    with pytest.raises(SourceError, match=rf"{width}x{height} pixels is {words}"):
        open_source(tmp_path)


def test_panorama_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "0.png", 0, 50, 100)
    open_source(tmp_path)
    assert "100x50 is the shape of a 360° panorama" in caplog.text


def test_own_outputs_are_no_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "0.png")
    write(tmp_path / "topdown.png")
    (tmp_path / ".ff3r_output.json").write_text(json.dumps({"command": "reconstruct", "files": ["topdown.png"]}))
    assert names(tmp_path) == ["0.png"]
    assert "topdown.png (1 from an earlier run)" in caplog.text


@pytest.mark.parametrize(
    ("stems", "stamps"),
    [
        (["1403636579763555584", "1403636579813555456"], [1403636579763555584, 1403636579813555456]),
        (["1305031102.175304", "1305031102.211214"], [1305031102175304000, 1305031102211214000]),
        (["1403636579763555", "1403636579813555"], [1403636579763555000, 1403636579813555000]),
        (["000001", "000002"], [0, 10**8]),
        (["20240102", "20240103"], [0, 10**8]),
    ],
)
def test_names_that_are_times(stems: list[str], stamps: list[int], tmp_path: Path) -> None:
    for index, stem in enumerate(stems):
        write(tmp_path / f"{stem}.png", index)
    source = open_source(tmp_path)
    assert [frame.stamp for frame in source] == stamps
    assert source.fps == pytest.approx(1e9 / (stamps[1] - stamps[0]))


def test_folders_without_images_say_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nothing found"):
        open_source(tmp_path)
    (tmp_path / "readme.md").write_text("hello")
    with pytest.raises(SourceError, match=r"only readme\.md \(1 other files\) found"):
        open_source(tmp_path)
    (tmp_path / "IMG_1.HEIC").write_bytes(b"heic")
    with pytest.raises(SourceError, match="convert to JPEG or PNG"):
        open_source(tmp_path)
    write(tmp_path / "left/0.png")
    write(tmp_path / "deep/er/0.png")
    write(tmp_path / "deep/er/1.png")
    with pytest.raises(SourceError, match=r"give the folder inside that has them: deep/er/ \(2 images\), left/ \(1 im"):
        open_source(tmp_path)
    write_video(tmp_path / "walk.mp4")
    with pytest.raises(SourceError, match=r"holds videos and no images: give one of walk\.mp4"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("layout", "images", "mark"),
    [
        ("EuRoC", "mav0/cam0/data", "mav0/cam0/data.csv"),
        ("ScanNet", "color", "pose/0.txt"),
        ("Replica", "results", "traj.txt"),
        ("nerfstudio", "images", "transforms.json"),
        ("COLMAP", "images", "sparse/0/points3D.bin"),
    ],
)
def test_layouts_of_data_sets(
    layout: str, images: str, mark: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(3):
        write(tmp_path / images / f"frame{index:06}.jpg", index)
    write(tmp_path / "images_2/0.jpg")
    (tmp_path / mark).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / mark).touch()
    assert len(list(open_source(tmp_path))) == 3
    assert f"is laid out as {layout}: the images in {images} are read, and nothing else" in caplog.text
