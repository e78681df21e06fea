"""Worker thread that owns the pipeline. Callbacks hand it frames and commands and never wait for it.

Everything that touches the pipeline, publishing of its results included, happens on this thread, so nothing needs
a lock except the two queues. What other threads may know is in `Worker.status`, an immutable snapshot.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

import torch

from ff3r_model.core.types import Frame
from ff3r_model.engine.device import free_cached_memory
from ff3r_model.frames.windows import FrameRejected
from ff3r_model.pipeline import Pipeline, PipelineStatus
from ff3r_model.slam.mapper import MapUpdate
from ff3r_model.voxel_map.queries import QueryRejected

log = logging.getLogger(__name__)

MAX_COMMANDS = 4096
MAX_INBOX_BYTES = 2**30
"""Of the images that wait."""
OUT_OF_MEMORY_ADVICE = "give the network less: fewer `views`, a smaller `long_side` or a smaller `max_map_bytes`"

Command = Callable[[Pipeline], object]
Done = Callable[[BaseException | None], None]
Publish = Callable[[Pipeline, MapUpdate | None], None]


@dataclass(frozen=True)
class WorkerStatus(PipelineStatus):
    """What the pipeline held, and what the worker had done, when it last finished something."""

    received: int = 0
    windows: int = 0
    rejected_windows: int = 0
    failures: int = 0
    """Exceptions that the worker survived."""
    time_jumps: int = 0
    """How often time jumped back and the frame buffer started over."""
    latency: float = 0.0
    """Seconds from the arrival of a window's last frame to the end of publishing what came of it."""
    seconds: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Of the last window, by stage."""
    corrections: int = 0
    """How often a place seen again has moved the map."""
    refused_queries: int = 0
    last_refusal: str = ""
    last_drop: str = ""
    late_in_a_row: int = 0
    """Newest images that were no newer than those before."""
    last_window: str = ""
    """What is out of the ordinary about the last window, and why it was not used where it was not; empty otherwise."""
    error: str = ""
    """Of the last piece of work; empty once work succeeds again."""
    last_error: str = ""
    """The last error there ever was."""


@dataclass(frozen=True)
class Order:
    """A command that waits."""

    command: Command
    done: Done | None = None
    name: str = ""
    """What diagnostics call it."""


class Worker:
    """Runs the pipeline on what `offer` and `submit` hand over.

    `publish(pipeline, update)` is called after each window, and with None after commands changed something.
    """

    def __init__(
        self, pipeline: Pipeline, publish: Publish, *, inbox_frames: int = 64, time_jump_reset: float = 1.0
    ) -> None:
        self._pipeline, self._publish = pipeline, publish
        self._capacity = inbox_frames
        self._jump_back = round(time_jump_reset * 1e9)
        self._wake = threading.Condition()
        self._frames: list[tuple[Frame, float]] = []
        self._commands: list[Order] = []
        self._running: tuple[str, float] | None = None
        self._late = 0
        self._received = 0
        self._backlog = 0
        self._stopping = False
        self._last_stamp: int | None = None
        self._arrival = 0.0
        self._time_jumps = 0
        self.status = WorkerStatus()
        self._thread = threading.Thread(target=self._run, name="ff3r worker", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self, timeout: float = 30.0) -> bool:
        """Finish the window at hand, drop the rest. False if that took longer than `timeout` seconds."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def offer(self, frame: Frame, arrival: float) -> None:
        """Hand over a frame, and when its message came (`time.monotonic`).

        While the network runs frames wait; too many are thinned by every second one.
        """
        with self._wake:
            self._received += 1
            if len(self._frames) >= self._capacity or self._inbox_bytes() > MAX_INBOX_BYTES:
                before = len(self._frames)
                self._frames = self._frames[-1::-2][::-1]
                self._backlog += before - len(self._frames)
            self._frames.append((frame, arrival))
            self._wake.notify()

    @property
    def command(self) -> tuple[str, float]:
        """Name of the command that runs now, and since how many seconds; ("", 0) where none does."""
        running = self._running
        return ("", 0.0) if running is None else (running[0], time.monotonic() - running[1])

    def submit(self, command: Command, done: Done | None = None, name: str = "") -> bool:
        """Have `command(pipeline)` run before the next window; `done(error or None)` is called after it.

        False, and nothing happens, when far too many commands wait already.
        """
        with self._wake:
            if self._stopping or len(self._commands) >= MAX_COMMANDS:
                return False
            self._commands.append(Order(command, done, name))
            self._wake.notify()
        return True

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._frames or self._commands or self._stopping)
                if self._stopping:
                    break
                frames, self._frames = self._frames, []
                commands, self._commands = self._commands, []
            for step in (partial(self._work, frames, commands), self._take_stock):
                try:
                    step()
                except Exception as error:  # nothing that happens to one window may end the mapping
                    self._failed(error)
        for order in self._commands:
            _finish(order.done, RuntimeError("the worker stopped"))

    def _inbox_bytes(self) -> int:
        return sum(frame.image.nbytes for frame, _ in self._frames)

    def _work(self, frames: list[tuple[Frame, float]], orders: list[Order]) -> None:
        if any([self._command(order) for order in orders]):
            self._publish(self._pipeline, None)
        for frame, arrival in frames:
            self._add(frame, arrival)
        if self._pipeline.ready:
            self._window()

    def _command(self, order: Order) -> bool:
        """Whether it worked."""
        self._running = (order.name, time.monotonic())
        try:
            order.command(self._pipeline)
        except QueryRejected as refusal:
            log.warning("query refused: %s", refusal)
            count = self.status.refused_queries + 1
            self.status = replace(self.status, refused_queries=count, last_refusal=str(refusal))
            _finish(order.done, refusal)
        except Exception as error:
            log.error("%s: %s", type(error).__name__, error)
            self.status = replace(self.status, last_error=str(error))
            _finish(order.done, error)
        else:
            _finish(order.done, None)
            return True
        finally:
            self._running = None
        return False

    def _add(self, frame: Frame, arrival: float) -> None:
        if self._last_stamp is not None and frame.stamp < self._last_stamp - self._jump_back:
            log.warning("time jumped back by %.3f s: frames start over", (self._last_stamp - frame.stamp) / 1e9)
            self._pipeline.restart_clock()
            self._time_jumps += 1
            self._last_stamp = frame.stamp
        try:
            self._pipeline.add(frame)
        except FrameRejected as rejection:
            log.debug("frame dropped: %s", rejection)
            self._late = self._late + 1 if rejection.reason == "time went backwards" else 0
            self.status = replace(self.status, last_drop=str(rejection))
        except Exception as error:  # the frames behind this one are none the worse
            self._failed(error)
        else:
            self._late = 0
            self._last_stamp, self._arrival = frame.stamp, arrival

    def _window(self) -> None:
        update = self._pipeline.step()
        if update is None:
            return
        self._publish(self._pipeline, update)
        self.status = replace(
            self.status,
            windows=self.status.windows + 1,
            rejected_windows=self.status.rejected_windows + (not update.accepted),
            last_window=update.reason if update.accepted else f"window not used: {update.reason}",
            corrections=self.status.corrections + update.corrected,
            latency=time.monotonic() - self._arrival,
            seconds=MappingProxyType(dict(update.seconds)),
            error="",
        )

    def _failed(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, torch.OutOfMemoryError):
            text = f"out of memory: {OUT_OF_MEMORY_ADVICE} ({text})"
            free_cached_memory()
        log.error("%s", text, exc_info=error)
        failed = self.status.failures + 1
        self.status = replace(self.status, failures=failed, error=text, last_error=text)

    def _take_stock(self) -> None:
        held = self._pipeline.status()
        with self._wake:
            received, backlog = self._received, self._backlog + held.dropped.get("backlog", 0)
        dropped = {**held.dropped, "backlog": backlog} if backlog else held.dropped
        changes = vars(held) | {"dropped": MappingProxyType(dict(dropped))}
        changes |= {"received": received, "time_jumps": self._time_jumps, "late_in_a_row": self._late}
        self.status = replace(self.status, **changes)


def _finish(done: Done | None, error: BaseException | None) -> None:
    """Tell who waits; who cannot be told any more is no trouble of the other commands."""
    try:
        if done is not None:
            done(error)
    except Exception as trouble:
        log.warning("nobody could be told that a command is done: %s", trouble)
