"""Semantic Gaussians → sensor_msgs/PointCloud2, written column by column into the message's own memory."""

from __future__ import annotations

import array

import torch
from jaxtyping import Float, Int
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header
from torch import Tensor

from ff3r_model.core.types import Gaussians, rgb_from_harmonics
from ff3r_model.voxel_map.queries import NO_QUERY

FIELDS = ("x", "y", "z", "rgb", "confidence", "query_id", "score")
"""Four bytes each, without padding. rgb is PCL's: bytes b g r 0, declared FLOAT32. query_id is INT32, -1 for none."""
POINT_STEP = 4 * len(FIELDS)
_BLOCK = 2**16
"""Points written at a time, so that a CPU's cache holds what lies between a colour and its bytes."""


def semantic_cloud(
    header: Header,
    gaussians: Gaussians,
    query_ids: Int[Tensor, " n"] | None = None,
    scores: Float[Tensor, " n"] | None = None,
) -> PointCloud2:
    """The Gaussians' centres as a dense, unorganised cloud with the fields of `FIELDS`.

    `query_ids` and `scores` are those of `best_queries`: -1 and 0 for a point that answers no query, and for all points
    where they are not given.
    Works on the Gaussians' device and copies to the message once.
    """
    count = len(gaussians)
    data = array.array("B", b"\0") * (count * POINT_STEP)
    if count:
        rows = torch.frombuffer(data, dtype=torch.float32).view(count, len(FIELDS))
        on_cpu = gaussians.means.device.type == "cpu"
        table = rows if on_cpu else torch.empty(rows.shape, device=gaussians.means.device)
        step = _BLOCK if on_cpu else count
        for start in range(0, count, step):
            _fill(table, slice(start, start + step), gaussians, query_ids, scores)
        if not on_cpu:
            rows.copy_(table)
    cloud = PointCloud2(
        header=header,
        height=1,
        width=count,
        fields=[_field(index, name) for index, name in enumerate(FIELDS)],
        is_bigendian=False,
        point_step=POINT_STEP,
        row_step=count * POINT_STEP,
        is_dense=True,
    )
    cloud.data = data  # the constructor would copy it
    return cloud


def _fill(
    table: Float[Tensor, "n 7"],
    block: slice,
    gaussians: Gaussians,
    query_ids: Int[Tensor, " n"] | None,
    scores: Float[Tensor, " n"] | None,
) -> None:
    rows = table[block]
    integers = rows.view(torch.int32)
    rows[:, 0:3] = gaussians.means[block]
    integers[:, 3] = pack_rgb(rgb_from_harmonics(gaussians.harmonics[block, 0]).clamp_(0, 1))
    rows[:, 4] = gaussians.confidences[block]
    integers[:, 5] = NO_QUERY if query_ids is None else query_ids[block]
    rows[:, 6] = 0.0 if scores is None else scores[block]


def pack_rgb(colors: Float[Tensor, "n 3"]) -> Int[Tensor, " n"]:
    """0x00RRGGBB of colours in [0, 1]."""
    red, green, blue = (colors * 255).add_(0.5).to(torch.int32).unbind(1)
    return (red * 2**16).add_(green, alpha=2**8).add_(blue)


def _field(index: int, name: str) -> PointField:
    datatype = PointField.INT32 if name == "query_id" else PointField.FLOAT32
    return PointField(name=name, offset=4 * index, datatype=datatype, count=1)
