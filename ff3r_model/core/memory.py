"""Memory that is free on this machine, asked before much of it is taken."""

from __future__ import annotations

import re
from pathlib import Path

MEMINFO = Path("/proc/meminfo")


def available_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1]) * 1024


def check_memory(needed: int) -> None:
    """Raise MemoryError where that many bytes are not free."""
    free = available_memory()
    if free is not None and needed > free:
        raise MemoryError(f"it takes {needed / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are free")
