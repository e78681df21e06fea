"""Ctrl-C and SIGTERM as requests to stop: a loop ends after its step, so that what it has done can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopRequest:
    """Whether somebody has asked to stop."""

    made: bool = False


@contextmanager
def stop_requests(patient: bool = False) -> Iterator[StopRequest]:
    """Within it, SIGINT and SIGTERM make the request. A second one raises KeyboardInterrupt at once, unless `patient`.

    In other threads than the main one, which alone hears signals, no request is ever made.
    """
    request = StopRequest()

    def heard(number: int, frame: FrameType | None) -> None:
        if request.made and not patient:
            raise KeyboardInterrupt
        request.made = True

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
