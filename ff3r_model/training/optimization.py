"""Optimizers (AdamW, Muon), learning-rate schedule, weight averaging (EMA), freezing and activation checkpointing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ff3r_model.network.layers import Block
from ff3r_model.network.model import FF3R
from ff3r_model.training.config import TrainConfig
from ff3r_model.training.run_folder import RunError

BACKBONE = ("aggregator.", "lseg.")
"""What usually comes trained and learns more slowly."""
LOWEST_RATE = 0.01
"""Share of the learning rate that warm-up starts from and the cosine ends at."""


class Optimizers:
    """Optimizers that share a run's parameters between them, used as one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def step(self) -> None:
        """One step of each."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` goes on from."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`'s."""
        for part, kept in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(kept)


def optimizer(network: FF3R, objective: nn.Module, config: TrainConfig) -> Optimizers:
    """AdamW over the network and whatever the objective learns itself (probes that are thrown away).

    With `config.muon`, Muon takes the transformer blocks' matrices. Each group's `factor` is its share of the
    learning rate; with `backbone_factor` 1 there is one such share.
    """
    # Sort parameters by optimizer, share of the learning rate and weight decay.
    named = [*network.named_parameters(), *objective.named_parameters(prefix="objective")]
    hidden = {id(matrix) for matrix in block_matrices(network)} if config.muon else set()
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            factor = config.backbone_factor if name.startswith(BACKBONE) else 1.0
            groups.setdefault((id(parameter) in hidden, factor, parameter.ndim > 1), []).append(parameter)
    plain, orthogonal = ([kind for kind in sorted(groups, reverse=True) if kind[0] is muon] for muon in (False, True))
    # AdamW takes the rest, Muon the blocks' matrices where it is asked for.
    rate, decay = config.learning_rate, config.weight_decay
    stated = [{"params": groups[kind], "factor": kind[1], "weight_decay": decay * kind[2]} for kind in plain]
    adam = torch.optim.AdamW(stated, lr=rate, betas=(0.9, config.beta2), fused=True)
    if not orthogonal:
        return Optimizers(adam)
    stated = [{"params": groups[kind], "factor": kind[1] * config.muon_factor} for kind in orthogonal]
    return Optimizers(adam, torch.optim.Muon(stated, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))


def block_matrices(network: FF3R) -> list[nn.Parameter]:
    """The matrices of all transformer blocks, which Muon is for; embeddings, heads and convolutions are not."""
    blocks = (module for module in network.modules() if isinstance(module, Block))
    return [parameter for block in blocks for parameter in block.parameters() if parameter.ndim == 2]


def set_rate(optimizer: Optimizers, rate: float) -> None:
    """Give every group its share of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)


def rate_share(progress: float, warmup: float) -> float:
    """Learning-rate schedule, by the share `progress` of the budget: linear warm-up, then half a cosine."""
    if progress < warmup:
        return max(progress / warmup, LOWEST_RATE)
    fall = min((progress - warmup) / (1 - warmup), 1.0)
    return LOWEST_RATE + (1 - LOWEST_RATE) * 0.5 * (1 + math.cos(math.pi * fall))


@torch.no_grad()
def update_average(average: dict[str, Tensor], network: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average (EMA) of the weights; early on faster, so that the start is soon forgotten."""
    decay = min(decay, (1 + step) / (10 + step))
    state = network.state_dict()
    moving = [name for name, value in state.items() if value.is_floating_point()]
    torch._foreach_lerp_([average[name] for name in moving], [state[name] for name in moving], 1 - decay)
    for name in state.keys() - set(moving):
        average[name].copy_(state[name])


def freeze_statistics(network: nn.Module) -> None:
    """BatchNorms keep their published statistics: a few views of one scene are no basis for new ones."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def freeze(network: FF3R, beginnings: tuple[str, ...]) -> None:
    """Hold the weights whose names begin so. Raises RunError for one that no weight has, or if all are held."""
    names = [name for name, _ in network.named_parameters()]
    for beginning in beginnings:
        if not any(name.startswith(beginning) for name in names):
            raise RunError(f"no weight's name begins with {beginning!r}: frozen holds none")
    for name, parameter in network.named_parameters():
        if name.startswith(beginnings):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise RunError(f"frozen = {list(beginnings)} holds all weights: nothing is left to train")


def recompute_activations(network: FF3R) -> None:
    """Activation checkpointing: transformer blocks and dense heads compute again on the way back what they forget."""
    blocks: Iterable[nn.Module] = [
        *network.aggregator.all_blocks,
        network.semantic_encoder,
        network.depth_head,
        network.gaussian_head,
    ]
    for block in blocks:
        forward: Callable[..., Any] = block.forward
        block.forward = partial(checkpoint, forward, use_reentrant=False)
