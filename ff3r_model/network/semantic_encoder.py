"""Semantic encoder: the interface of what turns images into dense features in a text's embedding space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Semantics:
    """What a semantic encoder sees in views."""

    tokens: Float[Tensor, "n width h w"]
    """Final patch tokens, as a map."""
    features: Float[Tensor, "n text hs ws"]
    """In the text's space, not normalised, at a resolution of the encoder's own."""


class SemanticEncoder(nn.Module, ABC):
    """Images on the geometry's grid of patches → `Semantics`."""

    @abstractmethod
    def resize(self, images: Float[Tensor, "n 3 h w"], grid: tuple[int, int]) -> Float[Tensor, "n 3 hs ws"]:
        """The images at about one patch of this encoder per patch of the geometry's `grid`, at sides that it takes."""

    @abstractmethod
    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Semantics:
        """Of images in [0, 1], as `resize` gives them."""

    def see(self, images: Float[Tensor, "n 3 h w"], grid: tuple[int, int]) -> Semantics:
        """Of images in [0, 1] that the geometry sees as `grid` patches."""
        return self(self.resize(images, grid))
