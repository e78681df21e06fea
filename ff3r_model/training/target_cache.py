"""Cache of a teacher's targets on disk: geometry per window, features per image, found by weights and pixels alone."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ff3r_model.core.files import replaced
from ff3r_model.core.output_folder import OutputError
from ff3r_model.core.tensor_digest import tensors_digest

log = logging.getLogger(__name__)

GIGABYTE = 1e9
FEATURES = "features"


@dataclass(frozen=True)
class WindowKey:
    """Names of a window's files."""

    window: str
    images: tuple[str, ...]


class TargetCache:
    """Files in a folder, each whole or absent, together at most `gigabytes` large.

    The names come from the teacher's weights and the prepared pixels, so nothing stale is ever found, and images that
    several windows share are kept once.
    """

    def __init__(self, folder: Path, network: nn.Module, gigabytes: float = 50.0) -> None:
        self.folder, self.limit = folder, gigabytes * GIGABYTE
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made for the teacher's targets: {error.strerror}") from error
        self.weights = fingerprint(network.state_dict())
        self._bytes = sum(file.stat().st_size for file in folder.glob("*.pt"))
        self._full = False
        log.info("%s: %.2f of at most %.2f GB of targets", folder, self._bytes / GIGABYTE, gigabytes)

    def key(self, images: Float[Tensor, "views 3 height width"]) -> WindowKey:
        """Of a prepared window; the order of its views counts, as the first is the world."""
        pixels = (images * 255).round().to(torch.uint8).cpu()
        size = f"{images.shape[-2]}x{images.shape[-1]}"
        names = tuple(_digest(self.weights, size, image.numpy().tobytes()) for image in pixels)
        return WindowKey(_digest(*names), names)

    def read(self, key: WindowKey) -> dict[str, Tensor] | None:
        """What was written, or None where a part is missing or damaged."""
        window = self._load(key.window)
        images = [self._load(name) for name in key.images] if window is not None else []
        found = [image[FEATURES] for image in images if image is not None]
        if window is None or len(found) < len(key.images):
            return None
        return window | {FEATURES: torch.stack(found)}

    def write(self, key: WindowKey, window: Mapping[str, Tensor]) -> None:
        """Keep a window; beyond the limit nothing more is kept, and the log says so once."""
        for name, features in zip(key.images, window[FEATURES], strict=True):
            self._save(name, {FEATURES: features.clone()})
        self._save(key.window, {name: value for name, value in window.items() if name != FEATURES})

    def _load(self, name: str) -> dict[str, Any] | None:
        path = self.folder / f"{name}.pt"
        try:
            found: dict[str, Any] = torch.load(path, weights_only=True)
        except FileNotFoundError:
            return None
        except Exception as error:  # torch raises whatever its archive reader trips over
            log.warning("%s is damaged and will be made again: %s", path, error)
            path.unlink(missing_ok=True)
            return None
        return found

    def _save(self, name: str, values: dict[str, Tensor]) -> None:
        path = self.folder / f"{name}.pt"
        size = sum(value.nbytes for value in values.values())
        if path.exists() or self._full:
            return
        if self._bytes + size > self.limit:
            self._full = True
            log.warning(
                "%s is full (%.2f GB): later targets are computed each time", self.folder, self.limit / GIGABYTE
            )
            return
        try:
            with replaced(path) as temporary:
                torch.save(values, temporary)
        except (OSError, RuntimeError) as error:  # the latter is how torch says that the disk is full
            self._full = True
            log.warning("%s cannot be written, later targets are computed each time: %s", path, str(error)[:200])
            return
        self._bytes += path.stat().st_size


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A name for weights: the same for the same values, whatever file they came from."""
    return tensors_digest(tensors, heading="{name}{dtype}{shape}")[:16]


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:32]
