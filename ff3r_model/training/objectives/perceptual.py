"""Perceptual loss, how different two images look: LPIPS where its trunk is at hand, SSIM where it is not."""

from __future__ import annotations

import logging
from importlib import resources
from pathlib import Path

import torch
import torchmetrics
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, normalize
from torchmetrics.functional.image import structural_similarity_index_measure

from ff3r_model.core.errors import UserError
from ff3r_model.network.checkpoint import CheckpointError
from ff3r_model.network.public_weights.read_weights import read_tensors

log = logging.getLogger(__name__)

Images = Float[Tensor, "views 3 h w"]
"""RGB in [0, 1]."""


class TrunkError(UserError):
    """A file that is not VGG-16's weights."""


def perceptual_distance(trunk: Path | None) -> nn.Module:
    """LPIPS with the VGG-16 at `trunk`, or, without one, 1 − SSIM in its place, which the log says.

    Raises TrunkError for a file that is missing or not torchvision's VGG-16 (`vgg16-397923af.pth`).
    """
    if trunk is not None:
        return LPIPS(trunk)
    log.warning("no VGG-16 for LPIPS was given: 1 − SSIM stands in for it, so losses do not compare with the paper's")
    return Dissimilarity()


class Dissimilarity(nn.Module):
    """1 − SSIM, the mean over views."""

    def forward(self, images: Images, others: Images) -> Float[Tensor, ""]:
        similarity = structural_similarity_index_measure(images, others, data_range=1.0)
        assert isinstance(similarity, Tensor)
        return 1 - similarity


STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""VGG-16's convolutions, by their places among torchvision's `features`; what each stage ends in is compared."""
HEADS = "functional/image/lpips_models/vgg.pth"
"""Within torchmetrics."""


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity (VGG-16, version 0.1), the mean over views.

    Σ over stages of the mean over pixels of w · (â − b̂)², where â and b̂ are activations of unit length along the
    channels. The weights w come with torchmetrics, the trunk from torchvision's file; nothing in it learns.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, trunk: Path) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None])
        weights = _load(trunk)
        try:
            self.stages = nn.ModuleList(_stage(weights, places) for places in STAGES)
        except KeyError as error:
            raise TrunkError(f"{trunk} is not torchvision's VGG-16: it has no {error}") from error
        except (RuntimeError, IndexError) as error:
            reason = " ".join(str(error).split())[:200]
            raise TrunkError(f"{trunk} is not torchvision's VGG-16: {reason}") from error
        heads = torch.load(str(resources.files(torchmetrics) / HEADS), map_location="cpu", weights_only=True)
        self.heads = nn.ParameterList(heads[f"lin{stage}.model.1.weight"] for stage in range(len(STAGES)))
        self.requires_grad_(False)

    def forward(self, images: Images, others: Images) -> Float[Tensor, ""]:
        x = (torch.cat([images, others]) * 2 - 1 - self.shift) / self.scale
        total = x.new_zeros(())
        for number, (stage, head) in enumerate(zip(self.stages, self.heads, strict=True)):
            x = stage(x if number == 0 else max_pool2d(x, 2))
            a, b = normalize(x, dim=1, eps=1e-8).chunk(2)
            total = total + conv2d((a - b).square(), head).mean()
        return total


def _stage(weights: dict[str, Tensor], places: tuple[int, ...]) -> nn.Sequential:
    """Convolutions and ReLUs up to the next pooling."""
    stage = nn.Sequential()
    for place in places:
        weight = weights[f"features.{place}.weight"]
        convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
        convolution.load_state_dict({"weight": weight, "bias": weights[f"features.{place}.bias"]})
        stage.extend([convolution, nn.ReLU()])
    return stage


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(path)
    except CheckpointError as error:
        raise TrunkError(f"{error} LPIPS wants torchvision's vgg16-397923af.pth there") from error
