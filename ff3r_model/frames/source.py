"""Frame source: the interface of videos, image folders, RGB-D sequences and bags."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from ff3r_model.core.errors import UserError
from ff3r_model.core.types import Frame

log = logging.getLogger(__name__)

NOMINAL_FPS = 10.0
"""Frame rate by which folders of images, and videos without one, are stamped. Only the order of stamps matters here."""

NAMED = 10
"""Frames of a source that are named in the log when they are left out."""
MAX_PIXELS = 2**27
"""Most pixels of an image that is decoded (134 million): what claims more is damaged, or meant to fill the memory."""


class SourceError(UserError):
    """Nothing to read frames from; the message names what was found instead."""


class LeftOut:
    """Frames that cannot be read: the first are named in the log, the others counted."""

    def __init__(self, source: object) -> None:
        self._source, self._count = source, 0

    def add(self, error: SourceError) -> None:
        """One more, and why."""
        self._count += 1
        if self._count <= NAMED:
            log.warning("%s: left out", error)

    def tell_rest(self) -> None:
        """Say how many were not named."""
        if self._count > NAMED:
            log.warning("%s: %d more frames are left out for such reasons", self._source, self._count - NAMED)


@runtime_checkable
class FrameSource(Protocol):
    """Frames in the order of their stamps. Iterating again starts again."""

    name: str
    fps: float
    count: int | None
    """How many frames are expected; None where the file does not tell. Damaged files yield fewer."""

    def __iter__(self) -> Iterator[Frame]: ...
