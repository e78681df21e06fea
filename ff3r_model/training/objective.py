"""All supervised terms of one batch, and their sum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ff3r_model.network.model import FF3R, NetworkOutput
from ff3r_model.training.views import Views
from ff3r_model.training.losses import (
    LossWeights,
    camera_losses,
    depth_losses,
    flow_loss,
    matching_loss,
    patch_matches,
    phrase_loss,
)
from ff3r_model.types import SH_C0


@dataclass(frozen=True)
class TextTargets:
    """Unit embeddings that semantic features are taught, in the order of the synthetic vocabulary."""

    classes: Float[Tensor, "classes channels"]
    phrases: Float[Tensor, "phrases channels"]
    """Colour name by class, the class varying fastest: phrase = colour · len(classes) + class."""


class Objective(nn.Module):
    """Network and batch in, named loss terms out; `total` is what training minimises."""

    def __init__(
        self,
        weights: LossWeights,
        targets: TextTargets,
        width: int,
        matching_block: int = 1,
        pixels_per_view: int = 192,
    ) -> None:
        super().__init__()
        self.weights, self.targets = weights, targets
        self.matching_block, self.pixels_per_view = matching_block, pixels_per_view
        self.flow = nn.Linear(width, 2)

    def forward(self, network: FF3R, batch: Views) -> dict[str, Tensor]:
        """Run the network on the batch and compare with everything that is known about it."""
        block = network.aggregator.global_blocks[self.matching_block]
        with captured(block.attn) as attention, captured(block) as tokens:
            output = network(batch.images)
        terms = camera_losses(output.pose_encodings, batch, self.weights.gamma)
        terms |= depth_losses(
            output.depth.float(), output.depth_confidence.float(), batch.depth, self.weights.confidence
        )
        terms |= self._semantic_terms(network, output, batch)
        terms |= self._gaussian_terms(output, batch)
        terms |= self._matching_terms(network, attention[0][0], tokens[0][1], batch)
        terms["total"] = torch.stack([getattr(self.weights, name) * term for name, term in terms.items()]).sum()
        return terms

    def _semantic_terms(self, network: FF3R, output: NetworkOutput, batch: Views) -> dict[str, Tensor]:
        """Dense features and decoded Gaussian features, each classified over classes and over colour phrases."""
        height, width = batch.depth.shape[-2:]
        picks = torch.randint(height * width, (self.pixels_per_view,))
        classes = batch.classes.flatten(2)[..., picks]
        colors = batch.colors.flatten(2)[..., picks]
        labels = torch.where(colors >= 0, colors * len(self.targets.classes) + classes, -1)
        compact = output.gaussians.feature.flatten(3)[..., picks].transpose(-1, -2)
        dense = F.interpolate(output.semantics.flatten(0, 1), (height, width), mode="bilinear").flatten(2)
        features = {"feature": network.feature_decoder(compact), "semantics": dense[..., picks].transpose(-1, -2)}
        return {
            name: self._phrases(value.reshape(-1, value.shape[-1]), classes.reshape(-1), labels.reshape(-1))
            for name, value in features.items()
        }

    def _phrases(self, features: Tensor, classes: Tensor, phrases: Tensor) -> Tensor:
        temperature = self.weights.temperature
        return phrase_loss(features, classes, self.targets.classes, temperature) + 0.5 * phrase_loss(
            features, phrases, self.targets.phrases, temperature
        )

    def _gaussian_terms(self, output: NetworkOutput, batch: Views) -> dict[str, Tensor]:
        """Colour as seen; scale, rotation and opacity of a plain surface element; confidence = −10·|log depth error|."""
        parts = output.gaussians
        color = parts.harmonics[:, :, :3].float() * SH_C0 + 0.5
        error = (output.depth.detach().float().clamp(min=1e-4).log() - batch.depth.clamp(min=1e-4).log()).abs()
        confidence = -10 * error.clamp(max=0.5)
        identity = torch.tensor([1.0, 0, 0, 0], device=color.device)[:, None, None]
        rotation = F.normalize(parts.quaternion.float(), dim=2)
        plain = parts.log_scale.float().abs().mean() + (rotation - identity).abs().mean()
        opacity = F.softplus(-parts.opacity.float()).mean()
        certainty = F.smooth_l1_loss(parts.confidence.float().flatten(), confidence.flatten())
        return {"color": F.l1_loss(color, batch.images), "gaussian": plain + opacity + certainty}

    def _matching_terms(
        self, network: FF3R, inputs: tuple[Any, ...], tokens: Tensor, batch: Views
    ) -> dict[str, Tensor]:
        """One global block is told where each patch lies elsewhere; nothing is added to the network.

        Head 0 attends to the first view's match among all tokens, head 1 to the match within each view; and a linear
        probe, thrown away after training, reads the position in the first view off the block's output.
        """
        patch = network.aggregator.patch
        views, grid = batch.images.shape[1], (batch.images.shape[-2] // patch, batch.images.shape[-1] // patch)
        count = grid[0] * grid[1]
        attention = network.aggregator.global_blocks[self.matching_block].attn
        queries, keys = (x[:, :2].float() for x in attention.queries_keys(*inputs))
        logits = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
        matches, visible = patch_matches(batch, patch)
        first = _patches(logits[:, 0].log_softmax(-1), views, count)[..., :1, :]
        within = _patches(logits[:, 1], views, count).log_softmax(-1)
        positions = self.flow(tokens.unflatten(1, (views, -1))[:, :, -count:])
        return {
            "matching": matching_loss(first, matches[:, :, :1], visible[:, :, :1], grid)
            + matching_loss(within, matches, visible, grid),
            "flow": flow_loss(positions, matches, visible),
        }


def _patches(attention: Tensor, views: int, count: int) -> Float[Tensor, "batch views n target m"]:
    """From all tokens × all tokens to patches of each view × patches of each view."""
    split = attention.unflatten(1, (views, -1)).unflatten(-1, (views, -1))
    return split[:, :, -count:, :, -count:]


@contextmanager
def captured(module: nn.Module) -> Iterator[list[tuple[tuple[Any, ...], Any]]]:
    """Positional inputs and output of each of `module`'s calls within the block."""
    calls: list[tuple[tuple[Any, ...], Any]] = []
    handle = module.register_forward_hook(lambda _, inputs, output: calls.append((inputs, output)))
    try:
        yield calls
    finally:
        handle.remove()
