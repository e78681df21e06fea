"""What every engine offers."""

from __future__ import annotations

from typing import Protocol

from ff3r_model.types import Prediction, Window


class Engine(Protocol):
    """A window in, a prediction out."""

    def __call__(self, window: Window) -> Prediction:
        """Cameras, depth and Gaussians of a window, in the frame of its first camera."""
        ...
