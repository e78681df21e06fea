"""Where the network runs."""

from __future__ import annotations

import torch


def device_named(name: str) -> torch.device:
    """auto: the accelerator where there is one, else the CPU. Raises ValueError for a name that torch does not know."""
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r}: {error}") from error
