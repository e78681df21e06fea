"""The demo's status line."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable

from ff3r_ros.demo.monitor import DemoMonitor

STATUS_KEYS = ("frames in", "windows", "latency", "voxels", "map bytes", "queries")


def status_line() -> Callable[[DemoMonitor], None]:
    """Shows the status: one live line on a terminal, one line every five seconds elsewhere."""
    terminal, last = sys.stdout.isatty(), [0.0]

    def show(monitor: DemoMonitor) -> None:
        if terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{status_text(monitor.status, monitor.images)[:width]}\x1b[K", end="", flush=True)
        elif time.monotonic() - last[0] > 5:
            last[0] = time.monotonic()
            print(status_text(monitor.status, monitor.images), flush=True)

    return show


def status_text(status: dict[str, str], images: int) -> str:
    """One line of the perception node's figures."""
    if not status:
        return f"images sent {images}, waiting for the perception node …"
    values = {key: status.get(key, "?") for key in STATUS_KEYS}
    if values["map bytes"].isdigit():
        values["map bytes"] = f"{int(values['map bytes']) / 1e6:.1f} MB"
    values["latency"] = f"{values['latency']} s"
    return " · ".join(f"{key} {value}" for key, value in values.items())
