"""The pixels that features of a window are measured in, and how they relate to those of the network's images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from ff3r_model.core.types import Window
from ff3r_model.frames.optical_flow import grey
from ff3r_model.slam.refinement.features import Features
from ff3r_model.slam.refinement.lens import Focal


@dataclass(frozen=True)
class Canvas:
    """A window's pictures, all of one size."""

    pictures: list[UInt8[ndarray, "rows columns"]]
    scale: Float[ndarray, " 2"]
    """Pixels (right, down) of a picture per pixel of the network's image."""
    intrinsics: Float[ndarray, "views 3 3"] | None
    """In the pixels of the pictures; None where unknown."""

    @classmethod
    def of(cls, window: Window) -> Canvas:
        """The window's pictures, or its images where nobody kept any."""
        pictures = [grey(image) for image in window.images]
        if window.pictures is not None:
            pictures = [picture.cpu().numpy() for picture in window.pictures]
        height, width = window.images.shape[2:]
        scale = np.array([pictures[0].shape[1] / width, pictures[0].shape[0] / height])
        intrinsics = None
        if window.intrinsics is not None:
            intrinsics = window.intrinsics.cpu().double().numpy() * np.append(scale, 1)[:, None]
        return cls(pictures, scale, intrinsics)

    @property
    def long_side(self) -> float:
        """Pixels."""
        return float(max(self.pictures[0].shape))

    @property
    def centre(self) -> Float[ndarray, " 2"]:
        """Principal point of the first view; the middle where unknown."""
        if self.intrinsics is not None:
            return self.intrinsics[0, :2, 2]
        return np.array(self.pictures[0].shape[::-1]) / 2

    @property
    def aspect(self) -> float:
        """Vertical over horizontal focal length."""
        return 1.0 if self.intrinsics is None else float(self.intrinsics[0, 1, 1] / self.intrinsics[0, 0, 0])

    @property
    def known_focal(self) -> Focal | None:
        """Of the first view."""
        return None if self.intrinsics is None else Focal(math.log(self.intrinsics[0, 0, 0]), 0.0)

    def as_first(self, features: Sequence[Features]) -> list[Features]:
        """Features where the first view's camera would see them: views may have intrinsics of their own."""
        if self.intrinsics is None:
            return list(features)
        focal, centre = self.intrinsics[:, [0, 1], [0, 1]], self.intrinsics[:, :2, 2]
        return [
            replace(each, pixels=(each.pixels - centre[view]) / focal[view] * focal[0] + centre[0])
            for view, each in enumerate(features)
        ]

    def to_images(self, pixels: Float[ndarray, "n 2"], view: ndarray) -> Float[ndarray, "n 2"]:
        """Pixels of the network's images from those that `as_first` gives, each of its view."""
        if self.intrinsics is not None:
            focal, centre = self.intrinsics[:, [0, 1], [0, 1]], self.intrinsics[:, :2, 2]
            pixels = (pixels - centre[0]) / focal[0] * focal[view] + centre[view]
        return pixels / self.scale

    def image_intrinsics(self, focal: float, views: int) -> Float[ndarray, "views 3 3"]:
        """Intrinsics in the pixels of the network's images: those known, or with a focal length of the pictures."""
        if self.intrinsics is not None:
            return self.intrinsics / np.append(self.scale, 1)[:, None]
        (u, v) = self.centre
        matrix = np.array([[focal, 0, u], [0, focal, v], [0, 0, 1]]) / np.append(self.scale, 1)[:, None]
        return np.tile(matrix, (views, 1, 1))
