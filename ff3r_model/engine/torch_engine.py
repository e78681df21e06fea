"""The network run by torch itself, on whatever device its weights are."""

from __future__ import annotations

import torch

from ff3r_model.gaussians import predict
from ff3r_model.network.model import FF3R
from ff3r_model.types import Prediction, Window


class TorchEngine:
    """Runs the network in inference mode; bf16 on a GPU, float32 on the CPU.

    `refine` corrects the predicted poses by optical flow (`ff3r_model.refine`); None: where the network's config asks.
    """

    def __init__(self, network: FF3R, use_known_intrinsics: bool = True, refine: bool | None = None) -> None:
        self.network = network.eval().requires_grad_(False)
        self.use_known_intrinsics = use_known_intrinsics
        self.refine = network.config.refine_poses if refine is None else refine

    @torch.inference_mode()
    def __call__(self, window: Window) -> Prediction:
        """The prediction for `window`, on the network's device."""
        device = next(self.network.parameters()).device
        images = window.images.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):
            output = self.network(images[None], semantics=False)
        known = window.intrinsics.to(device) if self.use_known_intrinsics and window.intrinsics is not None else None
        return predict(output, intrinsics=known, images=images, refine=self.refine)
