"""Token-wise fusion of geometry and semantics: the paper's equation 1."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ff3r_model.network.config import FusionConfig


class Fusion(nn.Module):
    """Equation 1, per frame: softmax(Q Kᵀ / √d) V with Q from geometry, K and V from semantics.

    The projection after it and, where configured, the residual around it are ours.
    """

    def __init__(self, config: FusionConfig, geometry: int, semantics: int, residual: bool) -> None:
        super().__init__()
        self.heads = config.heads
        self.residual = residual
        self.norm = nn.LayerNorm(geometry)
        self.query = nn.Linear(geometry, config.width)
        self.key = nn.Linear(semantics, config.width)
        self.value = nn.Linear(semantics, config.width)
        self.proj = nn.Linear(config.width, geometry)

    def forward(
        self, geometry: Float[Tensor, "n patches width"], semantics: Float[Tensor, "n tokens semantic_width"]
    ) -> Float[Tensor, "n patches width"]:
        """Geometry tokens that know what they show. Semantic tokens come normalised."""
        projected = (self.query(self.norm(geometry)), self.key(semantics), self.value(semantics))
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in projected)
        fused = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return geometry + fused if self.residual else fused
