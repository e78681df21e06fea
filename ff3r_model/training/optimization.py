"""AdamW's groups, the learning rate's course, averaged weights, and activation checkpointing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ff3r_model.network.model import FF3R
from ff3r_model.training.config import TrainConfig

BACKBONE = ("aggregator.", "lseg.")
"""What usually comes trained and learns more slowly. Which modules these are is our choice."""
LOWEST_RATE = 0.01
"""Share of the learning rate that warm-up starts from and the cosine ends at. Ours."""


def optimizer(network: FF3R, objective: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over the network and whatever the objective learns itself (probes that are thrown away).

    Each group's `factor` is its share of the learning rate; with `backbone_factor` 1 there is one such share.
    """
    named = [*network.named_parameters(), *objective.named_parameters(prefix="objective")]
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            factor = config.backbone_factor if name.startswith(BACKBONE) else 1.0
            groups.setdefault((factor, parameter.ndim > 1), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda item: item[0], reverse=True)
    stated = [
        {"params": members, "factor": factor, "weight_decay": config.weight_decay if decays else 0.0}
        for (factor, decays), members in ordered
    ]
    return torch.optim.AdamW(stated, lr=config.learning_rate, betas=(0.9, config.beta2))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)


def rate_share(progress: float, warmup: float) -> float:
    """Share of the learning rate after `progress` of the budget: a linear rise, then half a cosine."""
    if progress < warmup:
        return max(progress / warmup, LOWEST_RATE)
    fall = min((progress - warmup) / (1 - warmup), 1.0)
    return LOWEST_RATE + (1 - LOWEST_RATE) * 0.5 * (1 + math.cos(math.pi * fall))


@torch.no_grad()
def update_average(average: dict[str, Tensor], network: nn.Module, decay: float, step: int) -> None:
    """Move the averaged weights towards the network's; early on faster, so that the start is soon forgotten."""
    decay = min(decay, (1 + step) / (10 + step))
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def freeze_statistics(network: nn.Module) -> None:
    """BatchNorms keep their published statistics: a few views of one scene are no basis for new ones (ours)."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def recompute_activations(network: FF3R) -> None:
    """Let transformer blocks and dense heads forget what they computed and compute it again on the way back."""
    aggregator = network.aggregator
    blocks: Iterable[nn.Module] = [
        *aggregator.patch_embed.blocks,
        *aggregator.frame_blocks,
        *aggregator.global_blocks,
        network.lseg,
        network.depth_head,
        network.gaussian_head,
    ]
    for block in blocks:
        forward: Callable[..., Any] = block.forward
        block.forward = partial(checkpoint, forward, use_reentrant=False)
