"""Losses as objects: an objective is a list of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.errors import UserError
from ff3r_model.core.ranges import Range

WEIGHTS = Range(0, 1e6)
"""Of the weights in an objective's sum."""
Context = TypeVar("Context", contravariant=True)
"""What a loss looks at: the network's output beside what it should have been."""


class ObjectiveError(UserError, ValueError):
    """An objective that the network, or its settings, cannot be trained by."""


@dataclass(frozen=True)
class Loss(ABC, Generic[Context]):
    """One loss term: its name in logs and settings, its weight in the sum, and what it measures."""

    name: ClassVar[str]
    weight: float

    @abstractmethod
    def __call__(self, context: Context) -> Float[Tensor, ""]:
        """The term before it is weighted."""


def evaluate(losses: Sequence[Loss[Context]], context: Context) -> dict[str, Tensor]:
    """Loss terms by name, in the list's order."""
    return {loss.name: loss(context) for loss in losses}


def total_loss(losses: Sequence[Loss[Any]], terms: Mapping[str, Tensor]) -> Float[Tensor, ""]:
    """Σ weight · term over all losses; equation 13 for the paper's."""
    return torch.stack([loss.weight * terms[loss.name] for loss in losses]).sum()
