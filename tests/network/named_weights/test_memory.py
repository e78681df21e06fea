"""The formula of GPU memory, against bytes that are counted while the network's code runs on shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.network.cost import build, computed_bytes
from ff3r_model.engine.frame_cache import CacheConfig
from ff3r_model.engine.half_precision import halve_weights
from ff3r_model.network import FF3RConfig
from ff3r_model.network.config import TIPSv2Config
from ff3r_model.network.named_weights import memory
from ff3r_model.network.named_weights.memory import file_bytes, gpu_bytes, peak_bytes
from ff3r_model.network.named_weights.recipes import RECIPES

LIFTING = replace(FF3RConfig.full(), decode_gaussians=False)
VGGT_LSEG = RECIPES["vggt-lseg"]


@pytest.mark.parametrize("views", [8, pytest.param(16, marks=pytest.mark.long), 64])
def test_what_is_alive_at_once(views: int) -> None:
    _, counted = computed_bytes(LIFTING, (views, *memory.SIZE), bfloat16=True)
    assert peak_bytes(VGGT_LSEG, views) == pytest.approx(counted, rel=0.1)


APACHE = {
    "apache-small": FF3RConfig.da3_small(),
    "apache": FF3RConfig.da3_base(),
}
"""Recipes of Depth Anything 3 with TIPSv2-B, by their geometry."""


@pytest.mark.parametrize("views", [8, pytest.param(64, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", APACHE)
def test_what_is_alive_at_once_with_other_backbones(name: str, views: int) -> None:
    words = TIPSv2Config.b14()
    config = replace(APACHE[name], lseg=None, tipsv2=words, text_width=words.vit.width, decode_gaussians=False)
    _, counted = computed_bytes(config, (views, *memory.SIZE), bfloat16=True)
    assert peak_bytes(RECIPES[name], views) == pytest.approx(counted, rel=0.1)


def test_weights() -> None:
    """Those of the network, beside which stands CLIP's text tower."""
    network = build(LIFTING, "meta")
    float32 = sum(tensor.nbytes for tensor in network.parameters())
    halve_weights(network)
    half = sum(tensor.nbytes for tensor in network.parameters())
    text = 4 * 63_428_097
    assert file_bytes(VGGT_LSEG) - text == pytest.approx(float32, rel=0.01)
    assert memory.weights_bytes(VGGT_LSEG) - text == pytest.approx(half, rel=0.01)


def test_bounds_are_the_engines() -> None:
    assert (CacheConfig().keyframes, CacheConfig().nbytes) == (memory.CACHE_FRAMES, memory.CACHE_BYTES)
    assert FF3RConfig.full().head_chunk == memory.CHUNK and FF3RConfig.full().feature_channels == memory.CHANNELS


def test_more_views_take_more_and_lighter_parts_less() -> None:
    for recipe in RECIPES.values():
        assert gpu_bytes(recipe, 8) < gpu_bytes(recipe, 16) < gpu_bytes(recipe, 64)
    order = [gpu_bytes(recipe, 8) for recipe in RECIPES.values()]
    assert order == sorted(order), "the list goes from the lightest to the heaviest"
