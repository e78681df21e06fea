"""Digest of tensors: one fingerprint for names, types, shapes and values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def tensors_digest(tensors: Mapping[str, Tensor], heading: str = "{name}:{dtype}:{shape};") -> str:
    """SHA-256 of named tensors, 64 hex digits: over names, types, shapes and values, in the order of the names.

    `heading` comes before each tensor's bytes. Those of digests that are stored in files never change.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(heading.format(name=name, dtype=tensor.dtype, shape=tuple(tensor.shape)).encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> memoryview:
    """A tensor's values in row-major order; its own memory where it lies so on the CPU."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
