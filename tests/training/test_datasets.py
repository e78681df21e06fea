"""Loaders on small data written in the true formats, and the sampling of windows."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ff3r_model.training.datasets.base import DataError, Share, stream
from ff3r_model.training.datasets.dl3dv import open_dl3dv
from ff3r_model.training.datasets.footage import VIDEO_SIDE, open_footage
from ff3r_model.training.datasets.scannet import CLASSES, LABELS, open_scannet, read_classes
from ff3r_model.training.datasets.scene_windows import SamplingConfig, SceneWindows

RNG = np.random.default_rng(0)


def flat(color: int, size: tuple[int, int] = (30, 40)) -> np.ndarray:
    """A picture of one colour, BGR."""
    return np.full((*size, 3), color, np.uint8)


def numbered(folder: Path, count: int, size: tuple[int, int] = (30, 40)) -> Path:
    """Pictures 0.png … whose grey value is ten times their number."""
    folder.mkdir(parents=True)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index}.png"), flat(10 * index, size))
    return folder


# Own footage


def test_folders_and_folders_of_folders_are_scenes_in_natural_order(tmp_path: Path) -> None:
    one = numbered(tmp_path / "one", 12)
    many = tmp_path / "many"
    numbered(many / "a", 3)
    numbered(many / "b", 4)
    (many / "empty").mkdir()
    scenes = open_footage([one, many], tmp_path / "frames")
    assert [(scene.name, len(scene)) for scene in scenes] == [("one", 12), ("many/a", 3), ("many/b", 4)]
    assert [int(scenes[0].view(index).image[0, 0, 0]) for index in (0, 2, 11)] == [0, 20, 110]
    assert scenes[0].view(11).id == str(one / "11.png")


def test_a_videos_frames_are_taken_out_once(tmp_path: Path) -> None:
    path = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (800, 400))
    for index in range(20):
        writer.write(flat(10 * index, (400, 800)))
    writer.release()
    [scene] = open_footage([path], tmp_path / "frames")
    assert len(scene) == 20
    image = scene.view(15).image
    assert image.shape == (VIDEO_SIDE // 2, VIDEO_SIDE, 3) and abs(float(image.float().mean()) - 150) < 3
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "frames").rglob("*.png")}
    open_footage([path], tmp_path / "frames")
    assert stamps == {file: file.stat().st_mtime_ns for file in (tmp_path / "frames").rglob("*.png")}
    assert not list((tmp_path / "frames").glob(".*"))


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no video")
    for path, complaint in (("missing", "does not exist"), ("empty", "holds no images"), ("notes.txt", "not open")):
        with pytest.raises(DataError, match=f"{path}.*{complaint}"):
            open_footage([tmp_path / path], tmp_path / "frames")
    folder = numbered(tmp_path / "some", 3)
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[:50])
    (folder / "2.png").write_bytes(whole[:20])
    [scene] = open_footage([folder], tmp_path / "frames")
    assert len(scene) == 2, "what has not even a header is left out"
    with pytest.raises(DataError, match=r"1\.png \(50 bytes\) cannot be decoded"):
        scene.view(1)
    with pytest.raises(DataError, match=r"too few images: a window takes at least 4.*some with 2"):
        SceneWindows([scene], 0, 14, SamplingConfig(views=(4, 8)))


# Windows


def windows_of(tmp_path: Path, config: SamplingConfig, count: int = 20) -> SceneWindows:
    scenes = open_footage([numbered(tmp_path / "scene", count)], tmp_path / "frames")
    return SceneWindows(scenes, 7, 14, config)


def numbers(ids: tuple[str, ...]) -> list[int]:
    return [int(Path(name).stem) for name in ids]


def test_windows_are_distinct_shuffled_frames_of_random_spans(tmp_path: Path) -> None:
    windows = windows_of(tmp_path, SamplingConfig(views=(4,), total_views=4, span=8, long_side=28))
    drawn = [numbers(windows.batch(step, Share()).ids) for step in range(60)]
    assert all(len(set(picks)) == 4 for picks in drawn)
    spans = [max(picks) - min(picks) for picks in drawn]
    assert max(spans) <= 7 and len(set(spans)) > 3, "spans are random and no longer than asked for"
    assert sum(picks == sorted(picks) for picks in drawn) < 15, "shuffled: 1 in 24 is in order"
    assert {0, 19} <= {number for picks in drawn for number in picks}, "all of the scene is seen"
    assert numbers(windows.batch(3, Share()).ids) == drawn[3]


def test_images_show_what_the_ids_say_in_square_crops(tmp_path: Path) -> None:
    batch = windows_of(tmp_path, SamplingConfig(views=(2, 3), total_views=6, long_side=28)).batch(0, Share())
    assert batch.images.shape[0] * batch.images.shape[1] == 6 and batch.images.shape[2:] == (3, 28, 28)
    shown = (batch.images.flatten(0, 1).mean((1, 2, 3)) * 25.5).round().int().tolist()
    assert shown == numbers(batch.ids)


def test_processes_share_what_one_would_see_and_windows_can_come_again(tmp_path: Path) -> None:
    whole = windows_of(tmp_path / "a", SamplingConfig(views=(2,), total_views=8, distinct=5, long_side=28))
    part = windows_of(tmp_path / "b", SamplingConfig(views=(2,), total_views=4, distinct=5, long_side=28))
    one = whole.batch(2, Share())
    assert numbers(one.ids) == numbers(part.batch(2, Share(0, 2)).ids) + numbers(part.batch(2, Share(1, 2)).ids)
    assert whole.batch(7, Share()).ids == one.ids != whole.batch(8, Share()).ids


def test_processes_that_read_ahead_give_the_same_batches(tmp_path: Path) -> None:
    windows = windows_of(tmp_path, SamplingConfig(views=(2, 4), total_views=4, long_side=28))
    ahead = stream(windows, 3, Share(), workers=2)
    for step in (3, 4, 5, 6):
        expected, found = windows.batch(step, Share()), next(ahead)
        assert found.ids == expected.ids and found.images.equal(expected.images)


def test_without_square_crops_a_batch_keeps_one_shape(tmp_path: Path) -> None:
    folders = [numbered(tmp_path / "wide", 6, (28, 56)), numbered(tmp_path / "high", 6, (56, 28))]
    config = SamplingConfig(views=(2,), total_views=4, square=False, long_side=56)
    windows = SceneWindows(open_footage(folders, tmp_path / "frames"), 0, 14, config)
    shapes = {tuple(windows.batch(step, Share()).images.shape[-2:]) for step in range(12)}
    assert shapes == {(28, 56), (56, 28)}


def test_smaller_scenes_give_smaller_windows(tmp_path: Path) -> None:
    batch = windows_of(tmp_path, SamplingConfig(views=(2, 16), total_views=16, long_side=28), count=5)
    assert {batch.batch(step, Share()).images.shape[1] for step in range(10)} == {2, 5}


def test_images_that_cannot_be_used_are_left_out_by_name_and_the_nearest_stand_in(tmp_path: Path) -> None:
    config = SamplingConfig(views=(4,), total_views=4, span=8, long_side=28)
    scenes = open_footage([numbered(tmp_path / "scene", 20)], tmp_path / "frames")
    whole = [numbers(SceneWindows(scenes, 7, 14, config).batch(step, Share()).ids) for step in range(30)]
    for index in (3, 4, 11):
        file = tmp_path / f"scene/{index}.png"
        file.write_bytes(file.read_bytes()[:60])
    order = [SceneWindows(scenes, 7, 14, config) for _ in range(2)]
    batches = {step: order[0].batch(step, Share()) for step in range(30)}
    for step, before in enumerate(whole):
        now = numbers(batches[step].ids)
        assert len(set(now)) == 4 and not set(now) & {3, 4, 11}
        assert all(a == b for a, b in zip(before, now, strict=True) if a not in {3, 4, 11})
        assert {3, 4, 11} & set(before) <= {int(Path(said.split(" ")[0]).stem) for said in batches[step].left_out}
        shown = (batches[step].images[0].mean((1, 2, 3)) * 25.5).round().int().tolist()
        assert shown == now, "what the ids say is what is shown"
    for step in reversed(range(30)):
        assert order[1].batch(step, Share()).ids == batches[step].ids, "whatever was found out before"


def test_a_scene_without_enough_images_gives_way_to_another_and_none_is_refused(tmp_path: Path) -> None:
    folders = [numbered(tmp_path / "good", 4), numbered(tmp_path / "bad", 4)]
    windows = SceneWindows(open_footage(folders, tmp_path / "f"), 0, 14, SamplingConfig((3,), 6, long_side=28))
    for file in sorted((tmp_path / "bad").iterdir())[:2]:
        file.write_bytes(file.read_bytes()[:60])
    for step in range(10):
        assert {Path(name).parent.name for name in windows.batch(step, Share()).ids} == {"good"}
    for file in (tmp_path / "good").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="too few images can be used: a window takes 3 of one scene; 4 are left out"):
        SceneWindows(windows.scenes, 0, 14, windows.config).batch(0, Share())


def test_odd_shapes_are_left_out_without_square_crops(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "wide", 6, (28, 56))
    cv2.imwrite(str(folder / "0.png"), flat(0, (56, 28)))
    scenes = open_footage([folder], tmp_path / "frames")
    windows = SceneWindows(scenes, 0, 14, SamplingConfig((2,), 4, square=False, long_side=56))
    batches = [windows.batch(step, Share()) for step in range(12)]
    assert {tuple(batch.images.shape[-2:]) for batch in batches} == {(28, 56)}
    assert {said for batch in batches for said in batch.left_out} == {
        f"{folder / '0.png'} has another shape than most of its scene"
    }


def test_a_folder_of_videos_is_a_scene_for_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "clips").mkdir()
    for name in ("a.avi", "b.AVI"):
        writer = cv2.VideoWriter(str(tmp_path / "clips" / "x.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
        for index in range(3):
            writer.write(flat(10 * index, (48, 64)))
        writer.release()
        (tmp_path / "clips/x.avi").rename(tmp_path / "clips" / name)
    (tmp_path / "clips/c.mp4").write_bytes(b"no video")
    for root, names in ((tmp_path / "clips", "clips"), (tmp_path, f"{tmp_path.name}/clips")):
        scenes = open_footage([root], tmp_path / "frames")
        assert [(scene.name, len(scene)) for scene in scenes] == [(f"{names}/a", 3), (f"{names}/b", 3)]
    assert "left out" in caplog.text and "c.mp4" in caplog.text


# DL3DV-10K


def write_dl3dv(scene: Path, points: np.ndarray) -> np.ndarray:
    """Three frames of 80×60 (original 320×240) in nerfstudio's convention; returns the pixels of `points` in each."""
    (scene / "images_4").mkdir(parents=True)
    frames, pixels = [], []
    for index in (2, 10, 1):
        angle = 0.05 * index
        camera_to_world = np.eye(4)  # y up, looking along -z
        camera_to_world[:3, :3] = [
            [np.cos(angle), 0, np.sin(angle)],
            [0, 1, 0],
            [-np.sin(angle), 0, np.cos(angle)],
        ]
        camera_to_world[:3, 3] = [0.1 * index, 0.3, 1.0]
        name = f"frame_{index:05d}.png"
        cv2.imwrite(str(scene / "images_4" / name), flat(index, (60, 80)))
        frames.append({"file_path": f"images/{name}", "transform_matrix": camera_to_world.tolist()})
        local = (points - camera_to_world[:3, 3]) @ camera_to_world[:3, :3]
        u = 40 + 75 * local[:, 0] / -local[:, 2]
        v = 30 - 75 * local[:, 1] / -local[:, 2]
        pixels.append(np.stack([u, v], 1))
    stated = {"w": 320, "h": 240, "fl_x": 300.0, "fl_y": 300.0, "cx": 160.0, "cy": 120.0, "camera_model": "OPENCV"}
    (scene / "transforms.json").write_text(json.dumps(stated | {"frames": frames}))
    return np.stack([pixels[2], pixels[0], pixels[1]])


@pytest.mark.parametrize("place", ["1K/abc123", "abc123/nerfstudio"])
def test_dl3dv_scenes_project_as_nerfstudio_means_them(tmp_path: Path, place: str) -> None:
    points = RNG.uniform([-0.5, -0.5, -4], [0.5, 0.5, -2], (20, 3))
    expected = write_dl3dv(tmp_path / place, points)
    [scene] = open_dl3dv(tmp_path)
    assert scene.name == "abc123" and len(scene) == 3
    for index, number in enumerate((1, 2, 10)):
        view = scene.view(index)
        assert int(view.image[0, 0, 0]) == number and view.id.endswith(f"frame_{number:05d}.png")
        assert view.world_from_camera is not None and view.intrinsics is not None
        camera_from_world = np.linalg.inv(view.world_from_camera.double().numpy())
        local = points @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
        homogeneous = local @ view.intrinsics.double().numpy().T
        assert (homogeneous[:, 2] > 0).all()
        assert np.allclose(homogeneous[:, :2] / homogeneous[:, 2:], expected[index], atol=1e-3)


def test_dl3dv_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no transforms\.json"):
        open_dl3dv(tmp_path)
    write_dl3dv(tmp_path / "scene", np.zeros((1, 3)))
    with pytest.raises(DataError, match=r"lists 3 frames, and none is in .*images_8"):
        open_dl3dv(tmp_path, "images_8")
    write_dl3dv(tmp_path / "other", np.zeros((1, 3)))
    (tmp_path / "scene/transforms.json").write_text('{"frames": []}')
    assert [scene.name for scene in open_dl3dv(tmp_path)] == ["other"], "one bad scene is left out"
    (tmp_path / "other/transforms.json").unlink()
    with pytest.raises(DataError, match=r"transforms\.json is not nerfstudio's: KeyError 'w'"):
        open_dl3dv(tmp_path)


# ScanNet

TABLE = [(1, "wall", "wall"), (2, "chair", "chair"), (7, "office table", "table"), (21, "rug", "floor mat"),
         (11, "bed", "bed"), (3, "floor", "floor"), (41, "ceiling", "ceiling"), (5, "couch", "sofa")]  # fmt: skip


def write_scannet(root: Path) -> None:
    """One scan of three frames: colour 80×60, depth 40×30 in millimetres, the second frame's tracking lost."""
    scan = root / "scene0000_00"
    for name in ("color", "depth", "pose", "intrinsic", "label-filt"):
        (scan / name).mkdir(parents=True)
    color = np.array([[100, 0, 41, 0], [0, 100, 31, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    depth = np.array([[50, 0, 20, 0], [0, 50, 15, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    np.savetxt(scan / "intrinsic/intrinsic_color.txt", color)
    np.savetxt(scan / "intrinsic/intrinsic_depth.txt", depth)
    for index in (0, 1, 10):
        cv2.imwrite(str(scan / "color" / f"{index}.jpg"), flat(20 * index, (60, 80)))
        v, u = np.mgrid[0:30, 0:40]
        cv2.imwrite(str(scan / "depth" / f"{index}.png"), (1000 + 40 * u + v).astype(np.uint16))
        pose = np.eye(4) if index != 1 else np.full((4, 4), -np.inf)
        pose[0, 3] = index if index != 1 else pose[0, 3]
        np.savetxt(scan / "pose" / f"{index}.txt", pose)
        labels = np.array([identity for identity, _, _ in TABLE] + [0, 99], np.uint16)
        cv2.imwrite(str(scan / "label-filt" / f"{index}.png"), np.tile(labels.repeat(8), (60, 1)))
    lines = ["id\traw_category\tcategory\tcount\tnyu40id\tnyu40class"]
    lines += [f"{identity}\t{raw}\t{raw}\t1\t1\t{name}" for identity, raw, name in TABLE]
    (root / LABELS).write_text("\n".join(lines) + "\n")


def test_scannet_gives_metric_depth_poses_and_the_papers_classes(tmp_path: Path) -> None:
    write_scannet(tmp_path)
    [scan] = open_scannet(tmp_path, truth=True)
    assert [int(scan.view(index).image.float().mean().round()) for index in range(3)] == [0, 20, 200]
    view = scan.view(2)
    assert view.world_from_camera is not None and float(view.world_from_camera[0, 3]) == 10
    assert scan.view(1).world_from_camera is None, "a lost frame has no pose"
    assert view.depth is not None and view.depth.shape == (60, 80)
    for row, column in ((30, 40), (7, 66), (52, 11)):  # by hand: the same ray in the depth camera
        u = 50 * (column + 0.5 - 41) / 100 + 20
        v = 50 * (row + 0.5 - 31) / 100 + 15
        assert float(view.depth[row, column]) == pytest.approx((1000 + 40 * int(u) + int(v)) / 1000, abs=1e-6)
    assert view.labels is not None
    named = [CLASSES[label] if label >= 0 else None for label in view.labels[0, ::8].tolist()]
    assert named == ["wall", "chair", "table", "other", "bed", "floor", "ceiling", "sofa", None, None]


def test_scannet_intrinsics_follow_the_stored_size(tmp_path: Path) -> None:
    """SensReader can make the colour images smaller; the file stays that of 1296 x 968."""
    write_scannet(tmp_path)
    file = tmp_path / "scene0000_00/intrinsic/intrinsic_color.txt"
    matrix = np.diag([1170.0, 1160, 1, 1])
    matrix[:2, 2] = (647, 484)
    np.savetxt(file, matrix)
    view = open_scannet(tmp_path, truth=True)[0].view(0)
    assert view.intrinsics is not None
    np.testing.assert_allclose(view.intrinsics[0], [1170 * 80 / 1296, 0, 647 * 80 / 1296], rtol=1e-5)
    np.testing.assert_allclose(view.intrinsics[1], [0, 1160 * 60 / 968, 484 * 60 / 968], rtol=1e-5)
    matrix[0, 2] = 320
    np.savetxt(file, matrix)
    with pytest.raises(DataError, match=r"intrinsic_color\.txt: the centre 320 is not that of images 80 pixels wide"):
        open_scannet(tmp_path, truth=True)[0].view(0)


def test_scannet_zero_pose_is_none(tmp_path: Path) -> None:
    write_scannet(tmp_path)
    np.savetxt(tmp_path / "scene0000_00/pose/0.txt", np.zeros((4, 4)))
    assert open_scannet(tmp_path, truth=True)[0].view(0).world_from_camera is None


def test_scannet_for_training_reads_pictures_alone(tmp_path: Path) -> None:
    write_scannet(tmp_path)
    for folder in ("depth", "pose", "intrinsic", "label-filt"):
        for file in (tmp_path / "scene0000_00" / folder).iterdir():
            file.unlink()
    view = open_scannet(tmp_path / "scene0000_00")[0].view(0)
    assert view.depth is None and view.labels is None and view.world_from_camera is None
    batch = SceneWindows(open_scannet(tmp_path), 0, 14, SamplingConfig((2,), 2, long_side=28)).batch(0, Share())
    assert batch.images.shape == (1, 2, 3, 28, 28)


def test_scannet_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no scans"):
        open_scannet(tmp_path)
    (tmp_path / "scene/color").mkdir(parents=True)
    with pytest.raises(DataError, match=r"color holds no \.jpg"):
        open_scannet(tmp_path)
    (tmp_path / "table.tsv").write_text("id\tname\n1\twall\n")
    with pytest.raises(DataError, match=r"table\.tsv is not ScanNet's table.*nyu40class"):
        read_classes(tmp_path / "table.tsv")
