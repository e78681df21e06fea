"""A map's settings and its scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ff3r_model.core.ranges import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, SHARE, Range, check_range
from ff3r_model.gaussians.voxelize import VoxelizedGaussians

NO_WINDOW = -1
"""Anchor of voxels that came from no known window; no window has this id."""
BANDS = (1, 4, 9, 16)
"""Harmonics of degrees 0 to 3."""


@dataclass(frozen=True)
class MapConfig:
    """Size and bounds of a map."""

    voxel_size: float = 0.05
    """ε: edge of a voxel, in the map's unit."""
    distance_weight: float = 1.0
    """λ, for Gaussians that come in without having been voxelized."""
    max_map_bytes: int = 512 * 2**20
    """Hard cap on everything the map holds: voxels, index, keyframes, the words' decoder."""
    max_keyframes: int = 10_000
    """Oldest poses are dropped beyond this."""
    bands: int = 1
    """Harmonics kept per voxel; 1 is the colour from no particular side (ours: the views of a voxel disagree)."""
    compact: bool = True
    """Features, harmonics and rotations in float16."""
    eviction_share: float = 0.05
    """Share of the capacity that an eviction frees, so that it is seldom needed."""
    evict_decay: float = 0.1
    """What a voxel loses of its log mass, in the order of eviction alone, per window that did not see it."""
    fade_margin: float = 0.1
    """Share of a measured depth, besides one voxel, that rays must reach past a voxel to speak against it."""
    fade_views: float = 2.0
    """How many trusted views more must speak against a voxel than for it: one view alone proves nothing."""
    fade_rate: float = 1.0
    """Nats of log mass that a voxel loses per view that speaks against it. Forgetting what weighs as much as n
    Gaussians takes log n views, however often it was seen."""
    initial_rows: int = 16_384

    def __post_init__(self) -> None:
        check_range(self, Range(1e-6, 1e6), "voxel_size")
        check_range(self, Range(0, 1e6), "distance_weight", "evict_decay", "fade_margin", "fade_views", "fade_rate")
        check_range(self, NOT_NEGATIVE, "max_keyframes")
        check_range(self, AT_LEAST_ONE, "max_map_bytes", "initial_rows")
        check_range(self, SHARE, "eviction_share")
        if self.bands not in BANDS:
            raise ValueError(f"bands must be one of {BANDS}, degrees 0 to 3 of harmonics, not {self.bands}")


@dataclass(frozen=True)
class ScaleInfo:
    """Whether lengths are metres, and how that is known."""

    metric: bool = False
    source: str = "none"
    factor: float = 1.0
    """Metres per unit that the map had before."""
    confidence: float = 0.0
    """Share, 0 to 1, of the windows that agree on it."""

    def __post_init__(self) -> None:
        check_range(self, POSITIVE, "factor")
        check_range(self, SHARE, "confidence")


def check_voxels(voxels: VoxelizedGaussians, config: MapConfig, channels: int) -> None:
    """Raise ValueError for voxels that do not belong into a map of this kind."""
    if not math.isclose(voxels.epsilon, config.voxel_size, rel_tol=1e-6):
        raise ValueError(f"voxels of edge {voxels.epsilon} do not fit a map of edge {config.voxel_size}")
    given, bands = voxels.gaussians.features.shape[1], voxels.gaussians.harmonics.shape[1]
    if given != channels or bands < config.bands:
        raise ValueError(
            f"Gaussians with {given} channels and {bands} harmonics do not fit a map with {channels} and {config.bands}"
        )
