"""Signals that end a command: each is an interrupt, as Ctrl-C is, which may have to wait for the end of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal has asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number


@contextmanager
def as_interrupts() -> Iterator[None]:
    """Raise Stopped in the body for each of these signals, SIGTERM and a closed terminal included."""

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(number)

    with _handled_by(stop):
        yield


@contextmanager
def held_back() -> Iterator[None]:
    """Let a signal wait for the end of the body, so that nothing is left half done; a second one does not wait."""
    waiting: list[int] = []

    def remember(number: int, _: FrameType | None) -> None:
        if waiting:
            raise Stopped(number)
        waiting.append(number)

    with _handled_by(remember):
        yield
    if waiting:
        raise Stopped(waiting[0])


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Only in the main thread, which alone has handlers; what is ignored, as under nohup, stays ignored."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        heard = [number for number in STOPPING if signal.getsignal(number) not in (signal.SIG_IGN, None)]
        before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
