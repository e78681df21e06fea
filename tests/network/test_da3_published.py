"""Ours against the published package itself, where it is installed (`depth-anything-3`): same weights, other sizes."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.network.parity_da3 import build, outputs, standin_da3
from ff3r_model.core.geometry import quaternion_to_matrix, rigid
from ff3r_model.core.types import Cameras
from ff3r_model.network.da3_metric import DA3Metric
from ff3r_model.network.known_cameras import encode_known, normalised
from ff3r_model.network.public_weights.da3 import load_da3_metric

pytest.importorskip("depth_anything_3.model.da3", reason="the published package is not installed")

SHAPES = Path(__file__).parents[1] / "reference"
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class Pair:
    """Theirs and ours under the same weights."""

    def __init__(self, size: str) -> None:
        from depth_anything_3.cfg import create_object, load_config
        from depth_anything_3.registry import MODEL_REGISTRY

        tensors = standin_da3(SHAPES / f"da3_{size}_shapes.json")
        self.network, self.rays = build(tensors, "stand-in")
        self.theirs = create_object(load_config(MODEL_REGISTRY[f"da3-{size}"])).eval()
        assert not self.theirs.load_state_dict(tensors, strict=False).unexpected_keys

    def published(self, images: Tensor, known: Cameras | None) -> dict[str, Tensor]:
        normal = (images - MEAN[:, None, None]) / STD[:, None, None]
        given = (None, None) if known is None else (normalised(known.camera_from_world)[None], known.intrinsics[None])
        rays: dict[str, Tensor] = {}
        hook = self.theirs.head.register_forward_hook(lambda _, __, output: rays.update(output))
        found: Any = self.theirs(normal, *given)
        hook.remove()
        names = ("depth", "depth_conf", "extrinsics", "intrinsics")
        return {name: found[name] for name in names} | {name: rays[name] for name in ("ray", "ray_conf")}

    def ours(self, images: Tensor, known: Cameras | None) -> dict[str, Tensor]:
        told = None if known is None else encode_known(known, *images.shape[-2:])[None]
        return outputs(self.network, self.rays, images, told)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair("small")


def cameras(views: int) -> Cameras:
    generator = torch.Generator().manual_seed(views)
    rotation = quaternion_to_matrix(torch.randn(views, 4, generator=generator))
    intrinsics = torch.tensor([[90.0, 0, 50], [0, 80, 40], [0, 0, 1]]).repeat(views, 1, 1)
    return Cameras(rigid(rotation, torch.randn(views, 3, generator=generator)), intrinsics)


@pytest.mark.parametrize("told", [False, True], ids=["images", "poses"])
@pytest.mark.parametrize("size", [(1, 42, 42), (2, 70, 112), (5, 98, 42), (9, 28, 56)], ids=str)
def test_small_says_what_the_package_says(pair: Pair, size: tuple[int, int, int], told: bool) -> None:
    views, height, width = size
    images = torch.rand(1, views, 3, height, width, generator=torch.Generator().manual_seed(views))
    known = cameras(views) if told else None
    with torch.inference_mode():
        theirs, ours = pair.published(images, known), pair.ours(images, known)
    for name, expected in theirs.items():
        assert float((ours[name] - expected).norm() / expected.norm()) < 1e-5, name


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_metric_depth_is_the_packages() -> None:
    from depth_anything_3.cfg import create_object, load_config
    from depth_anything_3.registry import MODEL_REGISTRY

    tensors = standin_da3(SHAPES / "da3metric_large_shapes.json")
    with torch.device("meta"):
        ours = DA3Metric().eval()
    load_da3_metric(ours, tensors, "stand-in")
    theirs = create_object(load_config(MODEL_REGISTRY["da3metric-large"])).eval()
    theirs.load_state_dict(tensors)
    theirs._process_mono_sky_estimation = lambda output: output  # fills the sky with what it finds elsewhere
    for height, width in ((70, 112), (98, 42)):
        images = torch.rand(1, 2, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.inference_mode():
            expected = theirs((images - MEAN[:, None, None]) / STD[:, None, None])
            depth, sky = ours(images[0]).unbind(1)
        for found, wanted in ((depth, expected.depth[0]), (sky, expected.sky[0])):
            assert float((found - wanted).norm() / wanted.norm()) < 1e-5


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_base_at_its_own_size_and_no_slower() -> None:
    pair = Pair("base")
    images = torch.rand(1, 3, 3, 518, 518, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        theirs, ours = pair.published(images, None), pair.ours(images, None)
        for name, expected in theirs.items():
            assert float((ours[name] - expected).norm() / expected.norm()) < 1e-5, name
        images = images[:, :2, :, :252, :336]
        network = pair.network

        def run_ours() -> None:
            layers = network.estimate_cameras(images, network.aggregator.encode(images))[1].layers
            network.depth_head([layer[0, :, 1:] for layer in layers], (18, 24), images[0])

        runs = {"ours": run_ours, "theirs": lambda: pair.published(images, None)}
        best = dict.fromkeys(runs, math.inf)
        for name in 4 * list(runs):  # in turns, so that what else the machine does slows both
            start = time.perf_counter()
            runs[name]()
            best[name] = min(best[name], time.perf_counter() - start)
    assert best["ours"] < 1.1 * best["theirs"], best
