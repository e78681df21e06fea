"""Spherical harmonics against the polynomials of 3DGS."""

from __future__ import annotations

import pytest
import torch
from scipy.spatial.transform import Rotation

from ff3r_model.core.types import SH_C0
from ff3r_model.gaussians.spherical_harmonics import basis, rotate_harmonics


def test_harmonics_are_those_of_3dgs() -> None:
    directions = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=1)
    x, y, z = directions.unbind(1)
    expected = [
        SH_C0 + 0 * x,
        -0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x,
        1.0925484305920792 * x * y, -1.0925484305920792 * y * z, 0.31539156525252005 * (2 * z * z - x * x - y * y),
        -1.0925484305920792 * x * z, 0.5462742152960396 * (x * x - y * y),
        -0.5900435899266435 * y * (3 * x * x - y * y), 2.890611442640554 * x * y * z,
        -0.4570457994644658 * y * (4 * z * z - x * x - y * y),
        0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y),
        -0.4570457994644658 * x * (4 * z * z - x * x - y * y), 1.445305721320277 * z * (x * x - y * y),
        -0.5900435899266435 * x * (x * x - 3 * y * y),
    ]  # fmt: skip
    torch.testing.assert_close(basis(directions, 16), torch.stack(expected, dim=1))
    with pytest.raises(ValueError, match="5"):
        basis(directions, 5)


@pytest.mark.parametrize("bands", [1, 4, 9, 16, 25])
def test_turned_harmonics_look_the_same_from_turned_directions(bands: int) -> None:
    rotation = torch.tensor(Rotation.random(random_state=bands).as_matrix())
    directions = torch.nn.functional.normalize(torch.randn(30, 3, dtype=torch.float64), dim=1)
    coefficients = torch.randn(4, bands, 3, dtype=torch.float64)
    before = torch.einsum("db,nbc->ndc", basis(directions, bands), coefficients)
    turned = rotate_harmonics(rotation, coefficients)
    torch.testing.assert_close(torch.einsum("db,nbc->ndc", basis(directions @ rotation.T, bands), turned), before)
