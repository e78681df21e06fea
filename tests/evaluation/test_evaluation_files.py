"""Recordings in their true formats, manifests of windows, reports, and the command line of `ff3r eval`."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ff3r_model.cli import main
from ff3r_model.core.geometry import invert_rigid, transform_points, unproject
from ff3r_model.evaluation.manifests import Split, SplitError, make_splits, read_manifest, write_manifest
from ff3r_model.evaluation.recordings import StatedScene, frame_numbers, open_scenes, samples, vocabularies
from ff3r_model.evaluation.report import ReportError, load_results, write_report
from ff3r_model.frames.intrinsics import stated_camera
from ff3r_model.frames.source import SourceError
from ff3r_model.synthetic import make_room, make_trajectory, pinhole, render
from ff3r_model.synthetic.raytracer import RenderedViews

HEIGHT, WIDTH, FRAMES = 96, 128, 7


def filmed() -> tuple[RenderedViews, torch.Tensor]:
    room = make_room(4)
    poses = make_trajectory(room, 1, FRAMES, step=0.2)
    return render(room, poses, pinhole(HEIGHT, WIDTH).expand(FRAMES, 3, 3), HEIGHT, WIDTH), poses


def write_seven_scenes(folder: Path) -> Path:
    """A sequence as Microsoft's 7-Scenes has it, with the intrinsics in a file beside it."""
    views, poses = filmed()
    folder.mkdir(parents=True)
    np.savetxt(folder / "camera-intrinsics.txt", pinhole(HEIGHT, WIDTH).numpy())
    for number in range(FRAMES):
        stem = folder / f"frame-{number:06d}"
        cv2.imwrite(f"{stem}.color.png", views.images[number].numpy()[..., ::-1])
        cv2.imwrite(f"{stem}.depth.png", (views.depth[number].numpy() * 1000).round().astype(np.uint16))
        np.savetxt(f"{stem}.pose.txt", poses[number].numpy())
    return folder


def write_scannet(root: Path) -> Path:
    """A scan as ScanNet's SensReader exports it; label 3 is a wall, 7 a lamp."""
    views, poses = filmed()
    scene = root / "scene0000_00"
    for name in ("color", "depth", "pose", "intrinsic", "label-filt"):
        (scene / name).mkdir(parents=True)
    matrix = np.eye(4)
    matrix[:3, :3] = pinhole(HEIGHT, WIDTH).numpy()
    for kind in ("color", "depth"):
        np.savetxt(scene / "intrinsic" / f"intrinsic_{kind}.txt", matrix)
    for number in range(FRAMES):
        cv2.imwrite(str(scene / f"color/{number}.jpg"), views.images[number].numpy()[..., ::-1])
        cv2.imwrite(str(scene / f"depth/{number}.png"), (views.depth[number].numpy() * 1000).round().astype(np.uint16))
        np.savetxt(scene / f"pose/{number}.txt", poses[number].numpy())
        labels = np.full((HEIGHT, WIDTH), 7, dtype=np.uint16)
        labels[: HEIGHT // 2] = 3
        cv2.imwrite(str(scene / f"label-filt/{number}.png"), labels)
    (root / "scannetv2-labels.combined.tsv").write_text("id\tnyu40class\n3\twall\n7\tlamp\n")
    return root


@pytest.mark.parametrize("write", [write_seven_scenes, write_scannet])
def test_windows_of_recordings_agree_with_themselves(write, tmp_path: Path) -> None:
    """What the first view sees, the second sees at the depth that the poses say."""
    scenes = open_scenes(write(tmp_path / "data"))
    given = next(iter(samples(scenes, [Split(scenes[0].name, (0, 2, 4), (1, 3))], 112, 14)))
    assert len(given.context) == 3 and given.targets is not None and len(given.targets) == 2
    cameras, height = given.context.cameras, given.context.size[0]
    assert torch.allclose(cameras.camera_from_world[0], torch.eye(4), atol=1e-5)
    for other in (given.context, given.targets):
        pose, matrix = other.cameras.camera_from_world[1], other.cameras.intrinsics[1]
        points = unproject(given.context.depth[:1], cameras.intrinsics[:1])[0].flatten(0, 1)
        local = transform_points(pose @ invert_rigid(cameras.camera_from_world[0]), points)
        pixel = (local[:, :2] / local[:, 2:] @ matrix[:2, :2].T + matrix[:2, 2]).floor().long()
        inside = (local[:, 2] > 0) & (pixel >= 0).all(1) & (pixel[:, 0] < 112) & (pixel[:, 1] < height)
        u, v = pixel[inside].T
        error = (other.depth[1, v, u] / local[inside, 2] - 1).abs()
        assert inside.sum() > 3000 and (error < 0.03).float().mean() > 0.85


def test_labels_are_the_papers_classes_and_are_unknown_where_there_are_none(tmp_path: Path) -> None:
    split = Split("scene0000_00", (0, 2), (1,))
    given = next(iter(samples(open_scenes(write_scannet(tmp_path)), [split], 112, 14)))
    words = vocabularies()[0].words
    assert (
        words[int(given.context.classes[0, 10, 5])] == "wall" and words[int(given.context.classes[1, 70, 5])] == "other"
    )
    bare = write_seven_scenes(tmp_path / "bare")
    given = next(iter(samples(open_scenes(bare), [Split("bare", (0, 2), ())], 112, 14)))
    assert (given.context.classes == -1).all() and given.targets is None


def test_manifests_keep_held_out_frames_apart(tmp_path: Path) -> None:
    splits = make_splits("kitchen", range(200), views=8, windows=5, stride=4, targets=2)
    assert len(splits) == 5 and splits[0].context[0] == 0 and splits[-1].context[-1] == 199
    for split in splits:
        assert len(split.context) == 8 and len(split.targets) == 2 and not set(split.context) & set(split.targets)
        assert all(split.context[0] < target < split.context[-1] for target in split.targets)
    write_manifest(tmp_path / "split.json", splits)
    assert read_manifest(tmp_path / "split.json") == splits
    with pytest.raises(SplitError, match="lower --stride"):
        make_splits("kitchen", range(20), views=8, windows=5, stride=4, targets=2)


def write_posed_pictures(folder: Path, numbers: list[int]) -> Path:
    folder.mkdir(parents=True)
    for number in numbers:
        cv2.imwrite(str(folder / f"{number:06}.jpg"), np.full((48, 64, 3), number % 200, np.uint8))
        pose = np.eye(4)
        pose[0, 3] = number
        np.savetxt(folder / f"{number:06}.pose.txt", pose)
    np.savetxt(folder / "camera-intrinsics.txt", [[50, 0, 32], [0, 50, 24], [0, 0, 1]])
    return folder


def test_pictures_with_poses_and_no_depth_are_a_recording(tmp_path: Path) -> None:
    scenes = open_scenes(write_posed_pictures(tmp_path / "walk", [2, 22, 42, 62]))
    given = next(iter(samples(scenes, [Split("walk", (0, 2, 3), ())], 56, 14)))
    assert given.context.cameras.camera_from_world[:, 0, 3].tolist() == [0, -40, -60]
    assert not given.context.depth.any() and given.context.cameras.intrinsics[0, 0, 0] == pytest.approx(50 * 56 / 64)


def test_a_stated_camera_takes_the_place_of_the_recordings(tmp_path: Path) -> None:
    scene = open_scenes(write_posed_pictures(tmp_path / "walk", [2, 22]))[0]
    camera = stated_camera("60,60,32,24", None)
    assert camera is not None
    given = next(iter(samples([StatedScene(scene, camera)], [Split("walk", (0, 1), ())], 56, 14)))
    assert given.context.cameras.intrinsics[0, 0, 0] == pytest.approx(60 * 56 / 64)


def test_windows_may_step_by_the_numbers_in_file_names(tmp_path: Path) -> None:
    scene = open_scenes(write_posed_pictures(tmp_path / "walk", [2, 22, 42, 60, 62, 80, 82, 99]))[0]
    splits = make_splits("walk", frame_numbers(scene), views=4, windows=9, stride=20, targets=2)
    assert [[scene.view(place).id[-10:-4] for place in split.context] for split in splits] == [
        ["000002", "000022", "000042", "000062"],
        ["000022", "000042", "000062", "000082"],
        ["000042", "000062", "000082", "000099"],
    ]
    with pytest.raises(SplitError, match="--by-number"):
        make_splits("walk", range(8), views=4, windows=2, stride=20, targets=2)


def test_a_picture_with_a_damaged_pose_is_named(tmp_path: Path) -> None:
    scene = open_scenes(write_posed_pictures(tmp_path / "walk", [2, 22, 42, 62]))[0]
    (tmp_path / "walk/000022.pose.txt").write_text("1 0 0 nan")
    with pytest.raises(SourceError, match=r"000022\.pose\.txt must hold 16 finite numbers"):
        scene.view(1)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"version": 9, "windows": []}', '{"version": 1, "windows": [{"scene": "a", "context": ["x"]}]}']
)
def test_files_that_are_no_manifest_are_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(SplitError, match=r"split\.json"):
        read_manifest(path)


def result(**figures: object) -> dict[str, object]:
    about = {"benchmark": "synthetic", "views": 8, "checkpoint": "a.safetensors", "sha256": "0" * 64, "windows": 3}
    return about | {"pictures": []} | figures


def test_the_report_says_what_was_not_measured_and_brings_pictures(tmp_path: Path) -> None:
    (tmp_path / "shots").mkdir()
    cv2.imwrite(str(tmp_path / "shots/room_0.png"), np.zeros((4, 4, 3), np.uint8))
    one = result(depth_rel=0.1234, constant_depth_rel=0.5, lpips=None, pictures=["shots/room_0.png"])
    (tmp_path / "one.json").write_text(json.dumps(one))
    (tmp_path / "two.json").write_text(
        json.dumps({"2": result(views=2, depth_rel=0.3), "6": result(views=6, lpips=0.5)})
    )
    page = write_report([tmp_path / "one.json", tmp_path / "two.json"], tmp_path / "out").read_text()
    rows = {
        cells[1].strip(): [c.strip() for c in cells[2:-1]]
        for line in page.splitlines()
        if (cells := line.split("|"))[1:]
    }
    assert rows["depth Rel ↓"] == ["12.3% (50.0%)", "30.0%", "not measured"]
    assert rows["LPIPS ↓"] == ["not measured", "not measured", "0.500"]
    assert (tmp_path / "out/synthetic_8_room_0.png").is_file() and "(synthetic_8_room_0.png)" in page
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(ReportError, match=r"other\.json"):
        load_results([tmp_path / "other.json"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["synthetic", "--seeds", "3:1", "--json", "x.json"], "A:B"),
        (["synthetic", "--views", "65", "--json", "x.json"], "2 to 64"),
        (["synthetic", "--weights", "nowhere.safetensors", "--json", "x.json"], "nowhere.safetensors"),
        (["report", "nowhere.json", "-o", "out"], "nowhere.json"),
        (["split", "nowhere", "-o", "x.json"], "nowhere"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not Path("x.json").exists()
