"""What every engine offers."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ff3r_model.types import Prediction, Window


@runtime_checkable
class Engine(Protocol):
    """A window in, a prediction out."""

    def __call__(self, window: Window) -> Prediction:
        """Cameras, depth and Gaussians of a window, in the frame of its first camera."""
        ...
