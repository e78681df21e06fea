"""Depth Anything 3's part of the parity check: every output of the published forward, ours beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.network.standin import DA3_PREFIX
from benchmarks.network.standin_values import standin_state
from ff3r_model.core.types import Cameras
from ff3r_model.network import FF3R, FrameFeatures
from ff3r_model.network.da3_aggregator import FEW, DA3Aggregator, reference_views
from ff3r_model.network.decode import decode_cameras
from ff3r_model.network.known_cameras import normalised
from ff3r_model.network.pose_encoding import encode_cameras, invert_encoding
from ff3r_model.network.public_weights.da3 import da3_config, load_da3, load_da3_rays
from ff3r_model.network.ray_head import RayHead

INPUTS = ("preset", "images", "extrinsics_given", "intrinsics_in")
CHANNEL_STEP = 4
"""Of the tokens, files hold every n-th channel."""


def standin_da3(shapes: Path) -> dict[str, Tensor]:
    """Stand-in weights of the names in a file of shapes, without their prefix."""
    return {name.removeprefix(DA3_PREFIX): tensor for name, tensor in standin_state(shapes).items()}


@cache
def models(preset: str, folder: Path) -> tuple[FF3R, RayHead]:
    """The network of a preset under stand-in weights; what it needs beside geometry stays without any."""
    tensors = standin_da3(folder / f"{preset.replace('-', '_')}_shapes.json")
    return build(tensors, f"stand-in {preset}")


def build(tensors: Mapping[str, Tensor], source: str) -> tuple[FF3R, RayHead]:
    """FF3R's geometry and the ray head, filled with published tensors by the loaders of `ff3r convert`."""
    config = replace(da3_config(tensors, source), decode_gaussians=False)
    with torch.device("meta"):
        network, rays = FF3R(config).eval(), RayHead(config.depth).eval()
    load_da3(network, tensors, source)
    load_da3_rays(rays, tensors, source)
    return network, rays


def outputs(network: FF3R, rays: RayHead, images: Tensor, known: Tensor | None) -> dict[str, Tensor]:
    """What the published forward gives, under the names of the files, from our network; one window."""
    aggregator = network.aggregator
    assert isinstance(aggregator, DA3Aggregator)
    views, (height, width) = images.shape[1], images.shape[-2:]
    encoded = aggregator.encode(images)
    # Through FF3R's own entrance: cameras and dense maps
    nothing = encoded.new_zeros(1, views, 1, 1, 1)
    output = network.decode_window(images, FrameFeatures(encoded, nothing), known=known)
    cameras = decode_cameras(output.pose_encodings[-1, 0], height, width)
    # What nothing in FF3R asks for: the tokens of all layers, and rays
    _, seen = network.estimate_cameras(images, encoded, known=known)
    layers = [layer[0, :, seen.special :] for layer in seen.layers]
    grid = (height // aggregator.patch, width // aggregator.patch)
    ray_map = rays(network.depth_head, layers, grid, width / height).permute(0, 2, 3, 1)[None]
    chosen = views >= FEW and known is None
    return {
        "depth": output.depth,
        "depth_conf": output.depth_confidence,
        "ray": ray_map[..., :6],
        "ray_conf": ray_map[..., 6],
        "pose_enc": invert_encoding(output.pose_encodings[-1]),
        "extrinsics": cameras.camera_from_world[None, :, :3],
        "intrinsics": cameras.intrinsics[None],
        "tokens": torch.stack([layer[None] for layer in layers]),
        "camera_token": seen.camera,
        "ref_view": reference_views(encoded[:, :, 0])[0] if chosen else torch.tensor(-1),
    }


def compare(arrays: Mapping[str, np.ndarray], folder: Path) -> dict[str, tuple[Tensor, np.ndarray]]:
    """Ours and theirs of every output in a file, thinned as there. Raises SystemExit for one that we do not have."""
    network, rays = models(str(arrays["preset"]), folder)
    images, known, found = torch.from_numpy(arrays["images"]), None, dict[str, Tensor]()
    if "extrinsics_in" in arrays:
        given = Cameras(torch.from_numpy(arrays["extrinsics_in"][0]), torch.from_numpy(arrays["intrinsics_in"][0]))
        known = encode_cameras(given.camera_from_world, given.intrinsics, *images.shape[-2:])[None]
        assert isinstance(network.aggregator, DA3Aggregator)
        found["camera_tokens_in"] = network.aggregator.camera_encoder(known)
    if "extrinsics_given" in arrays:
        found["extrinsics_in"] = normalised(torch.from_numpy(arrays["extrinsics_given"][0]))[None]
    found |= outputs(network, rays, images, known)
    named = {name: stem_and_step(name) for name in arrays if name not in INPUTS}
    if strange := [name for name, (stem, _) in named.items() if stem not in found]:
        raise SystemExit(f"{strange} are no outputs of Depth Anything 3 that are known here: {sorted(found)}")
    return {name: (thinned(found[stem], stem, step), arrays[name]) for name, (stem, step) in named.items()}


def stem_and_step(name: str) -> tuple[str, int]:
    """tokens_every7th: ("tokens", 7)."""
    found = re.fullmatch(r"(.*)_every(\d+)(st|nd|rd|th)", name)
    return (found[1], int(found[2])) if found else (name, 1)


def thinned(output: Tensor, stem: str, step: int) -> Tensor:
    """Every n-th token of every fourth channel, or every n-th row and column."""
    if step == 1:
        return output
    return output[:, :, :, ::step, ::CHANNEL_STEP] if stem == "tokens" else output[:, :, ::step, ::step]
