"""PSNR, SSIM and LPIPS of rendered views, by torchmetrics."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from ff3r_model.evaluation.accumulators import Figures, Means

Images = Float[Tensor, "views 3 height width"]
"""RGB in [0, 1]."""


class ImageQuality:
    """Means over views; `trunk` is LPIPS' network, and without it LPIPS is not measured."""

    def __init__(self, trunk: torch.nn.Module | None = None) -> None:
        self.trunk = trunk
        self.means = Means({"psnr": [], "ssim": [], "lpips": []})

    def add(self, images: Images, truth: Images) -> None:
        """Count the views of one window."""
        for image, wanted in zip(images[:, None], truth[:, None], strict=True):
            self.means.add("psnr", float(peak_signal_noise_ratio(image, wanted, data_range=1.0)))
            similarity = structural_similarity_index_measure(image, wanted, data_range=1.0)
            assert isinstance(similarity, Tensor)
            self.means.add("ssim", float(similarity))
            self.means.add("lpips", None if self.trunk is None else float(self.trunk(image, wanted)))

    def figures(self) -> Figures:
        return self.means.figures()
