"""The dataclasses that the stages exchange, from camera frames to map updates.

Conventions: `camera_from_world` transforms, OpenCV camera axes (x right, y down, z forward),
quaternions wxyz, pixel centres at integer + 0.5. Lengths are "window units" until a map has a scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

MIN_VIEWS = 2
MAX_VIEWS = 64
DEPTH_CONFIDENCE_WEIGHT = 1.0
"""Exponent of the depth's confidence in the voxel weights (ours): equation 7's C is the Gaussian head's logit plus
this times the log of the depth's confidence, so that a point the depth head doubts counts less in its voxel."""


@dataclass(frozen=True)
class Frame:
    """One camera image: RGB, with the time it was taken and, where known, its intrinsics (pixels)."""

    image: UInt8[Tensor, "height width 3"]
    stamp: int
    """Nanoseconds."""
    intrinsics: Float[Tensor, "3 3"] | None = None
    """Of the undistorted image as given; None where nobody knows them."""
    camera_name: str = "camera"
    """Which camera; on a robot the TF frame of its optical axes."""
    depth: Float[Tensor, "height width"] | None = None
    """z in metres, registered to the image; 0 where unknown. None without a depth sensor."""
    odom_from_camera: Float[Tensor, "4 4"] | None = None
    """Pose of the camera (optical axes, metres) in a frame that never jumps: odometry, or TF. None where unknown."""
    up: Float[Tensor, " 3"] | None = None
    """Unit vector against gravity in the camera's axes, from TF or an IMU. None where unknown."""


@dataclass(frozen=True)
class Window:
    """The 2 to 64 views that the network sees at once, all of one size."""

    images: Float[Tensor, "views 3 height width"]
    """RGB in [0, 1], sides multiples of the network's patch size."""
    keyframes: tuple[int, ...]
    """Ids that stay with a frame from window to window; windows overlap in the ids they share."""
    stamps: tuple[int, ...]
    """Nanoseconds, one per view."""
    intrinsics: Float[Tensor, "views 3 3"] | None = None
    """Known intrinsics in the pixels of `images`, or None."""
    depth: Float[Tensor, "views height width"] | None = None
    """Measured z in metres, 0 where unknown; None where no view has any."""
    odom_from_camera: Float[Tensor, "views 4 4"] | None = None
    """As in Frame, NaN for views without one; None where no view has one."""
    up: Float[Tensor, "views 3"] | None = None
    """As in Frame, NaN for views without one; None where no view has one."""
    pictures: UInt8[Tensor, "views rows columns"] | None = None
    """What `images` show, grey and sharper than the network sees it, for features; None where nobody kept it."""

    def __post_init__(self) -> None:
        views = self.images.shape[0]
        if not MIN_VIEWS <= views <= MAX_VIEWS:
            raise ValueError(f"a window holds {MIN_VIEWS} to {MAX_VIEWS} views, not {views}")

    def select(self, views: Sequence[int]) -> Window:
        """These views alone, in this order. Raises ValueError for fewer than a window holds."""
        index = list(views)

        def chosen(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[index]

        return Window(
            images=self.images[index],
            keyframes=tuple(self.keyframes[i] for i in index),
            stamps=tuple(self.stamps[i] for i in index),
            intrinsics=chosen(self.intrinsics),
            depth=chosen(self.depth),
            odom_from_camera=chosen(self.odom_from_camera),
            up=chosen(self.up),
            pictures=chosen(self.pictures),
        )


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras without distortion."""

    camera_from_world: Float[Tensor, "views 4 4"]
    intrinsics: Float[Tensor, "views 3 3"]


@dataclass(frozen=True)
class Gaussians:
    """A set of 3D Gaussians, each with a language feature. All attributes are activated values."""

    means: Float[Tensor, "n 3"]
    scales: Float[Tensor, "n 3"]
    """Standard deviations along the Gaussian's own axes, in the unit of `means`."""
    quaternions: Float[Tensor, "n 4"]
    """world_from_gaussian, wxyz, unit norm."""
    harmonics: Float[Tensor, "n bands 3"]
    """Spherical harmonics of RGB, as gsplat and 3DGS PLY files have them; bands = (degree + 1)²."""
    opacities: Float[Tensor, " n"]
    confidences: Float[Tensor, " n"]
    """C of the paper's equation 7: larger is more certain, no fixed range."""
    features: Float[Tensor, "n channels"]
    """Compact semantic features; `TextSpace` relates them to words."""

    def __len__(self) -> int:
        return self.means.shape[0]

    def select(self, index: Tensor) -> Gaussians:
        """The Gaussians at `index` (a mask or integer indices)."""
        return Gaussians(**{name: getattr(self, name)[index] for name in self.__dataclass_fields__})

    @property
    def colors(self) -> Float[Tensor, "n 3"]:
        """RGB in [0, 1] seen from no particular side: the constant band alone."""
        return rgb_from_harmonics(self.harmonics[:, 0]).clamp(0, 1)


SH_C0 = 0.28209479177387814
"""The constant spherical harmonic."""


def rgb_from_harmonics(constant: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """RGB of the constant band of spherical harmonics, not clamped to [0, 1]."""
    return constant * SH_C0 + 0.5


def harmonics_from_rgb(rgb: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The constant band of spherical harmonics of a colour that is the same from all sides."""
    return (rgb - 0.5) / SH_C0


@dataclass(frozen=True)
class SparsePoints:
    """Triangulated points of a window, and where its views saw them."""

    positions: Float[Tensor, "points 3"]
    """In the window's frame and unit, as the prediction's cameras."""
    point: Int[Tensor, " n"]
    """Of each observation, like what follows: which point,"""
    view: Int[Tensor, " n"]
    """which view of the window,"""
    feature: Int[Tensor, " n"]
    """which of the keyframe's features: windows that share a keyframe share its numbers, and so the point,"""
    pixels: Float[Tensor, "n 2"]
    """and where (u, v), in the pixels of the window's images."""
    descriptors: UInt8[Tensor, "n 128"] | None = None
    """Root-SIFT of the features, quantised; None where nobody needs them any more."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        held = (self.positions, self.point, self.view, self.feature, self.pixels, self.descriptors)
        return sum(each.nbytes for each in held if each is not None)

    def of_views(self, views: Int[Tensor, " chosen"]) -> SparsePoints:
        """What some of the views saw, which count from 0 in this order; the points keep their numbers."""
        place = torch.full((1 + int(torch.cat([self.view, views]).max()),), -1)
        place[views] = torch.arange(len(views))
        view = place[self.view]
        seen = view >= 0
        descriptors = None if self.descriptors is None else self.descriptors[seen]
        return SparsePoints(
            self.positions, self.point[seen], view[seen], self.feature[seen], self.pixels[seen], descriptors
        )


@dataclass(frozen=True)
class WindowQuality:
    """How the cameras of a window were found, and how far they may be off."""

    pose_error: float
    """Degrees that relative poses are claimed to be off by: of rotation or of the translation's direction, whichever
    is more, on average over all pairs of views."""
    registered: tuple[bool, ...]
    """Views whose cameras tracks of features determine; others follow optical flow or the network."""
    reprojection: float
    """Median distance between points and where they were seen, pixels of the pictures."""
    parallax: float
    """Median angle, degrees, between a point's views from most different sides."""
    pose_covariance: Float[Tensor, "views 6 6"]
    """Of each camera's translation (window units) and rotation (radians), about its own axes and relative to the first
    registered one, whose own is 0, the window's size held; NaN where not registered."""
    focal: float
    """Of the pictures' long side, as it was taken for."""
    focal_sigma: float
    """Of its logarithm; 0 where it was given."""
    elsewhere: tuple[bool, ...] = ()
    """Views that many features tie to each other and hardly any to a registered one: they show another place."""


@dataclass(frozen=True)
class Prediction:
    """Cameras, depth and Gaussians of a window, in the window's own frame: the first camera's, unscaled."""

    cameras: Cameras
    depth: Float[Tensor, "views height width"]
    """z in the camera's frame."""
    depth_confidence: Float[Tensor, "views height width"]
    gaussians: Gaussians
    """One per pixel, view-major: n = views · height · width."""
    descriptors: Float[Tensor, "views channels"] | None = None
    """Unit vectors that resemble each other where two views show one place."""
    keyframes: tuple[int, ...] | None = None
    """Ids of the views, where the engine's memory took only some of the window's; None: all of them, in order."""
    points_seen: SparsePoints | None = None
    """What tracks of features triangulate; None where nobody tracked or nothing could be."""
    quality: WindowQuality | None = None
    """None where nobody measured it."""
    metres_per_unit: float | None = None
    """By a network that sees metres in one image; None where it was not asked."""

    @property
    def points(self) -> Float[Tensor, "views height width 3"]:
        """The Gaussians' centres, arranged as the pixels they came from."""
        return self.gaussians.means.view(*self.depth.shape, 3)


@dataclass(frozen=True)
class Similarity:
    """target_from_source: y = scale · rotation @ x + translation."""

    scale: float = 1.0
    rotation: Float[Tensor, "3 3"] = field(default_factory=lambda: torch.eye(3))
    translation: Float[Tensor, " 3"] = field(default_factory=lambda: torch.zeros(3))

    def double(self) -> Similarity:
        """The same in float64, on the CPU."""
        return Similarity(self.scale, self.rotation.double().cpu(), self.translation.double().cpu())


Predict = Callable[[Window], Prediction]
"""Cameras, depth and Gaussians of a window, in the frame of its first camera: an engine, or a whole pipeline."""
