"""The demo's verdict: what the independent subscriber received, against the ground truth of the synthetic room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ff3r_model.synthetic import Room
from ff3r_ros.camera.playback import CameraParameters, tour
from ff3r_ros.demo.checks import Verdict, check_masks, check_poses, default_queries, seen_surfaces

if TYPE_CHECKING:  # it loads ROS, and the truth is wanted before
    from ff3r_ros.demo.monitor import DemoMonitor


@dataclass(frozen=True)
class Truth:
    """The ground truth of the synthetic room, known in advance."""

    room: Room
    camera_height: float
    """Metres above the floor."""
    field_of_view: float
    """Degrees, horizontal."""
    queries: list[str]


def truth_of(seed: int, field_of_view: float) -> Truth:
    """Of the room and the tour that the camera node makes of a seed."""
    room, poses = tour(CameraParameters(seed=seed))
    return Truth(room, float(poses[0, 2, 3]), field_of_view, default_queries(room))


def verdict_of(monitor: DemoMonitor, truth: Truth | None) -> Verdict:
    """Reception always; where the truth is known, poses and masks too."""
    verdict = Verdict()
    for name, count in (("clouds", monitor.clouds), ("poses", monitor.poses), ("masks", monitor.masks)):
        verdict.lines.append(f"{count} {name} that were not empty")
        if not count:
            verdict.failures.append(f"no {name} received, or only empty ones")
    scale = "metric" if monitor.metric else "unscaled"
    verdict.lines.append(f"the newest cloud has {monitor.cloud_points} points; the map is {scale}")
    if truth is None:
        return verdict
    world_from_map = check_poses(monitor.estimated, monitor.truth, verdict)
    if world_from_map is not None and monitor.masks:
        seen = np.array([monitor.truth[stamp] for stamp in sorted(monitor.estimated.keys() & monitor.truth.keys())])
        surfaces = seen_surfaces(truth.room, seen, truth.field_of_view)
        check_masks(monitor.voxels, monitor.voxel_size, world_from_map, surfaces, verdict, monitor.metric)
    return verdict
