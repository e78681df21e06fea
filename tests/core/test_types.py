"""Colours and the constant band of spherical harmonics."""

from __future__ import annotations

import math

import torch

from ff3r_model.core.types import harmonics_from_rgb, rgb_from_harmonics


def test_the_constant_band_is_a_colour_over_the_constant_harmonic() -> None:
    """Y₀₀ = 1 / (2 √π); 0 is middle grey, as in 3DGS files. Nothing is clamped."""
    rgb = torch.tensor([[0.5, 0.0, 1.0], [-0.5, 1.5, 0.25]])
    harmonics = harmonics_from_rgb(rgb)
    torch.testing.assert_close(harmonics, (rgb - 0.5) * 2 * math.sqrt(math.pi))
    torch.testing.assert_close(rgb_from_harmonics(harmonics), rgb)
    assert rgb_from_harmonics(torch.zeros(2, 4, 3)).unique().tolist() == [0.5]
