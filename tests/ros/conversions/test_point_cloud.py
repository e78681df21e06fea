"""The cloud writer against struct, element by element, and against sensor_msgs_py where it is installed."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from ff3r_model.core.types import SH_C0, Gaussians
from ff3r_model.voxel_map.queries import NO_QUERY
from ff3r_ros.conversions.point_cloud import FIELDS, POINT_STEP, semantic_cloud


def some_gaussians(count: int, seed: int = 0) -> tuple[Gaussians, np.ndarray]:
    """Gaussians and their colours as bytes."""
    generator = torch.Generator().manual_seed(seed)
    rgb = torch.randint(0, 256, (count, 3), generator=generator)
    return Gaussians(
        means=torch.randn(count, 3, generator=generator),
        scales=torch.ones(count, 3),
        quaternions=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        harmonics=((rgb / 255 - 0.5) / SH_C0)[:, None, :],
        opacities=torch.ones(count),
        confidences=torch.rand(count, generator=generator),
        features=torch.zeros(count, 4),
    ), rgb.numpy()


def test_every_byte() -> None:
    gaussians, rgb = some_gaussians(57)
    ids, scores = torch.randint(-1, 2**20, (57,)), torch.rand(57)
    cloud = semantic_cloud(Header(frame_id="map"), gaussians, ids, scores)
    expected = b"".join(
        struct.pack(
            "<3f4Bfif", *gaussians.means[i].tolist(), *rgb[i][::-1].tolist(), 0,
            gaussians.confidences[i].item(), ids[i].item(), scores[i].item(),
        )
        for i in range(57)
    )  # fmt: skip
    assert bytes(cloud.data) == expected
    assert (cloud.width, cloud.height, cloud.point_step, cloud.row_step) == (57, 1, 28, 57 * 28)
    assert [(field.name, field.offset) for field in cloud.fields] == list(zip(FIELDS, range(0, 28, 4), strict=True))
    assert cloud.fields[5].datatype == PointField.INT32 and cloud.fields[3].datatype == PointField.FLOAT32


def test_without_queries() -> None:
    cloud = semantic_cloud(Header(), some_gaussians(3)[0])
    rows = np.frombuffer(cloud.data, np.int32).reshape(3, len(FIELDS))
    assert (rows[:, 5] == NO_QUERY).all() and (rows[:, 6] == 0).all()


def test_empty_map() -> None:
    cloud = semantic_cloud(Header(), some_gaussians(0)[0])
    assert cloud.width == 0 and len(cloud.data) == 0 and cloud.point_step == POINT_STEP


def test_sensor_msgs_py_reads_it() -> None:
    point_cloud2 = pytest.importorskip("sensor_msgs_py.point_cloud2", reason="comes with a native ROS only")
    gaussians, _ = some_gaussians(20)
    cloud: PointCloud2 = semantic_cloud(Header(), gaussians, torch.arange(20), torch.rand(20))
    points = point_cloud2.read_points(cloud)
    assert np.array_equal(points["x"], gaussians.means[:, 0].numpy())
    assert np.array_equal(points["query_id"], np.arange(20))
