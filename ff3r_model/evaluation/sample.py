"""Test samples: the views that a network sees, views held out, and the ground truth about both."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ff3r_model.core.types import Cameras, Window


@dataclass(frozen=True)
class TrueViews:
    """Views with ground truth: cameras, depth and classes."""

    images: Float[Tensor, "views 3 height width"]
    """RGB in [0, 1]."""
    cameras: Cameras
    """The truth; the world is the first context view's camera."""
    depth: Float[Tensor, "views height width"]
    """z in the unit of the cameras; 0 where unknown."""
    classes: Int[Tensor, "views height width"]
    """Ids of the benchmark's classes; -1 where unknown."""
    colors: Int[Tensor, "views height width"]
    """Ids of colour names; -1 where unknown."""
    pictures: UInt8[Tensor, "views rows columns"] | None = None
    """What `images` show, grey and sharper, as the pipeline keeps it for features; None where the images are all."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.shape[2], self.images.shape[3]

    def to(self, device: torch.device) -> TrueViews:
        """The same on another device."""
        cameras = Cameras(self.cameras.camera_from_world.to(device), self.cameras.intrinsics.to(device))
        images, depth, classes, colors = (x.to(device) for x in (self.images, self.depth, self.classes, self.colors))
        return TrueViews(images, cameras, depth, classes, colors, self.pictures)

    def window(self, first: int = 0, calibrated: bool = False) -> Window:
        """What an engine is given: the images alone, or also the true intrinsics, as from a robot's camera_info.

        Keyframes count from `first`; engines remember frames by them.
        """
        views = tuple(range(first, first + len(self)))
        known = self.cameras.intrinsics if calibrated else None
        return Window(self.images, views, views, known, pictures=self.pictures)


@dataclass(frozen=True)
class Sample:
    """One window of a benchmark."""

    name: str
    context: TrueViews
    """What the network sees, in the camera's order."""
    targets: TrueViews | None
    """Views of the same place that it does not see; None where there are none."""
    metres: float
    """Metres per unit of the truth."""

    def to(self, device: torch.device) -> Sample:
        """The same on another device."""
        targets = None if self.targets is None else self.targets.to(device)
        return replace(self, context=self.context.to(device), targets=targets)
