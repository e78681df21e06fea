"""How much memory a call needs at its peak."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def with_peak(function: Callable[[], T], device: torch.device) -> tuple[T, float | None]:
    """What the call returns, and by how many MiB memory rose above what was held before.

    The device's own memory where it is an accelerator, else the process's resident memory (Linux); None elsewhere.
    """
    if device.type != "cpu":
        return _on_accelerator(function, device)
    before = _reset_peak()
    result = function()
    return result, None if before is None else max(0.0, _resident("VmHWM") - before)


def _on_accelerator(function: Callable[[], T], device: torch.device) -> tuple[T, float]:
    torch.accelerator.reset_peak_memory_stats(device)
    before = torch.accelerator.memory_allocated(device)
    result = function()
    return result, (torch.accelerator.max_memory_allocated(device) - before) / 2**20


def _reset_peak() -> float | None:
    """Makes the kernel forget the peak so far; returns what is held now."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return None
    return _resident("VmRSS")


def _resident(name: str) -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024
