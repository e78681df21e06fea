"""Depth Anything 3 as a geometry backbone: against the published code's outputs, brute force and its own promises."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.network.parity import agrees, compare
from benchmarks.network.standin import tiny_da3
from ff3r_model.network import FF3R, FF3RConfig, FrameFeatures
from ff3r_model.network.da3_aggregator import DA3Aggregator, reference_views
from ff3r_model.network.public_weights.da3 import DA3_UNUSED, published_name
from ff3r_model.network.sparse_attention import SparseConfig
from tests.network.test_parity import Models

REFERENCE = Path(__file__).parents[1] / "reference"
SIZE = (56, 84)


@pytest.fixture(scope="module")
def network() -> FF3R:
    return randomised(tiny_da3())


def randomised(config: FF3RConfig) -> FF3R:
    """Weights under which every view, token and camera matters."""
    torch.manual_seed(0)
    network = FF3R(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def window(views: int) -> Tensor:
    return torch.rand(1, views, 3, *SIZE, generator=torch.Generator().manual_seed(views))


@pytest.mark.parametrize("name", ["da3_small_2x56x84", "da3_small_poses_2x56x84"])
def test_parity_with_the_published_code(name: str) -> None:
    errors = compare(REFERENCE / f"{name}.npz", Models())
    assert len(errors) == (12 if "poses" in name else 10)
    assert all(agrees(*each) for each in errors.items()), errors


def test_parity_of_base_with_a_chosen_reference_view() -> None:
    errors = compare(REFERENCE / "da3_base_3x70x98.npz", Models())
    assert len(errors) == 10
    assert all(agrees(*each) for each in errors.items()), errors


def test_tokens_are_held_to_more() -> None:
    assert agrees("depth", 9e-4) and not agrees("depth", 2e-3)
    assert agrees("camera_token", 9e-6) and not agrees("camera_token", 2e-5) and not agrees("depth", math.nan)


@pytest.mark.parametrize(("size", "millions"), [("small", 34.3), ("base", 135.4), ("large", 410.9)])
def test_presets_have_exactly_the_published_tensors(size: str, millions: float) -> None:
    shapes = json.loads((REFERENCE / f"da3_{size}_shapes.json").read_text())
    assert sum(math.prod(shape) for shape in shapes.values()) / 1e6 == pytest.approx(millions, abs=0.06)
    with torch.device("meta"):
        network = FF3R(getattr(FF3RConfig, f"da3_{size}")())
    parts = ("aggregator.", "camera_head.", "depth_head.")
    ours = {
        "model." + published_name(name): list(x.shape)
        for name, x in network.state_dict().items()
        if name.startswith(parts)
    }
    assert ours == {name: shape for name, shape in shapes.items() if name.removeprefix("model.") not in DA3_UNUSED}


def test_configuration_goes_through_json() -> None:
    for config in (FF3RConfig.da3_small(), FF3RConfig.da3_large(), tiny_da3()):
        assert FF3RConfig.from_json(config.to_json()) == config
    old = json.loads(FF3RConfig.nano().to_json())
    del old["da3"], old["depth"]["relu_skip"], old["gaussian"]["relu_skip"]
    assert FF3RConfig.from_json(json.dumps(old)) == FF3RConfig.nano(), "checkpoints of before"


def test_configuration_is_checked() -> None:
    config = tiny_da3()
    with pytest.raises(ValueError, match=r"da3.layers must end at the encoder's last block, 10, not at 9"):
        replace(config, encoder=replace(config.encoder, depth=11))
    with pytest.raises(ValueError, match="layers must grow from start, 4, on"):
        replace(config.da3, start=4)
    with pytest.raises(ValueError, match=r"encoder\.heads = 16"):
        replace(config, encoder=replace(config.encoder, heads=16))


@pytest.mark.parametrize("views", [1, 2, 3, 4, 9])
def test_reference_view_is_the_most_average_one(views: int) -> None:
    classes = torch.randn(3, views, 12, generator=torch.Generator().manual_seed(views)) + 0.5
    for found, each in zip(reference_views(classes), classes.double().numpy(), strict=True):
        assert int(found) == (brute_force_reference(each) if views >= 3 else 0)


def brute_force_reference(classes: np.ndarray) -> int:
    unit = [vector / math.sqrt(sum(x * x for x in vector)) for vector in classes]
    count = len(classes)
    cosine = [sum(float(unit[i] @ unit[j]) for j in range(count) if j != i) / (count - 1) for i in range(count)]
    norm = [float(np.linalg.norm(vector)) for vector in classes]
    variance = [float(((u - u.mean()) ** 2).sum() / (len(u) - 1)) for u in unit]
    total = np.zeros(count)
    for figure in (np.array(cosine), np.array(norm), np.array(variance)):
        total += np.abs((figure - figure.min()) / (figure.max() - figure.min() + 1e-8) - 0.5)
    return int(total.argmin())


def test_order_of_views_does_not_matter_where_the_reference_is_chosen(network: FF3R) -> None:
    images, order = window(5), [3, 0, 4, 2, 1]
    with torch.inference_mode():
        given, moved = network(images), network(images[:, order])
    torch.testing.assert_close(moved.pose_encodings, given.pose_encodings[:, :, order], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(moved.depth, given.depth[:, order], atol=1e-4, rtol=1e-4)


def test_the_reference_view_and_the_others_matter(network: FF3R) -> None:
    images = window(2)
    with torch.inference_mode():
        given, swapped, other = network(images), network(images.flip(1)), network(torch.cat([images[:, :1]] * 2, 1))
    assert (swapped.depth.flip(1) - given.depth).abs().max() > 1e-3, "the first of two views is the reference"
    assert (other.depth[:, 0] - given.depth[:, 0]).abs().max() > 1e-3, "views see each other"


def test_each_views_half_can_be_kept(network: FF3R) -> None:
    images = window(4)
    with torch.inference_mode():
        frames = [network.encode_frames(images[:, index : index + 1]).view(0) for index in range(4)]
        kept, whole = network.decode_window(images, FrameFeatures.join(frames)), network(images)
    for name in ("pose_encodings", "depth", "depth_confidence", "tokens"):
        torch.testing.assert_close(getattr(kept, name), getattr(whole, name), atol=1e-4, rtol=1e-4)


def test_batches_are_independent(network: FF3R) -> None:
    first, second = window(3), window(3).flip(-1)
    with torch.inference_mode():
        both, alone = network(torch.cat([first, second])), network(second)
    torch.testing.assert_close(both.pose_encodings[:, 1:], alone.pose_encodings, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both.depth[1:], alone.depth, atol=1e-4, rtol=1e-4)


def test_sparse_attention_over_all_keys_is_exact(network: FF3R) -> None:
    images = window(4)
    with torch.inference_mode():
        frames = network.encode_frames(images)
        exact = network.decode_window(images, frames)
        same = network.decode_window(images, frames, SparseConfig(early=0, stride=1, view_chunk=3))
        fewer = network.decode_window(images, frames, SparseConfig())
    torch.testing.assert_close(same.depth, exact.depth, atol=1e-4, rtol=1e-4)
    assert (fewer.depth - exact.depth).abs().max() > 1e-4


def test_half_precision_is_near_single_precision(network: FF3R) -> None:
    images = window(3)
    with torch.inference_mode():
        single = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(images)
    assert half.depth.dtype == half.pose_encodings.dtype == torch.float32
    assert (half.depth.log() - single.depth.log()).abs().mean() < 0.05


def test_no_camera_is_told_to_vggt() -> None:
    vggt = FF3R(FF3RConfig.nano()).eval()
    images = window(2)
    with torch.inference_mode(), pytest.raises(ValueError, match="VGGT takes no known cameras"):
        vggt.decode_window(images, vggt.encode_frames(images), known=torch.zeros(1, 2, 9))


def test_blocks_are_listed_for_training(network: FF3R) -> None:
    aggregator = network.aggregator
    assert isinstance(aggregator, DA3Aggregator)
    assert [index for index, block in enumerate(aggregator.blocks) if block in aggregator.global_blocks] == [3, 5, 7, 9]
    assert network.config.global_blocks == 4 and FF3RConfig.da3_small().global_blocks == 4
    assert FF3RConfig.da3_large().global_blocks == 8 and FF3RConfig.full().global_blocks == 24
