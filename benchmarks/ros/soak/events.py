"""What happens to the robot in a soak, in turns: queries, services, drop-outs, restarts."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.ros.soak.monitor import SoakMonitor
from benchmarks.ros.soak.stage import Stage
from ff3r_ros.lifecycle import LifecycleClient

THINGS = ("chair", "table", "red sofa", "wall", "lamp", "blue bed", "floor", "plant")
BURST = 60
PAUSE = 8.0
"""Seconds that the camera is silent."""
PROVOKED = (re.compile(r"No such file|does not exist|is not there|cannot read"),)
"""Errors that the soak causes on purpose: a map is loaded before one was ever saved."""


class EventFailed(RuntimeError):
    """Something that should have worked and did not; the message says what."""


@dataclass(frozen=True)
class Event:
    """One of the things that are done in turns."""

    name: str
    run: Callable[[], str]
    """Does it, and says what came of it. Raises EventFailed, LifecycleError."""
    every: int = 1
    """Rounds between two times; all are done in the first round."""


class Events:
    """Done one by one, `next` at a time; the order is always the same."""

    def __init__(self, stage: Stage, monitor: SoakMonitor, lifecycle: LifecycleClient, rare: int) -> None:
        self._stage, self._monitor, self._lifecycle = stage, monitor, lifecycle
        self._turn = 0
        self.all = (
            Event("load without a file", self._load_nothing, every=rare),
            Event("queries", self._queries),
            Event("broken images", self._broken_images),
            Event("save", lambda: self._service("save_map")),
            Event("camera silent", self._silence),
            Event("load", lambda: self._service("load_map")),
            Event("burst of queries", self._burst),
            Event("deactivate, activate", self._deactivate),
            Event("camera restarted", self._restart("camera"), every=2),
            Event("viewer restarted", self._restart("viewer"), every=rare),
            Event("reset", lambda: self._service("reset"), every=rare),
            Event("cleanup, configure", self._cleanup, every=rare),
        )

    @property
    def round(self) -> int:
        """Of all events; the first is 0."""
        return self._turn // len(self.all)

    def next(self) -> Event:
        """The event whose turn it is."""
        while True:
            event, number = self.all[self._turn % len(self.all)], self.round
            self._turn += 1
            if number % event.every == 0:
                return event

    def _service(self, name: str) -> str:
        done, text = self._monitor.call(name)
        if not done:
            raise EventFailed(f"{name}: {text}")
        return text

    def _load_nothing(self) -> str:
        self._stage.map_file.unlink(missing_ok=True)
        done, text = self._monitor.call("load_map")
        if done or not any(known.search(text) for known in PROVOKED):
            raise EventFailed(f"load_map without a file: {text}")
        return text

    def _queries(self) -> str:
        asked = [THINGS[(self._turn + offset) % len(THINGS)] for offset in range(4)]
        for text in asked:
            self._monitor.ask(text)
        time.sleep(2)
        self._monitor.forget(asked[0])
        return ", ".join(asked)

    def _broken_images(self) -> str:
        before = self._monitor.status.get("frames dropped", "?")
        for _ in range(5):
            self._monitor.send_broken_image()
        time.sleep(2)
        return f"frames dropped: {before} before, {self._monitor.status.get('frames dropped', '?')} after"

    def _silence(self) -> str:
        self._stage.pause("camera", PAUSE)
        return f"{PAUSE:g} s"

    def _burst(self) -> str:
        for number in range(BURST):
            self._monitor.ask(f"thing number {number}")
        time.sleep(2)
        refused = self._monitor.status.get("queries refused", "?")
        return f"{BURST} asked, {refused} refused so far; {self._service('clear_queries')}"

    def _deactivate(self) -> str:
        self._lifecycle.drive("inactive")
        time.sleep(2)
        self._lifecycle.drive("active")
        return "active"

    def _cleanup(self) -> str:
        self._lifecycle.drive("unconfigured")
        self._lifecycle.drive("active")
        return "active"

    def _restart(self, name: str) -> Callable[[], str]:
        def restart() -> str:
            self._stage.restart(name)
            return f"start {self._stage.starts[name]}" + (f", room {self._stage.seed}" if name == "camera" else "")

        return restart
