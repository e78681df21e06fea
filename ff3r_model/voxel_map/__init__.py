"""The bounded semantic voxel map, its text queries and its occupancy grids."""

from ff3r_model.voxel_map.config import NO_WINDOW, MapConfig, ScaleInfo
from ff3r_model.voxel_map.file import MapFileError
from ff3r_model.voxel_map.queries import Mask, QueryConfig, QueryRejected, QuerySet
from ff3r_model.voxel_map.voxel_map import VoxelMap

__all__ = [
    "NO_WINDOW", "MapConfig", "MapFileError", "Mask", "QueryConfig", "QueryRejected", "QuerySet", "ScaleInfo",
    "VoxelMap",
]  # fmt: skip
