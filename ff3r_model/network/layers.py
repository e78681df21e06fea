"""Transformer layers: attention with 2D rotary positions, MLP, LayerScale and the block made of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Rotary:
    """Cosines and sines of each token's position, made once and shared by all blocks."""

    cos: Float[Tensor, "tokens dim"]
    sin: Float[Tensor, "tokens dim"]

    def repeat(self, times: int) -> Rotary:
        """The same positions again for each of several frames."""
        return Rotary(self.cos.repeat(times, 1), self.sin.repeat(times, 1))

    def rotate(self, x: Float[Tensor, "batch heads tokens dim"]) -> Float[Tensor, "batch heads tokens dim"]:
        """Turns each pair of channels by its token's angle; the result keeps x's dtype."""
        first, second = x.unflatten(-1, (2, 2, -1)).unbind(-2)
        turned = torch.stack([-second, first], dim=-2).flatten(-3)
        return (x * self.cos + turned * self.sin).to(x.dtype)


def rotary(positions: Int[Tensor, "tokens 2"], dim: int, base: float) -> Rotary:
    """Angles of (y, x) positions: the first half of a head's `dim` channels turns with y, the second with x."""
    exponent = torch.arange(0, dim // 2, 2, device=positions.device, dtype=torch.float32) / (dim // 2)
    angles = positions[..., None].float() * base**-exponent
    angles = torch.cat([angles, angles], dim=-1).flatten(-2)
    return Rotary(angles.cos(), angles.sin())


def patch_positions(height: int, width: int, special: int, device: torch.device) -> Int[Tensor, "tokens 2"]:
    """(y, x) per token: special tokens at (0, 0), patches row by row from (1, 1)."""
    y, x = torch.meshgrid(
        torch.arange(1, height + 1, device=device), torch.arange(1, width + 1, device=device), indexing="ij"
    )
    patches = torch.stack([y, x], dim=-1).flatten(0, 1)
    return torch.cat([patches.new_zeros(special, 2), patches])


class Attention(nn.Module):
    """Multi-head self-attention, with normalised queries and keys where `qk_norm` is set."""

    def __init__(self, width: int, heads: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def project(self, x: Float[Tensor, "batch tokens width"], rope: Rotary | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, normalised and rotated, and values: each ["batch heads tokens dim"]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        return (q, k, v) if rope is None else (rope.rotate(q), rope.rotate(k), v)

    def queries_keys(self, x: Float[Tensor, "batch tokens width"], rope: Rotary | None = None) -> tuple[Tensor, Tensor]:
        """What the attention compares, after norms and rotation: each ["batch heads tokens dim"]."""
        return self.project(x, rope)[:2]

    def forward(
        self, x: Float[Tensor, "batch tokens width"], rope: Rotary | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        q, k, v = self.project(x, rope)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def values(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """What each token would get if it attended to itself alone."""
        return self.proj(self.qkv(x).chunk(3, dim=-1)[2])


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch out"]:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), initial))

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        return x * self.gamma


class Block(nn.Module):
    """A pre-norm transformer block. `layer_scale=None` leaves LayerScale out."""

    def __init__(
        self, width: int, heads: int, *, layer_scale: float | None, qk_norm: bool = False, eps: float = 1e-5
    ) -> None:
        super().__init__()
        scales = [nn.Identity() if layer_scale is None else LayerScale(width, layer_scale) for _ in range(2)]
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads, qk_norm)
        self.ls1 = scales[0]
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, 4 * width, width)
        self.ls2 = scales[1]

    def forward(
        self, x: Float[Tensor, "batch tokens width"], rope: Rotary | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        return self.finish(x, self.attn(self.norm1(x), rope))

    def by_values(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """The block with each token attending to itself alone."""
        return self.finish(x, self.attn.values(self.norm1(x)))

    def finish(
        self, x: Float[Tensor, "batch tokens width"], attended: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens width"]:
        """All that follows the attention."""
        x = x + self.ls1(attended)
        return x + self.ls2(self.mlp(self.norm2(x)))
