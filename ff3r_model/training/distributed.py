"""Distributed data-parallel training: several processes, on one machine or many, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ff3r_model.training.datasets.base import Share


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Share, torch.device]]:
    """This process' share and device within torchrun; the whole and `device` itself without."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Share(), device
        return
    if device.type != "cpu":
        device = torch.device(device.type, int(os.environ.get("LOCAL_RANK", "0")))
        torch.accelerator.set_device_index(device)
    dist.init_process_group(dist.get_default_backend_for_device(device))
    try:
        yield Share(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()


def shared(module: nn.Module, share: Share, device: torch.device) -> nn.Module:
    """The module, its gradients averaged over all processes."""
    if share.world == 1:
        return module
    # Training in parts leaves the rest of the network without gradients, hence the search for unused parameters.
    return DistributedDataParallel(
        module, device_ids=None if device.type == "cpu" else [device.index], find_unused_parameters=True
    )
