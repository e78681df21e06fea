"""Spherical harmonics of any degree in the sign convention of gsplat and 3DGS, and their rotation."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor


def basis(directions: Float[Tensor, "n 3"], bands: int) -> Float[Tensor, "n bands"]:
    """The real harmonics of unit vectors: bands = (degree + 1)², degree by degree, order from −l to l.

    Odd orders carry the Condon-Shortley sign, as 3DGS has it: degree 1 is −y, z, −x times a constant.
    """
    x, y, z = directions.unbind(1)
    degree = math.isqrt(bands) - 1
    if (degree + 1) ** 2 != bands:
        raise ValueError(f"{bands} harmonics are not the square of a whole number")
    legendre = _legendre(z, degree)
    cosines, sines = [torch.ones_like(x)], [torch.zeros_like(x)]
    for _ in range(degree):
        c, s = cosines[-1], sines[-1]
        cosines.append(x * c - y * s)
        sines.append(x * s + y * c)
    columns = []
    for lev in range(degree + 1):
        for order in range(-lev, lev + 1):
            m = abs(order)
            norm = math.sqrt((2 * lev + 1) / (4 * math.pi) * math.factorial(lev - m) / math.factorial(lev + m))
            turn = cosines[m] if order >= 0 else sines[m]
            columns.append(norm * (math.sqrt(2) if m else 1) * legendre[lev, m] * turn)
    return torch.stack(columns, dim=1)


def rotate_harmonics(
    rotation: Float[Tensor, "3 3"], harmonics: Float[Tensor, "n bands 3"]
) -> Float[Tensor, "n bands 3"]:
    """Coefficients of the same function in a frame turned by `rotation`: new(rotation @ d) = old(d)."""
    bands = harmonics.shape[1]
    if bands == 1:
        return harmonics
    turn = _turn(rotation.double().cpu(), bands).to(harmonics)
    return torch.einsum("ij,njc->nic", turn, harmonics)


def _turn(rotation: Float[Tensor, "3 3"], bands: int) -> Float[Tensor, "bands bands"]:
    """The rotation of coefficients as a matrix, exact: solved from the harmonics at turned directions."""
    directions, inverse = _samples(bands)
    return inverse @ basis(directions @ rotation, bands)


@lru_cache(maxsize=4)
def _samples(bands: int) -> tuple[Float[Tensor, "m 3"], Float[Tensor, "bands m"]]:
    """Directions spread over the sphere, and the pseudo-inverse of the harmonics there."""
    index = torch.arange(4 * bands, dtype=torch.float64) + 0.5
    z = 1 - index / (2 * bands)
    angle = math.pi * (1 + math.sqrt(5)) * index
    radius = (1 - z * z).sqrt()
    directions = torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=1)
    return directions, torch.linalg.pinv(basis(directions, bands))


def _legendre(z: Float[Tensor, " n"], degree: int) -> dict[tuple[int, int], Float[Tensor, " n"]]:
    """Associated Legendre functions, without their factor (1 − z²)^(m/2), which the turns' x and y bring."""
    values = {(0, 0): torch.ones_like(z)}
    for m in range(1, degree + 1):
        values[m, m] = -(2 * m - 1) * values[m - 1, m - 1]
    for m in range(degree):
        values[m + 1, m] = (2 * m + 1) * z * values[m, m]
    for m in range(degree + 1):
        for lev in range(m + 2, degree + 1):
            values[lev, m] = ((2 * lev - 1) * z * values[lev - 1, m] - (lev + m - 1) * values[lev - 2, m]) / (lev - m)
    return values
