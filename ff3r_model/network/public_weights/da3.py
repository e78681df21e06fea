"""Depth Anything 3's public checkpoints: which network a file holds, and its tensors into FF3R's.

All names of a file begin with `model.`, which `read_tensors` takes off.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network.checkpoint import CheckpointError, assign, check
from ff3r_model.network.da3_metric import DA3Metric
from ff3r_model.network.public_weights.tensor_names import DA3, Geometry, expand, expect
from ff3r_model.network.ray_head import RayHead

PARTS = {
    "aggregator.camera_encoder.": "cam_enc.",
    "aggregator.": "backbone.pretrained.",
    "depth_head.": "head.",
    "camera_head.": "cam_dec.",
}
"""Beginnings of our names and of the published ones, the most specific first."""
_RAY_LEVEL = (
    "head.scratch.refinenet{1-4}_aux.out_conv.{weight,bias}",
    "head.scratch.refinenet{1-3}_aux.resConfUnit1.conv{1,2}.{weight,bias}",
    "head.scratch.refinenet{1-4}_aux.resConfUnit2.conv{1,2}.{weight,bias}",
    "head.scratch.output_conv1_aux.{0-3}.{0-4}.{weight,bias}",
    "head.scratch.output_conv2_aux.{0-3}.{0,2,5}.{weight,bias}",
)
DA3_UNUSED = expand(*_RAY_LEVEL)
"""The ray map, whose cameras the camera decoder gives more exactly. Files hold one of the four levels' LayerNorms."""
RAYS = {
    "refinenet{}.": "head.scratch.refinenet{}_aux.",
    "output_conv1.": "head.scratch.output_conv1_aux.3.",
    "output_conv2.0.": "head.scratch.output_conv2_aux.3.0.",
    "output_conv2.1.": "head.scratch.output_conv2_aux.0.2.",
    "output_conv2.3.": "head.scratch.output_conv2_aux.3.5.",
}
"""Beginnings of the ray head's names here and as published: the last of four levels, which all share one LayerNorm."""
SIZES = (FF3RConfig.da3_small, FF3RConfig.da3_base, FF3RConfig.da3_large)
METRIC_SIGN = "head.scratch.sky_output_conv2.0.weight"
"""Only the metric and the mono network have it."""
WANTED = "DA3-SMALL, DA3-BASE or DA3-LARGE is wanted"
LICENCES = {"da3-small": "Apache-2.0", "da3-base": "Apache-2.0", "da3-large": "CC BY-NC 4.0 (non-commercial)"}
"""Of the published weights, by the name of the configuration."""


def da3_config(tensors: Mapping[str, Tensor], source: str) -> FF3RConfig:
    """The configuration that goes with a file's tensors. Raises CheckpointError for what is no any-view network."""
    check_any_view(tensors, source)
    width = tensors["backbone.pretrained.cls_token"].shape[-1]
    for config in (size() for size in SIZES):
        if config.width == width:
            return config
    raise CheckpointError(f"{source} has a Depth Anything 3 of {width} channels, which is no published size: {WANTED}.")


def check_any_view(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raises CheckpointError, saying what the file holds instead, unless it is of an any-view network."""
    expect(DA3, "--da3", tensors, source)
    if any(name.startswith(("da3.", "da3_metric.")) for name in tensors):
        raise CheckpointError(f"{source} holds Depth Anything 3's nested giant and metric networks: {WANTED}.")
    if any(".mlp.w12." in name or name.startswith("gs_head.") for name in tensors):
        raise CheckpointError(f"{source} holds Depth Anything 3 Giant, which FF3R does not run: {WANTED}.")
    if lora := [name for name in tensors if "lora_" in name]:
        raise CheckpointError(f"{source} holds a LoRA ({lora[0]} and more): merge it into the weights first.")
    if METRIC_SIGN in tensors:
        raise CheckpointError(
            f"{source} holds Depth Anything 3's metric or mono network ({METRIC_SIGN}), which sees one view alone: "
            f"{WANTED}."
        )
    if "backbone.pretrained.cls_token" not in tensors:
        raise CheckpointError(f"{source} lacks backbone.pretrained.cls_token: fetch it again. {WANTED}.")


def load_da3(network: FF3R, tensors: Mapping[str, Tensor], source: str) -> None:
    """Fill aggregator, camera head and depth head. Raises CheckpointError naming what does not fit, as published."""
    check_any_view(tensors, source)
    geometry = Geometry(network)
    names = {name: published_name(name) for name in geometry.state_dict()}
    _fill(geometry, names, {name: x for name, x in tensors.items() if name not in DA3_UNUSED}, source)


def load_da3_metric(network: DA3Metric, tensors: Mapping[str, Tensor], source: str) -> None:
    """Fill the metric network. Raises CheckpointError naming what does not fit."""
    expect(DA3, "engine.metric.weights", tensors, source)
    if METRIC_SIGN not in tensors:
        raise CheckpointError(f"{source} has no {METRIC_SIGN}: of Depth Anything 3, DA3METRIC-LARGE is wanted here.")
    assign(network, tensors, source)


def load_da3_rays(head: RayHead, tensors: Mapping[str, Tensor], source: str) -> None:
    """Fill the ray head, which FF3R does without. Raises CheckpointError naming what does not fit."""
    names = {name: _published_ray(name) for name in head.state_dict()}
    taken = set(names.values())
    _fill(head, names, {name: x for name, x in tensors.items() if name in taken}, source)


def published_name(name: str) -> str:
    """What the published checkpoints call a tensor of FF3R's geometry."""
    ours = next(beginning for beginning in PARTS if name.startswith(beginning))
    return PARTS[ours] + name.removeprefix(ours)


def _published_ray(name: str) -> str:
    for ours, theirs in RAYS.items():
        for level in "1234":
            if name.startswith(ours.format(level)):
                return theirs.format(level) + name.removeprefix(ours.format(level))
    raise AssertionError(name)


def _fill(module: nn.Module, names: Mapping[str, str], tensors: Mapping[str, Tensor], source: str) -> None:
    """Give `module` the tensors that are published under `names`."""
    check({names[name]: x.shape for name, x in module.state_dict().items()}, tensors, source)
    assign(module, {name: tensors[published] for name, published in names.items()}, source)
