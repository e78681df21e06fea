"""Where the network runs: the one file that knows CUDA by name."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ff3r_model.core.errors import UserError

DRIVER = Path("/proc/driver/nvidia/version")
REASON = 120
"""Characters of torch's reason that are shown; some have thousands."""


class DeviceError(UserError, ValueError):
    """A device that torch does not know, or that this machine has not."""


def device_named(name: str) -> torch.device:
    """auto: the accelerator where there is one, else the CPU. Raises DeviceError for one that cannot compute here."""
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # a torch without CUDA asserts
        reason = textwrap.shorten(str(error), REASON, placeholder=" …")
        raise DeviceError(
            f"device {name!r} cannot be used here, auto takes {device_named('auto')}: {reason}"
        ) from error
    return device


def is_nvidia(device: torch.device) -> bool:
    """Whether TensorRT could run there."""
    return device.type == "cuda" and torch.cuda.is_available()


def gpu_name(device: torch.device) -> str:
    """Product and compute capability of an NVIDIA GPU: what a plan is tied to."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)} (sm_{major}{minor})"


def driver_version() -> str:
    """Of the NVIDIA driver, as the system tells it; empty where there is none, or where it does not say."""
    try:
        return DRIVER.read_text().splitlines()[0].strip()
    except (OSError, IndexError, UnicodeDecodeError):
        return ""


class SideStream:
    """One stream of its own, ordered after and before what the caller runs; on a CPU nothing but the caller's order.

    TensorRT synchronises the whole GPU at every call where it is given torch's default stream.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @property
    def handle(self) -> int:
        """What CUDA calls the stream."""
        return 0 if self._stream is None else int(self._stream.cuda_stream)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Torch's work inside goes to this stream, after the caller's so far; the caller's later work comes after."""
        if self._stream is None:
            yield
            return
        caller = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(caller)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            caller.wait_stream(self._stream)

    def capture(self, run: Callable[[], None]) -> Callable[[], None] | None:
        """`run`'s work on this stream as a CUDA graph to replay; None where graphs cannot be had."""
        if self._stream is None:
            return None
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            run()
        return graph.replay


def free_cached_memory() -> None:
    """Give back what torch's allocator keeps; nothing to do without a GPU."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
