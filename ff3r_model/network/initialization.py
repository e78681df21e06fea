"""Initial weights for training from scratch."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ff3r_model.network.encoder import VisionTransformer

STD = 0.02
POSITION_STRENGTH = 0.5


def initialise(network: Any) -> None:
    """Xavier's uniform for linear layers, small normals for tokens; convolutions of the decoders keep PyTorch's own."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, parameter in network.named_parameters():
        if name.endswith(("cls_token", "register_tokens", "camera_token", "register_token")):
            nn.init.trunc_normal_(parameter, std=STD)
    for module in network.modules():
        if isinstance(module, VisionTransformer):
            _place(module)
    for block in network.aggregator.global_blocks:
        _attend_to_alike(block.attn.qkv)
    network.camera_head.start_plain()
    nn.init.trunc_normal_(network.depth_head.scratch.output_conv2[-1].weight, std=STD)
    nn.init.zeros_(network.depth_head.scratch.output_conv2[-1].bias)
    # Columns of about unit length: a unit feature decodes to a unit vector of the text's space.
    nn.init.orthogonal_(network.feature_decoder.weight)
    if hasattr(network, "gaussian_head"):
        network.gaussian_head.start_plain()


def _place(encoder: VisionTransformer) -> None:
    """Position embeddings that tell patches apart from the first step on: sines of growing frequency."""
    grid, width = encoder.config.grid, encoder.config.width
    with torch.no_grad():
        encoder.pos_embed.zero_()
        encoder.pos_embed[0, 1:] = POSITION_STRENGTH * _sines(grid, width)


def _sines(grid: int, width: int) -> Float[Tensor, "patches width"]:
    place = torch.arange(grid * grid)
    frequencies = math.pi / grid * 2 ** torch.linspace(-1, math.log2(grid) - 0.5, width // 4)
    angles = [(axis[:, None] + 0.5) * frequencies for axis in (place % grid, place // grid)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)


def _attend_to_alike(qkv: nn.Linear) -> None:
    """Keys that start as the queries: global attention begins with what looks alike."""
    with torch.no_grad():
        queries, keys, _ = qkv.weight.chunk(3)
        keys.copy_(queries)
