"""What one window did to the map, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ff3r_model.types import Window


@dataclass(frozen=True)
class MapUpdate:
    """What one window did."""

    window: Window
    map_from_camera: Float[Tensor, "views 4 4"]
    """Poses of the window's cameras in the map; meaningless where not accepted."""
    accepted: bool
    """Whether the window entered the map."""
    reason: str
    """Why not, or what is out of the ordinary about it; empty otherwise."""
    seconds: dict[str, float]
    """Per stage: network, align, integrate, loops."""
    submap: int = 0
    """Number of the submap that the window is in, which is the map from now on."""
    corrected: bool = False
    """Whether what was in the map before has moved: path and map are to be published anew."""


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note how long a stage took."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
