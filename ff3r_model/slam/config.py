"""How windows become one map."""

from __future__ import annotations

from dataclasses import dataclass, field

from ff3r_model.core.ranges import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, SHARE, check_range
from ff3r_model.core.types import WindowQuality
from ff3r_model.slam.alignment import AlignConfig
from ff3r_model.slam.keyframe_archive import ArchiveConfig
from ff3r_model.slam.place_recognition import LoopConfig
from ff3r_model.slam.pose_graph import GraphConfig
from ff3r_model.slam.reference.gravity import GravityConfig
from ff3r_model.slam.reference.scale import ScaleConfig
from ff3r_model.voxel_map.config import MapConfig


@dataclass(frozen=True)
class MappingConfig:
    """Everything between a prediction and the map."""

    align: AlignConfig = field(default_factory=AlignConfig)
    map: MapConfig = field(default_factory=MapConfig)
    """`max_map_bytes` caps all submaps, graphs and the archive together."""
    graph: GraphConfig = field(default_factory=GraphConfig)
    archive: ArchiveConfig = field(default_factory=ArchiveConfig)
    loops: LoopConfig = field(default_factory=LoopConfig)
    camera_height: float | None = None
    """Metres of the camera above the floor; makes the map metric. None: the map stays unscaled."""
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    """When depth images, odometry or the camera's height make the map metric."""
    gravity: GravityConfig = field(default_factory=GravityConfig)
    """When the map is turned upright."""
    ground_weight: float = 0.5
    """How far each window is moved towards standing upright, where gravity is known, and on the floor at
    `camera_height`, once the map is metric; 0 to 1. Holds size, tilt and height, which drift from window to window
    otherwise. 0: not at all."""
    max_pose_error: float = 15.0
    """Degrees by which relative poses of a window may be off, as it claims itself, for it to be trusted: others are
    mapped, and enter neither occupancy grids nor scale nor floor. Windows that claim nothing are trusted."""
    drop_uncertain: float = 0.2
    """Share of a window's pixels, the least confident, that never reach the map."""
    patience: int = 2
    """Windows in a row that may be left out because nothing of the map shows their place; the next begins a new submap.
    One that shares no keyframe with the map begins one at once."""
    archive_share: float = 0.1
    """Of `max_map_bytes`, for what is remembered of the frames."""
    graph_share: float = 0.03
    """Of `max_map_bytes`, for the active submap's graph; fewer windows than `graph.max_windows` where that is less."""
    keyframe_share: float = 0.03
    """Of `max_map_bytes`, for the poses of each submap; fewer than `map.max_keyframes` where that is less."""
    inactive_share: float = 0.5
    """Most that submaps which are not active may hold together, of what is left for voxels; beyond, theirs go."""
    max_submaps: int = 8
    """Beyond this the inactive one of the fewest voxels is forgotten, which is logged."""

    def __post_init__(self) -> None:
        check_range(self, POSITIVE, "camera_height", "max_pose_error")
        check_range(
            self, SHARE,
            "ground_weight", "drop_uncertain", "archive_share", "graph_share", "keyframe_share", "inactive_share",
        )  # fmt: skip
        check_range(self, NOT_NEGATIVE, "patience")
        check_range(self, AT_LEAST_ONE, "max_submaps")

    def distrust(self, quality: WindowQuality | None) -> str:
        """Why a window is not trusted; empty where it is."""
        if quality is None or quality.pose_error <= self.max_pose_error:
            return ""
        return f"not trusted: poses may be off by {quality.pose_error:.0f} degrees, {self.max_pose_error:g} is allowed"
