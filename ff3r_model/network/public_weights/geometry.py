"""Kinds of public geometry checkpoints: cameras and depth, by the option that a file is given as."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network.public_weights.da3 import LICENCES, da3_config, load_da3
from ff3r_model.network.public_weights.tensor_names import expect, load_vggt

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class GeometryKind:
    """How a geometry checkpoint becomes part of the network."""

    config: Callable[[State, str], FF3RConfig]
    """The network that these tensors are of, with any semantic encoder; the text names the file in CheckpointError."""
    load: Callable[[FF3R, State, str], None]
    """Fill the network's geometry. Raises CheckpointError naming what does not fit."""
    terms: Callable[[FF3RConfig], str]
    """Licence of the weights of this configuration."""


def vggt_config(state: State, source: str) -> FF3RConfig:
    """VGGT-1B's, of one size. Raises CheckpointError for other weights."""
    expect("VGGT's", "--vggt", state, source)
    return FF3RConfig.full()


def da3_terms(config: FF3RConfig) -> str:
    """The licence of a Depth Anything 3 of this size."""
    return f"The weights of {config.name} are published under {LICENCES.get(config.name, 'terms of their own')}."


GEOMETRY: Mapping[str, GeometryKind] = {
    "vggt": GeometryKind(vggt_config, load_vggt, lambda _: "VGGT-1B's weights are for non-commercial use."),
    "da3": GeometryKind(da3_config, load_da3, da3_terms),
}
