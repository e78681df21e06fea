"""Text embedder: the interface of text encoders, which give unit vectors of texts and keep them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ff3r_model.core.errors import shown
from ff3r_model.core.text_space import TEMPERATURE


class TextEmbedder(nn.Module, ABC):
    """Embeds texts; what was embedded is kept until the weights move or change."""

    temperature: float = TEMPERATURE
    """Of the softmax over cosines with features of this text space: what queries are scored with unless told."""

    def __init__(self, dim: int, cache_size: int) -> None:
        """`cache_size`: embeddings kept, the least recently used go first."""
        super().__init__()
        self._dim, self._cache_size = dim, cache_size
        self._cache: OrderedDict[str, Tensor] = OrderedDict()
        self.register_load_state_dict_post_hook(lambda module, _: module.clear_cache())

    @abstractmethod
    def config_record(self) -> dict[str, Any]:
        """The configuration's fields by name, as a checkpoint keeps them."""

    @property
    def dim(self) -> int:
        """Width of the text space."""
        return self._dim

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.parameters()).device

    @abstractmethod
    def tokenize(self, texts: list[str]) -> Int[Tensor, "n length"]:
        """Token ids, padded with zeros; texts that are too long are cut with a warning."""

    @abstractmethod
    def unknown_words(self, text: str) -> list[str]:
        """Words of a text that mean nothing to the encoder."""

    @abstractmethod
    def embed(self, texts: list[str]) -> Float[Tensor, "n dim"]:
        """Unit vectors of normalised texts, at least one, computed now."""

    def encode(self, texts: list[str]) -> Float[Tensor, "n dim"]:
        """Unit vectors of `texts` (any case and spacing), float32 on the module's device; no text gives (0, dim)."""
        names = [normalize_text(text) for text in texts]
        known = {} if self.training else {name: self._cache[name] for name in names if name in self._cache}
        missing = [name for name in dict.fromkeys(names) if name not in known]
        if missing:
            with torch.no_grad():
                known.update(zip(missing, self.embed(missing).unbind(), strict=True))
        if not self.training:
            self._remember(known)
        if not names:
            return torch.zeros(0, self.dim, device=self.device)
        return torch.stack([known[name] for name in names])

    def _remember(self, embeddings: dict[str, Tensor]) -> None:
        for name, embedding in embeddings.items():
            self._cache[name] = embedding
            self._cache.move_to_end(name)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)

    def clear_cache(self) -> None:
        """Forgets all embeddings."""
        self._cache.clear()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TextEmbedder:
        self.clear_cache()
        return super()._apply(fn, recurse)


def normalize_text(text: str) -> str:
    """Lower case, single spaces, and nothing that is not UTF-8."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").lower().split())


def means_something(word: str) -> bool:
    """Whether a word is more than punctuation."""
    return any(map(str.isalnum, word)) or not word.isascii()


def check_template(name: str, template: str) -> None:
    """Raise ValueError for a sentence that does not have {} once, for the text."""
    if template.count("{}") != 1 or template.count("{") + template.count("}") != 2:
        raise ValueError(f"{name} must have {{}} once, for the text, and no other braces, not {shown(template)}")
