"""Rasterization in plain PyTorch, exact alpha compositing of projected Gaussians: what gsplat computes, without a GPU.

Each Gaussian is expanded to the pixels that its ellipse covers; the pairs, brought into the order (pixel, depth), are
one sparse matrix, whose product with the Gaussians' values is the image. No tiles, no lists that overflow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from ff3r_model.core.geometry import project
from ff3r_model.gaussians.projected import ProjectedGaussians

ALPHA_MIN = 1 / 255
"""A Gaussian is left out of a pixel where it is fainter: gsplat's choice, as the three that follow."""
ALPHA_MAX = 0.999
TRANSMITTANCE_MIN = 1e-4
"""The Gaussian that would bring a pixel's transmittance down to this, and all behind it, are left out."""
FIELD_MARGIN = 0.3
"""Beyond the image by this share of its half width, the projection is linearised as if the Gaussian were there."""


@dataclass(frozen=True)
class Splats:
    """Gaussians as one camera sees them, nearest first."""

    means: Float[Tensor, "n 2"]
    """Pixels."""
    conics: Float[Tensor, "n 3"]
    """The inverse covariance in pixels: xx, xy, yy."""
    opacities: Float[Tensor, " n"]


@dataclass(frozen=True)
class Pairs:
    """Which Gaussian is seen in which pixel, pixel by pixel and nearest first."""

    splats: Int[Tensor, " pairs"]
    starts: Int[Tensor, " pixels_plus_one"]
    """The pairs of pixel p are starts[p] to starts[p + 1]."""

    @property
    def pixels(self) -> Int[Tensor, " pairs"]:
        """The pixel of each pair."""
        counts = self.starts.diff()
        return torch.repeat_interleave(counts, output_size=len(self.splats)).int()


def rasterize(seen: ProjectedGaussians) -> Float[Tensor, "height width channels"]:
    """Σ w · value per pixel, with the weights w_i = α_i Π_{j<i} (1 − α_j), nearest first."""
    visible = ((seen.points[:, 2] > seen.near) & (seen.opacities >= ALPHA_MIN)).nonzero()[:, 0]
    order = visible[seen.points[visible, 2].argsort(stable=True)]
    splats = splat(seen, order)
    return composite(splats, seen.values[order], seen.height, seen.width)


def splat(seen: ProjectedGaussians, order: Int[Tensor, " n"]) -> Splats:
    """EWA projection of the Gaussians at `order`, z > 0: covariance J A (J A)ᵀ + low_pass · I in pixels².

    A are a Gaussian's axes; J is the projection's Jacobian at its centre.
    """
    points, axes, intrinsics, size = seen.points[order], seen.axes[order], seen.intrinsics, (seen.width, seen.height)
    # Project the centres and linearise the projection there.
    means, _ = project(points, intrinsics)
    x, y = (_jacobian(points, intrinsics, axis, side) for axis, side in enumerate(size))
    # Project the axes: the covariance in pixels, then its inverse.
    across, down = (torch.einsum("ni,nij->nj", row, axes) for row in (x, y))
    a = across.square().sum(1) + seen.low_pass
    b = (across * down).sum(1)
    c = down.square().sum(1) + seen.low_pass
    conics = torch.stack([c, -b, a], dim=1) / (a * c - b * b)[:, None]
    return Splats(means, conics, seen.opacities[order])


def _jacobian(
    points: Float[Tensor, "n 3"], intrinsics: Float[Tensor, "3 3"], axis: int, size: int
) -> Float[Tensor, "n 3"]:
    """Gradient of a pixel coordinate by the point."""
    focal, centre, z = intrinsics[axis, axis], intrinsics[axis, 2], points[:, 2]
    margin = FIELD_MARGIN * size / 2
    low, high = (-centre - margin) / focal, (size - centre + margin) / focal
    slope = torch.minimum(torch.maximum(points[:, axis] / z, low), high)
    unit = torch.nn.functional.one_hot(torch.tensor(axis, device=points.device), 3).to(points)
    back = torch.nn.functional.one_hot(torch.tensor(2, device=points.device), 3).to(points)
    return (unit - slope[:, None] * back) * (focal / z)[:, None]


def composite(
    splats: Splats, values: Float[Tensor, "n channels"], height: int, width: int
) -> Float[Tensor, "height width channels"]:
    """Σ_i α_i Π_{j<i} (1 − α_j) value_i per pixel, over the Gaussians in order. Differentiable in everything."""
    # Which Gaussian is seen in which pixel, without gradients.
    with torch.no_grad():
        pairs = _visible(splats, _covered(splats, height, width), width)
    # What each weighs there, with gradients.
    alphas = _alphas(splats, pairs, width)
    weights = alphas * _transmittance(alphas, pairs.starts)
    # One sparse product: Σ weight · value over the pairs of each pixel.
    image = embedding_bag(
        pairs.splats, values, pairs.starts, mode="sum", per_sample_weights=weights, include_last_offset=True
    )
    return image.view(height, width, -1)


def _covered(splats: Splats, height: int, width: int) -> Pairs:
    """All pairs where α ≥ ALPHA_MIN: ellipse → rows → pixels, then transposed to be pixel by pixel."""
    # The ellipse where α = ALPHA_MIN, and the rows of pixels that it covers.
    a, b, c = splats.conics.unbind(1)
    level = 2 * (splats.opacities / ALPHA_MIN).log().clamp(min=0)
    half_height = (level * a / (a * c - b * b)).sqrt()
    first, rows = _cells(splats.means[:, 1] - half_height, splats.means[:, 1] + half_height, height)
    owner, within = _expand(rows)
    y = first[owner] + within
    # In each row, the pixels between the ellipse's two ends.
    a, b, c, level = (part[owner] for part in (a, b, c, level))
    dy = y + 0.5 - splats.means[owner, 1]
    centre = splats.means[owner, 0] - b / a * dy
    half_width = ((level - (c - b * b / a) * dy * dy).clamp(min=0) / a).sqrt()
    first, columns = _cells(centre - half_width, centre + half_width, width)
    row, within = _expand(columns)
    # Pairs come Gaussian by Gaussian; the image needs them pixel by pixel.
    pixels = (y * width + first)[row] + within
    return _by_pixel(pixels, torch.zeros_like(rows).index_add_(0, owner, columns), height * width)


def _cells(low: Tensor, high: Tensor, size: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """First pixel whose centre lies in [low, high], and how many do, within an image of `size` pixels."""
    first = (low - 0.5).ceil().clamp(0, size)
    last = (high - 0.5).floor().clamp(-1, size - 1)
    return first.int(), (last - first + 1).clamp(min=0).int()


def _expand(counts: Int[Tensor, " n"]) -> tuple[Int[Tensor, " total"], Int[Tensor, " total"]]:
    """For counts (2, 0, 3): owners 0 0 2 2 2 and places within 0 1 0 1 2."""
    owner = torch.repeat_interleave(counts)
    starts = counts.cumsum(0, dtype=torch.int32) - counts
    return owner, torch.arange(len(owner), dtype=torch.int32) - starts[owner]


def _by_pixel(pixels: Int[Tensor, " pairs"], counts: Int[Tensor, " n"], size: int) -> Pairs:
    """Pairs that come splat by splat, as a matrix of one row each, transposed in linear time; keeps their order."""
    from scipy.sparse import csr_array  # here, so that what only decodes Gaussians needs no scipy

    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0, dtype=counts.dtype)])
    marks = torch.ones(len(pixels), dtype=torch.bool)
    parts = (marks.numpy(), pixels.numpy(), starts.numpy())
    matrix = csr_array(parts, shape=(len(counts), size)).tocsc()
    return Pairs(torch.from_numpy(matrix.indices).int(), torch.from_numpy(matrix.indptr).int())


def _visible(splats: Splats, pairs: Pairs, width: int) -> Pairs:
    """Without the pairs that are too faint or hidden."""
    alphas = _alphas(splats, pairs, width)
    alphas = torch.where(alphas >= ALPHA_MIN, alphas, torch.zeros_like(alphas))
    after = _transmittance(alphas, pairs.starts) * (1 - alphas)
    keep = (alphas > 0) & (after > TRANSMITTANCE_MIN)
    before = torch.cat([pairs.starts.new_zeros(1), keep.cumsum(0, dtype=torch.int32)])
    return Pairs(pairs.splats[keep], before[pairs.starts])


def _alphas(splats: Splats, pairs: Pairs, width: int) -> Float[Tensor, " pairs"]:
    """min(ALPHA_MAX, opacity · exp(−½ dᵀ conic d)) at the pixels' centres."""
    table = torch.cat([splats.means, splats.conics, splats.opacities[:, None]], dim=1)
    x, y, a, b, c, opacity = table.index_select(0, pairs.splats).unbind(1)
    dx, dy = pairs.pixels % width + 0.5 - x, pairs.pixels // width + 0.5 - y
    power = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    return (opacity * (-power).exp()).clamp(max=ALPHA_MAX)


def _transmittance(alphas: Float[Tensor, " pairs"], starts: Int[Tensor, " pixels_plus_one"]) -> Float[Tensor, " pairs"]:
    """Π (1 − α) over the pairs before each one in its pixel; sums of logarithms, in double so that none is lost."""
    logs = torch.log1p(-alphas.double())
    before = torch.cat([logs.new_zeros(1), logs.cumsum(0)])
    base = torch.repeat_interleave(before[starts[:-1]], starts.diff(), output_size=len(alphas))
    return (before[:-1] - base).exp().to(alphas)
