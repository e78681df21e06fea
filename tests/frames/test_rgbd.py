"""RGB-D folders in the three known layouts, written here; and the real ones, checked by reprojection."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid, project, transform_points, unproject
from ff3r_model.frames.open_source import open_source
from ff3r_model.frames.prepare import prepare, prepare_depth
from ff3r_model.frames.rgbd import RgbdError, RgbdSource, is_rgbd
from ff3r_model.frames.source import SourceError
from ff3r_model.synthetic import RenderedViews, make_room, make_trajectory, pinhole, render

QUATERNION = Rotation.from_euler("xyz", [10, 20, 30], degrees=True)


def write_pair(color: Path, depth: Path, steps: int) -> None:
    color.parent.mkdir(exist_ok=True)
    depth.parent.mkdir(exist_ok=True)
    image = np.zeros((6, 8, 3), np.uint8)
    image[..., 2] = 200  # BGR: red
    cv2.imwrite(str(color), image)
    values = np.full((6, 8), steps, np.uint16)
    values[0, 0] = 65535
    cv2.imwrite(str(depth), values)


def tum_pose(stamp: float) -> str:
    return f"{stamp} 1 2 3 " + " ".join(str(value) for value in QUATERNION.as_quat())


def seven_scenes(folder: Path) -> Path:
    for number in (5, 0):
        stem = folder / f"frame-{number:06d}"
        write_pair(Path(f"{stem}.color.png"), Path(f"{stem}.depth.png"), 1500)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = QUATERNION.as_matrix() * 1.0005, (1, 2, 3)
        np.savetxt(f"{stem}.pose.txt", pose)
    (folder / "gravity-direction.txt").write_text("0\n2\n0\n")
    return folder


def tum(folder: Path) -> Path:
    for name, offset in (("a", 0.0), ("b", 1.0)):
        write_pair(folder / f"rgb/{name}.png", folder / f"depth/{name}.png", 7500)
        with (folder / "rgb.txt").open("a") as lines:
            lines.write(f"# comment\n{10 + offset} rgb/{name}.png\n")
        with (folder / "depth.txt").open("a") as lines:
            lines.write(f"{10.01 + offset} depth/{name}.png\n")
    (folder / "groundtruth.txt").write_text("\n".join(tum_pose(stamp) for stamp in (9.0, 10.005, 11.5)))
    (folder / "intrinsics.txt").write_text("500 501 4 3")
    return folder


def cube_slam(folder: Path) -> Path:
    for index in range(2):
        write_pair(folder / f"raw_imgs/{index:04d}_rgb_raw.jpg", folder / f"depth_imgs/{index:04d}_depth_raw.png", 7500)
    (folder / "groundtruth_tum.txt").write_text("\n".join(tum_pose(stamp) for stamp in (10.0, 11.0)))
    return folder


@pytest.mark.parametrize(
    ("layout", "frames", "fx"), [(seven_scenes, 2, 585 * 8 / 640), (tum, 1, 500.0), (cube_slam, 2, None)]
)
def test_layouts(
    layout: object, frames: int, fx: float | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = layout(tmp_path)  # type: ignore[operator]
    assert is_rgbd(folder)
    source = open_source(folder)
    assert isinstance(source, RgbdSource)
    assert source.count == frames  # TUM's second image has no pose within 20 ms
    read = list(source)
    assert [frame.stamp for frame in read] == sorted(frame.stamp for frame in read)
    assert "which no poses confirm; --depth-unit says another" in caplog.text, "the camera stands still"
    frame = read[0]
    assert frame.depth is not None
    assert frame.odom_from_camera is not None
    assert frame.image[..., 0].float().mean() > 190
    assert frame.image[..., 2].float().mean() < 10
    assert float(frame.depth[3, 3]) == pytest.approx(1.5)
    assert float(frame.depth[0, 0]) == 0
    np.testing.assert_allclose(frame.odom_from_camera[:3, :3], QUATERNION.as_matrix(), atol=1e-6)
    assert frame.odom_from_camera[:3, 3].tolist() == [1, 2, 3]
    assert (frame.intrinsics is None) == (fx is None)
    assert fx is None or float(frame.intrinsics[0, 0]) == fx  # type: ignore[index]
    up = np.array([0, -1, 0]) if layout is seven_scenes else np.array([0, 0, 1])
    assert frame.up is not None
    np.testing.assert_allclose(frame.up, QUATERNION.inv().apply(up), atol=1e-6)


def test_what_is_no_sequence_says_so(tmp_path: Path) -> None:
    assert not is_rgbd(tmp_path)
    assert not is_rgbd(tmp_path / "missing")
    with pytest.raises(RgbdError, match="no RGB-D sequence"):
        RgbdSource(tmp_path)
    folder = cube_slam(tmp_path)
    (folder / "intrinsics.txt").write_text("500 500 x 1")
    with pytest.raises(RgbdError, match=r"intrinsics\.txt"):
        RgbdSource(folder)
    (folder / "intrinsics.txt").write_text("500 500 4 3")
    (folder / "groundtruth_tum.txt").write_text("1 2 3")
    with pytest.raises(SourceError, match="eight numbers"):
        open_source(folder)


# A synthetic room, recorded in the layouts

VIEWS, HEIGHT, WIDTH = 8, 96, 128


@pytest.fixture(scope="module")
def recording() -> tuple[RenderedViews, Tensor]:
    """Views of a room along a path, and world_from_camera."""
    room = make_room(3)
    poses = make_trajectory(room, 3, VIEWS, "robot", 0.06)
    return render(room, poses, pinhole(HEIGHT, WIDTH).expand(VIEWS, 3, 3), HEIGHT, WIDTH), poses


def write_room(folder: Path, recording: tuple[RenderedViews, Tensor], layout: str, steps: float) -> Path:
    """Depth in `steps` per metre."""
    views, poses = recording
    lines: dict[str, list[str]] = {"rgb": [], "depth": [], "groundtruth": []}
    for index in range(VIEWS):
        color, depth = f"rgb/{index}.png", f"depth/{index}.png"
        if layout == "7-Scenes":
            color, depth = (f"frame-{index:06}.{kind}.png" for kind in ("color", "depth"))
            np.savetxt(folder / f"frame-{index:06}.pose.txt", poses[index])
        for path, values in ((color, views.images[index]), (depth, (views.depth[index] * steps).round().int())):
            (folder / path).parent.mkdir(exist_ok=True)
            Image.fromarray(values.numpy().astype(np.uint8 if path == color else np.uint16)).save(folder / path)
        stamp = 10 + index / 10
        quaternion = Rotation.from_matrix(poses[index, :3, :3].double().numpy()).as_quat()
        lines["rgb"].append(f"{stamp} {color}")
        lines["depth"].append(f"{stamp + 0.005} {depth}")
        lines["groundtruth"].append(" ".join(map(str, [stamp, *poses[index, :3, 3].tolist(), *quaternion])))
    matrix = pinhole(HEIGHT, WIDTH)
    np.savetxt(folder / "camera-intrinsics.txt", matrix)
    for name, rows in lines.items() if layout == "TUM" else ():
        (folder / f"{name}.txt").write_text("\n".join(rows))
    return folder


@pytest.fixture
def tum_room(tmp_path: Path, recording: tuple[RenderedViews, Tensor]) -> Path:
    return write_room(tmp_path, recording, "TUM", 5000)


@pytest.mark.parametrize(("layout", "steps", "wrong"), [("TUM", 5000, 1000), ("7-Scenes", 1000, 5000)])
def test_unit_of_depth(
    layout: str, steps: int, wrong: int, tmp_path: Path, recording: tuple[RenderedViews, Tensor]
) -> None:
    views, poses = recording
    for frame, depth, pose in zip(
        open_source(write_room(tmp_path, recording, layout, steps)), views.depth, poses, strict=True
    ):
        assert frame.depth is not None and frame.odom_from_camera is not None
        torch.testing.assert_close(frame.depth, depth, atol=1e-3, rtol=0)
        torch.testing.assert_close(frame.odom_from_camera, pose, atol=1e-5, rtol=0)
    write_room(tmp_path, recording, layout, wrong)
    factor = rf"\d\.\d times too {'small' if layout == 'TUM' else 'large'}"
    with pytest.raises(
        RgbdError, match=rf"depth in steps of .* m \({layout}\) is {factor} for the poses.*--depth-unit {1 / wrong:g}\)"
    ):
        open_source(tmp_path)
    (tmp_path / "camera-intrinsics.txt").rename(tmp_path / "unused.txt")  # a typical camera will do for the test
    with pytest.raises(RgbdError, match="for the poses"):
        open_source(tmp_path)
    (frame, *_) = open_source(tmp_path, depth_unit=1 / wrong)
    torch.testing.assert_close(frame.depth, views.depth[0], atol=1e-3, rtol=0)
    with pytest.raises(RgbdError, match=r"positive metres per step .*, not -1"):
        open_source(tmp_path, depth_unit=-1.0)


def test_damaged_and_missing_files_are_left_out(tum_room: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tum_room / "rgb/2.png").unlink()
    for name in ("depth/4.png", "rgb/6.png"):
        (tum_room / name).write_bytes((tum_room / name).read_bytes()[:300])
    stamps = [round(frame.stamp / 1e8) for frame in open_source(tum_room)]
    assert stamps == [100, 101, 103, 105, 107]
    assert all(name in caplog.text for name in ("2.png (not there)", "depth/4.png", "rgb/6.png"))


def test_depth_of_another_resolution(tum_room: Path, recording: tuple[RenderedViews, Tensor]) -> None:
    with Image.open(tum_room / "depth/0.png") as image:
        half, narrow = np.asarray(image)[::2, ::2], np.asarray(image)[:, ::2]
    Image.fromarray(half).save(tum_room / "depth/0.png")
    Image.fromarray(narrow).save(tum_room / "depth/1.png")
    source = RgbdSource(tum_room)
    frame = source.read(source.entries[0])
    assert frame.depth is not None
    torch.testing.assert_close(frame.depth[::2, ::2], recording[0].depth[0][::2, ::2], atol=1e-3, rtol=0)
    with pytest.raises(RgbdError, match=r"128x96 and 64x96 differ in shape"):
        source.read(source.entries[1])
    assert len(list(source)) == VIEWS - 1


def test_lists_out_of_order(tum_room: Path) -> None:
    for name in ("rgb", "depth", "groundtruth"):
        path = tum_room / f"{name}.txt"
        path.write_text("\n".join(reversed(path.read_text().splitlines())))
    stamps = [frame.stamp for frame in open_source(tum_room)]
    assert len(stamps) == VIEWS and stamps == sorted(stamps)


def test_depth_too_far_off_in_time(tum_room: Path) -> None:
    rows = [line.split() for line in (tum_room / "depth.txt").read_text().splitlines()]
    (tum_room / "depth.txt").write_text("\n".join(f"{float(stamp) + 0.035} {name}" for stamp, name in rows))
    with pytest.raises(RgbdError, match=r"within 20 ms: the nearest depth 40 ms away and the nearest pose 0 ms away"):
        open_source(tum_room)


def test_without_groundtruth_the_colour_images_are_read(tum_room: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tum_room / "groundtruth.txt").unlink()
    frames = list(open_source(tum_room))
    assert [round(frame.stamp / 1e8) for frame in frames] == list(range(100, 108))
    assert all(frame.depth is None and frame.odom_from_camera is None for frame in frames)
    assert "has no groundtruth.txt: its colour images alone are read" in caplog.text


@pytest.mark.parametrize("pose", [np.full((4, 4), np.nan), np.full((4, 4), -np.inf), np.zeros((4, 4)), None])
def test_lost_poses(
    pose: np.ndarray | None,
    tmp_path: Path,
    recording: tuple[RenderedViews, Tensor],
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = write_room(tmp_path, recording, "7-Scenes", 1000) / "frame-000003.pose.txt"
    file.write_text("") if pose is None else np.savetxt(file, pose)
    assert len(list(open_source(tmp_path))) == VIEWS - 1
    assert "left out 1 frames: frame-000003.pose.txt (no finite pose)" in caplog.text


def test_intrinsics_of_other_images(tum_room: Path) -> None:
    np.savetxt(tum_room / "camera-intrinsics.txt", pinhole(HEIGHT * 2, WIDTH * 2))
    with pytest.raises(RgbdError, match=r"the centre \(128, 96\) is not that of 128x96 images"):
        open_source(tum_room)


def test_depth_is_picked_where_the_prepared_pixel_lies() -> None:
    """A depth that codes its own pixel shows which one each prepared pixel took."""
    v, u = torch.meshgrid(torch.arange(60.0), torch.arange(100.0), indexing="ij")
    image = torch.zeros(60, 100, 3, dtype=torch.uint8)
    _, _, crop = prepare(image, None, 28, 14)
    picked = prepare_depth(1000 * v + u + 1, crop)
    assert picked.shape == (crop.height, crop.width)
    for row, column in ((0, 0), (5, 20), (13, 27)):
        centre = crop.to_original(torch.tensor([column + 0.5, row + 0.5]))
        assert float(picked[row, column]) == 1000 * int(centre[1]) + int(centre[0]) + 1


@pytest.mark.parametrize("name", ["sevenscenes_redkitchen", "tum_fr3_cabinet"])
def test_real_depth_and_poses_fit_each_other(name: str, real_data: Path) -> None:
    if not (real_data / name).is_dir():
        pytest.skip(f"{real_data / name} does not exist")
    source = RgbdSource(real_data / name)
    a, b = (source.read(source.entries[index]) for index in (20, 21))
    assert a.depth is not None and b.depth is not None and a.intrinsics is not None
    assert a.odom_from_camera is not None and b.odom_from_camera is not None
    points = unproject(a.depth, a.intrinsics).flatten(0, 1)[a.depth.flatten() > 0]
    seen = transform_points(invert_rigid(b.odom_from_camera) @ a.odom_from_camera, points)
    pixels, z = project(seen, a.intrinsics)
    column, row = pixels.long().unbind(-1)
    falls = (z > 0) & (column >= 0) & (column < 640) & (row >= 0) & (row < 480)
    measured = b.depth[row[falls], column[falls]]
    error = (measured - z[falls]).abs()[measured > 0]
    assert float(error.median()) < 0.03
