"""The cache of per-frame features: exact, bounded, and never fooled by an id."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ff3r_model.core.types import Window
from ff3r_model.engine.frame_cache import CacheConfig, FrameCache
from ff3r_model.engine.torch_engine import TorchConfig, TorchEngine
from ff3r_model.network import FF3R, FF3RConfig, FrameFeatures

NOTHING = CacheConfig(keyframes=0)


def frames(count: int, height: int = 42, width: int = 56) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(count + height))


def window(images: torch.Tensor, ids: list[int]) -> Window:
    return Window(images[ids], tuple(ids), tuple(ids))


def features(images: torch.Tensor) -> FrameFeatures:
    """Stands for the network: 8 bytes per view that tell the images apart."""
    return FrameFeatures(images.mean((2, 3, 4), keepdim=False)[..., None, None], images[:, :, :1, :1, :1])


class Encoder:
    """Counts the views that it is asked for."""

    def __init__(self) -> None:
        self.views: list[int] = []

    def __call__(self, images: torch.Tensor) -> FrameFeatures:
        self.views.append(images.shape[1])
        return features(images)


@pytest.fixture(scope="module", params=["trained", "lifting"])
def network(request: pytest.FixtureRequest) -> FF3R:
    torch.manual_seed(0)
    config = replace(FF3RConfig.nano(), decode_gaussians=request.param == "trained", refine_poses=False)
    return FF3R(config)


def test_sliding_windows_give_what_whole_ones_give(network: FF3R) -> None:
    images = frames(10)
    kept, plain = TorchEngine(network), TorchEngine(network, config=TorchConfig(cache=NOTHING))
    for start in (0, 2, 4, 3):
        view = window(images, list(range(start, start + 6)))
        ours, theirs = kept(view), plain(view)
        torch.testing.assert_close(ours.depth, theirs.depth, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            ours.cameras.camera_from_world, theirs.cameras.camera_from_world, rtol=1e-5, atol=1e-6
        )
        for name, tensor in vars(theirs.gaussians).items():
            torch.testing.assert_close(getattr(ours.gaussians, name), tensor, rtol=1e-5, atol=1e-5)
    assert (kept.cache.misses, kept.cache.hits) == (10, 14)
    assert (plain.cache.misses, plain.cache.hits, len(plain.cache)) == (24, 0, 0)


def test_what_is_kept_is_what_was_encoded_and_in_the_windows_order() -> None:
    images, cache, encode = frames(6), FrameCache(), Encoder()
    cache.features(window(images, [0, 1, 2, 3]), images[:4], encode)
    order = [5, 2, 0, 4, 1]
    got = cache.features(window(images, order), images[order], encode)
    assert torch.equal(got.patches, features(images[order][None]).patches)
    assert torch.equal(got.semantic_maps, features(images[order][None]).semantic_maps)
    assert got.semantic_tokens is None and encode.views == [4, 2]
    assert torch.equal(cache.features(window(images, [1, 0]), images[[1, 0]], encode).patches, got.patches[:, [4, 2]])
    assert encode.views == [4, 2], "nothing was missing"


def test_the_longest_unused_goes_first() -> None:
    images, cache, encode = frames(6), FrameCache(CacheConfig(keyframes=3)), Encoder()
    for ids in ([0, 1, 2], [0, 3], [0, 2]):
        cache.features(window(images, ids), images[ids], encode)
    assert encode.views == [3, 1], "1 had to go for 3"
    cache.features(window(images, [1, 0]), images[[1, 0]], encode)
    assert encode.views == [3, 1, 1] and len(cache) == 3


def test_bytes_are_counted_and_bounded() -> None:
    images = frames(6)
    one = images[0].nbytes + 8
    cache, encode = FrameCache(CacheConfig(nbytes=2 * one)), Encoder()
    cache.features(window(images, [0, 1, 2, 3, 4]), images[:5], encode)
    assert (len(cache), cache.nbytes) == (2, 2 * one)
    cache.features(window(images, [3, 4]), images[3:5], encode)
    assert encode.views == [5], "the newest stayed"
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)


@pytest.mark.parametrize("other", [frames(4) * 0.5, frames(4, 56, 56), frames(4).flip(-1)])
def test_an_id_with_another_image_is_encoded_anew(other: torch.Tensor) -> None:
    images, cache, encode = frames(4), FrameCache(), Encoder()
    cache.features(window(images, [0, 1]), images[:2], encode)
    got = cache.features(window(other, [0, 1]), other[:2], encode)
    assert torch.equal(got.patches, features(other[None, :2]).patches) and encode.views == [2, 2]
    again = cache.features(window(other, [0, 1]), other[:2], encode)
    assert torch.equal(again.patches, got.patches) and encode.views == [2, 2] and len(cache) == 2


def test_one_id_twice_in_a_window_is_two_views() -> None:
    images, cache = frames(2), FrameCache()
    got = cache.features(Window(images, (7, 7), (0, 1)), images, features)
    assert torch.equal(got.patches, features(images[None]).patches)


def test_a_changed_caller_image_does_not_reach_the_cache() -> None:
    images, cache, encode = frames(2), FrameCache(), Encoder()
    cache.features(Window(images, (0, 1), (0, 1)), images, encode)
    images += 0.1
    cache.features(Window(images, (0, 1), (0, 1)), images, encode)
    assert encode.views == [2, 2]
