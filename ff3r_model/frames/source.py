"""What every source of frames offers: video, image folder, RGB-D sequence or bag."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from ff3r_model.core.errors import UserError
from ff3r_model.core.types import Frame

NOMINAL_FPS = 10.0
"""What folders of images, and videos that do not say, are stamped with. Only the order of stamps matters here."""


class SourceError(UserError):
    """Nothing to read frames from; the message says what was found instead."""


@runtime_checkable
class FrameSource(Protocol):
    """Frames in the order of their stamps. Iterating again starts again."""

    name: str
    fps: float
    count: int | None
    """How many frames are expected; None where the file does not say. Damaged files yield fewer."""

    def __iter__(self) -> Iterator[Frame]: ...
