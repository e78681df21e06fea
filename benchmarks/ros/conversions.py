"""Map → PointCloud2 and image message → tensor, against the usual ways and against a copy of the same bytes.

sensor_msgs_py and cv_bridge belong to a native ROS, so the usual ways are written out here as those packages do it.
`create_cloud` takes points as a plain array (the usual call), as a structured array, or as Python tuples.
"""

from __future__ import annotations

import array
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.lib.recfunctions import unstructured_to_structured
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header

from benchmarks.common import Report, interleaved_seconds, main, seconds
from ff3r_model.core.types import Gaussians
from ff3r_model.frames.prepare import prepare
from ff3r_ros.conversions.image_decoding import decode
from ff3r_ros.conversions.point_cloud import FIELDS, POINT_STEP, semantic_cloud

DTYPE = np.dtype([(name, np.int32 if name == "query_id" else np.float32) for name in FIELDS])
POINT_FIELDS = [
    PointField(
        name=name, offset=4 * i, datatype=PointField.INT32 if name == "query_id" else PointField.FLOAT32, count=1
    )
    for i, name in enumerate(FIELDS)
]


def create_cloud(header: Header, fields: Sequence[PointField], points: object) -> PointCloud2:
    """As sensor_msgs_py.point_cloud2.create_cloud: everything becomes a structured array, then bytes."""
    if not isinstance(points, np.ndarray):
        points = np.array(list(map(tuple, points)), dtype=DTYPE)  # type: ignore[call-overload]
    elif points.dtype.names is None:
        points = unstructured_to_structured(points, dtype=DTYPE)
    data = array.array("B")
    data.frombytes(memoryview(points).cast("B"))
    return PointCloud2(
        header=header, height=1, width=len(points), is_dense=True, is_bigendian=False, fields=fields,
        point_step=POINT_STEP, row_step=POINT_STEP * len(points), data=data,
    )  # fmt: skip


def columns(gaussians: Gaussians, ids: torch.Tensor, scores: torch.Tensor) -> list[np.ndarray]:
    """The seven columns as numpy arrays, colours packed the way the PCL tutorials do."""
    levels = (gaussians.colors.numpy() * 255 + 0.5).astype(np.uint32)
    rgb = ((levels[:, 0] << 16) | (levels[:, 1] << 8) | levels[:, 2]).view(np.float32)
    means = gaussians.means.numpy()
    return [*means.T, rgb, gaussians.confidences.numpy(), ids.numpy(), scores.numpy()]


def usual_cloud(gaussians: Gaussians, ids: torch.Tensor, scores: torch.Tensor) -> PointCloud2:
    """One plain array with a column per field."""
    return create_cloud(Header(), POINT_FIELDS, np.column_stack(columns(gaussians, ids, scores)))


def structured_cloud(gaussians: Gaussians, ids: torch.Tensor, scores: torch.Tensor) -> PointCloud2:
    """The fastest input of create_cloud."""
    points = np.empty(len(gaussians), DTYPE)
    for name, column in zip(FIELDS, columns(gaussians, ids, scores), strict=True):
        points[name] = column
    return create_cloud(Header(), POINT_FIELDS, points)


def tuple_cloud(gaussians: Gaussians, ids: torch.Tensor, scores: torch.Tensor) -> PointCloud2:
    """A list of tuples, as in create_cloud's documentation."""
    lists = [column.tolist() for column in columns(gaussians, ids, scores)]
    return create_cloud(Header(), POINT_FIELDS, list(zip(*lists, strict=True)))


def usual_tensor(message: Image) -> torch.Tensor:
    """cv_bridge's imgmsg_to_cv2(message, "bgr8"), to RGB, to a float tensor in [0, 1]."""
    raw = np.ndarray((message.height, message.step // 3, 3), np.uint8, buffer=message.data)
    same_order = message.encoding == "bgr8"
    bgr = np.ascontiguousarray(raw).copy() if same_order else cv2.cvtColor(raw, cv2.COLOR_RGB2BGR)
    rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return torch.from_numpy(rgb).permute(2, 0, 1).float().div(255).contiguous()


def usual_input(message: Image) -> torch.Tensor:
    """The same, at the network's size."""
    image = usual_tensor(message)[None]
    return torch.nn.functional.interpolate(image, size=(84, 112), mode="bilinear", antialias=True)[0]


def some_map(count: int) -> tuple[Gaussians, torch.Tensor, torch.Tensor]:
    """A map's Gaussians with best queries and scores."""
    gaussians = Gaussians(
        torch.randn(count, 3), torch.ones(count, 3), torch.zeros(count, 4), torch.rand(count, 1, 3),
        torch.ones(count), torch.rand(count), torch.zeros(count, 1),
    )  # fmt: skip
    return gaussians, torch.randint(-1, 9, (count,), dtype=torch.int32), torch.rand(count)


def measure_clouds(count: int, repeats: int, report: Report) -> None:
    """Figures `cloud_*`."""
    arguments = some_map(count)
    source, target = np.zeros(count * POINT_STEP, np.uint8), np.zeros(count * POINT_STEP, np.uint8)
    ours, usual, structured, copy = interleaved_seconds(
        [
            lambda: semantic_cloud(Header(), *arguments),
            lambda: usual_cloud(*arguments),
            lambda: structured_cloud(*arguments),
            lambda: np.copyto(target, source),
        ],
        repeats,
    )
    # By itself: a million tuples freed leave the memory that the others would get in pieces.
    tuples = seconds(lambda: tuple_cloud(*arguments), repeats)
    report.add("cloud_points", count)
    report.add("cloud_ms", ours * 1e3, "ms")
    report.add("cloud_speedup", usual / ours, "x", "against create_cloud of a plain array")
    report.add("cloud_speedup_structured", structured / ours, "x", "against create_cloud of a structured array")
    report.add("cloud_speedup_tuples", tuples / ours, "x", "against create_cloud of Python tuples")
    report.add("cloud_memcpy_ratio", ours / copy, "x", f"a copy of the same bytes takes {copy * 1e3:.1f} ms")


def measure_images(height: int, width: int, repeats: int, report: Report) -> None:
    """Figures `image_*`: until the network's input, and until a tensor of the image's own size."""
    for encoding in ("rgb8", "bgr8"):
        message = Image(height=height, width=width, encoding=encoding, step=3 * width)
        message.data.frombytes(np.random.default_rng(0).integers(0, 255, height * width * 3, np.uint8).tobytes())
        source = np.frombuffer(message.data, np.uint8)
        target = source.copy()
        ours, usual, frame, full, copy = interleaved_seconds(
            [
                lambda m=message: prepare(decode(m), None, 112, 14),
                lambda m=message: usual_input(m),
                lambda m=message: decode(m),
                lambda m=message: usual_tensor(m),
                lambda s=source, t=target: np.copyto(t, s),
            ],
            repeats,
        )  # type: ignore[misc]
        report.add(f"image_{encoding}_ms", ours * 1e3, "ms", f"{width}x{height} message to the network's input")
        report.add(f"image_{encoding}_speedup", usual / ours, "x", "against cv_bridge, torch, resize")
        report.add(f"image_{encoding}_frame_speedup", full / frame, "x", "to a tensor of full size (ours: bytes)")
        report.add(f"image_{encoding}_memcpy_ratio", frame / copy, "x", f"a copy takes {copy * 1e3:.2f} ms")


def measure(quick: bool, report: Report) -> None:
    """All figures."""
    measure_clouds(10_000 if quick else 1_000_000, 2 if quick else 5, report)
    measure_images(*((120, 160) if quick else (480, 640)), 3 if quick else 21, report)


if __name__ == "__main__":
    main("conversions", measure)
