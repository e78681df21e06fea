"""Random outputs of a network, for whatever decodes them."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from ff3r_model.network.gaussian_head import RawGaussians
from ff3r_model.network.model import NetworkOutput

VIEWS, HEIGHT, WIDTH, CHANNELS = 3, 6, 8, 5


def encoding(seed: int = 0) -> torch.Tensor:
    """Pose encodings of VIEWS cameras: translation, quaternion of any length, fields of view."""
    rng = np.random.default_rng(seed)
    quaternions = Rotation.random(VIEWS, random_state=seed).as_quat() * rng.uniform(0.5, 2, (VIEWS, 1))
    fields_of_view = rng.uniform(0.5, 1.5, (VIEWS, 2))
    return torch.tensor(np.concatenate([rng.normal(size=(VIEWS, 3)), quaternions, fields_of_view], axis=1)).float()


def output(seed: int = 0, bands: int = 4, lifting: bool = False) -> NetworkOutput:
    """Random maps around the encoding; the encodings of earlier iterations are not a number."""
    generator = torch.Generator().manual_seed(seed)

    def normal(channels: int) -> torch.Tensor:
        return torch.randn(1, VIEWS, channels, HEIGHT, WIDTH, generator=generator)

    raw = RawGaussians(normal(3), normal(4), normal(3 * bands), normal(1), normal(1), normal(CHANNELS))
    wrong = torch.full((1, VIEWS, 9), math.nan)
    return NetworkOutput(
        pose_encodings=torch.stack([wrong, encoding(seed)[None]]),
        depth=torch.rand(1, VIEWS, HEIGHT, WIDTH, generator=generator) + 1,
        depth_confidence=torch.rand(1, VIEWS, HEIGHT, WIDTH, generator=generator) + 1,
        gaussians=None if lifting else raw,
        semantics=None,
        lifted=torch.randn(1, VIEWS, CHANNELS, 3, 4, generator=generator) if lifting else None,
        tokens=torch.randn(1, VIEWS, 7, 12, generator=generator),
    )
