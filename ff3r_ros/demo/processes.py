"""Child processes that never outlive their parent, with a log each."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

GRACE = 8.0
"""Seconds that a child gets to end by itself before it is killed."""
TAIL_LINES = 15
"""Of a log, in an error."""
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class ChildDied(RuntimeError):
    """A child that ended by itself; the message shows the end of its log."""


class Child:
    """A Python module run as a process in a session (and so a process group) of its own."""

    def __init__(
        self, name: str, module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.name, self.log = name, log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self.pid = self._process.pid

    def check(self) -> None:
        """Raises ChildDied once the process has ended."""
        code = self._process.poll()
        if code is not None:
            how = f"was killed by signal {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            raise ChildDied(f"{self.name} {how}; the end of {self.log}:\n{tail(self.log)}")

    def interrupt(self) -> None:
        """Ask the whole group to end."""
        self._signal(signal.SIGINT)

    def finish(self, deadline: float) -> None:
        """Wait until `deadline` (monotonic seconds), then kill the whole group."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=max(0.0, deadline - time.monotonic()))
        self._signal(signal.SIGKILL)  # also what the child itself may have left behind
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def stop_all(children: Sequence[Child]) -> None:
    """End all children, the last started first, within the grace period."""
    for child in reversed(children):
        child.interrupt()
    deadline = time.monotonic() + GRACE
    for child in reversed(children):
        child.finish(deadline)


def tail(path: Path) -> str:
    """The last lines of a log, indented."""
    text = path.read_text(errors="replace").rstrip().splitlines() if path.exists() else []
    return "\n".join(f"    {line}" for line in text[-TAIL_LINES:]) or "    (empty)"


def _die_with_parent() -> None:
    """On Linux a child gets SIGTERM when its parent dies, however that happens."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
