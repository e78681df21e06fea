"""Half precision (bf16) on a GPU: weights cast once, not at every call, and attention kernels ordered by speed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ff3r_model.network.model import FF3R

FASTEST_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
"""Each is tried where the one before does not run: cuDNN's is the fastest on Hopper and later."""
KEPT = ("camera_head.", "depth_head.", "feature_decoder", "aggregator.camera_encoder.")
"""Parts of the network that compute in float32 also under autocast, or are read by others."""


def halve_weights(network: FF3R) -> None:
    """Linear layers and convolutions that autocast would cast at every call become bf16 in place.

    The same numbers come out under autocast, from half the memory. Without autocast the network no longer runs.
    """
    for name, module in network.named_modules():
        matmul = isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
        if matmul and not name.startswith(KEPT):
            module.to(torch.bfloat16)


def fastest_attention(device: torch.device) -> AbstractContextManager[None]:
    """The order of attention kernels on a GPU; a CPU has one."""
    return nullcontext() if device.type == "cpu" else sdpa_kernel(FASTEST_FIRST, set_priority=True)
