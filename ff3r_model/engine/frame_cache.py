"""Cache of the features of keyframes that stay in the window: bounded, and exactly what encoding them again gives."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.ranges import NOT_NEGATIVE, check_range
from ff3r_model.core.types import MAX_VIEWS, Window
from ff3r_model.network.frame_features import FrameFeatures

Encode = Callable[[Float[Tensor, "1 views 3 h w"]], FrameFeatures]
"""The per-frame half of the network, for any number of views."""


@dataclass(frozen=True)
class CacheConfig:
    """Bounds of a cache; the least recently used keyframes go first."""

    keyframes: int = 2 * MAX_VIEWS
    """0 keeps nothing."""
    nbytes: int = 2 * 2**30
    """Of features and images together; the full size keeps about 40 MB per keyframe at 448 × 448."""

    def __post_init__(self) -> None:
        check_range(self, NOT_NEGATIVE, "keyframes", "nbytes")


@dataclass(frozen=True)
class Entry:
    """One keyframe: the very image that was encoded, and what came of it."""

    image: Float[Tensor, "3 h w"]
    features: FrameFeatures

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return self.image.nbytes + self.features.nbytes

    def shows(self, image: Float[Tensor, "3 h w"]) -> bool:
        """Whether this is the entry of `image`: an id alone is not trusted, another image under it is encoded again."""
        same = self.image.shape == image.shape and self.image.device == image.device
        return same and torch.equal(self.image, image)


class FrameCache:
    """Per-frame features by keyframe id. Not thread safe: one engine owns it."""

    def __init__(self, config: CacheConfig | None = None) -> None:
        self.config = config or CacheConfig()
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self.nbytes = 0
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    def features(self, window: Window, images: Float[Tensor, "views 3 h w"], encode: Encode) -> FrameFeatures:
        """Features of all views, of which only those not kept are encoded, together.

        `images` are the window's on the network's device. Keep the window's own where they are compared cheaply: on
        the CPU, so that no comparison waits for a GPU.
        """
        found = [self._find(keyframe, image) for keyframe, image in zip(window.keyframes, window.images, strict=True)]
        missing = [index for index, entry in enumerate(found) if entry is None]
        self.hits, self.misses = self.hits + len(found) - len(missing), self.misses + len(missing)
        if not missing:
            return FrameFeatures.join([entry.features for entry in found if entry is not None])
        fresh = encode(torch.stack([images[index] for index in missing])[None])
        for place, index in enumerate(missing):
            found[index] = Entry(window.images[index].clone(), fresh.view(place))
        entries = [entry for entry in found if entry is not None]
        for keyframe, entry in zip(window.keyframes, entries, strict=True):
            self._keep(keyframe, entry)
        return fresh if len(missing) == len(found) else FrameFeatures.join([entry.features for entry in entries])

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.nbytes = 0

    def _find(self, keyframe: int, image: Float[Tensor, "3 h w"]) -> Entry | None:
        entry = self._entries.get(keyframe)
        if entry is None or not entry.shows(image):
            return None
        self._entries.move_to_end(keyframe)
        return entry

    def _keep(self, keyframe: int, entry: Entry) -> None:
        old = self._entries.pop(keyframe, None)
        self.nbytes += entry.nbytes - (0 if old is None else old.nbytes)
        self._entries[keyframe] = entry
        while len(self._entries) > self.config.keyframes or self.nbytes > self.config.nbytes:
            self.nbytes -= self._entries.popitem(last=False)[1].nbytes
