"""RGB-D folders in the three known layouts, written here; and the real ones, checked by reprojection."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ff3r_model.core.geometry import invert_rigid, project, transform_points, unproject
from ff3r_model.frames.open_source import open_source
from ff3r_model.frames.prepare import prepare, prepare_depth
from ff3r_model.frames.rgbd import RgbdError, RgbdSource, is_rgbd
from ff3r_model.frames.source import SourceError

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
def test_layouts(layout: object, frames: int, fx: float | None, tmp_path: Path) -> None:
    folder = layout(tmp_path)  # type: ignore[operator]
    assert is_rgbd(folder)
    source = open_source(folder)
    assert isinstance(source, RgbdSource)
    assert source.count == frames  # TUM's second image has no pose within 20 ms
    read = list(source)
    assert [frame.stamp for frame in read] == sorted(frame.stamp for frame in read)
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
    (folder / "depth_imgs/0000_depth_raw.png").write_bytes(b"no image")
    with pytest.raises(RgbdError, match="pair"):
        list(RgbdSource(folder))
    (folder / "groundtruth_tum.txt").write_text("1 2 3")
    with pytest.raises(SourceError, match="eight numbers"):
        open_source(folder)


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
