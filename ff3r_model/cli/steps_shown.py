"""Steps of long work, told while they happen."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def steps_shown(name: str) -> Iterator[None]:
    """What the logger says of its steps, each of which can take minutes, is shown."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
