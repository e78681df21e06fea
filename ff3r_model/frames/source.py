"""Frame source: the interface of videos, image folders, RGB-D sequences and bags."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from ff3r_model.core.errors import UserError
from ff3r_model.core.types import Frame

NOMINAL_FPS = 10.0
"""Frame rate by which folders of images, and videos without one, are stamped. Only the order of stamps matters here."""

MAX_PIXELS = 2**27
"""Most pixels of an image that is decoded (134 million): what claims more is damaged, or meant to fill the memory."""


class SourceError(UserError):
    """Nothing to read frames from; the message names what was found instead."""


@runtime_checkable
class FrameSource(Protocol):
    """Frames in the order of their stamps. Iterating again starts again."""

    name: str
    fps: float
    count: int | None
    """How many frames are expected; None where the file does not tell. Damaged files yield fewer."""

    def __iter__(self) -> Iterator[Frame]: ...
