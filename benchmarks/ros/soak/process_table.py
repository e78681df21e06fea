"""Memory, threads and open files of a process, from /proc (Linux)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """What a process holds at a moment."""

    rss: int
    """Resident set size, bytes: with the shared memory that it has touched."""
    anonymous: int
    """The part of it that is the process's own, bytes: heap and stacks."""
    threads: int
    descriptors: int
    cpu: float
    """Processor seconds since its start."""


def usage(pid: int) -> Usage | None:
    """Of a process; None where it has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        lines = (folder / "status").read_text().splitlines()
        times = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        descriptors = len(list((folder / "fd").iterdir()))
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines)
    if "VmRSS" not in values:  # a zombie
        return None
    return Usage(
        rss=_bytes(values["VmRSS"]),
        anonymous=_bytes(values["RssAnon"]),
        threads=int(values["Threads"]),
        descriptors=descriptors,
        cpu=(int(times[11]) + int(times[12])) / TICKS_PER_SECOND,
    )


def _bytes(text: str) -> int:
    """Of "1234 kB"."""
    return int(text.split()[0]) * 1024
