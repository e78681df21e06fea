"""Depth Anything 3 with TIPSv2 as ONNX graphs: onnxruntime against torch, and plans by TensorRT-RTX."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.network.parity_da3 import standin_da3
from benchmarks.network.standin import tiny_da3
from ff3r_model.engine.onnx.export import ExportConfig
from ff3r_model.engine.onnx.manifest import GRAPHS, graph_path
from ff3r_model.engine.tensorrt.build import Profile, build_plan
from ff3r_model.engine.tensorrt.library import load_library
from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network.config import TIPSv2Config
from ff3r_model.network.public_weights.da3 import load_da3
from tests.engine.test_export import LIMITS, SIZE, VIEWS, errors, randomised
from tests.support import tiny_tipsv2
from tests.support.exports import export_unchecked

SHAPES = Path(__file__).parents[1] / "reference" / "da3_small_shapes.json"
BUILT = [pytest.mark.long, pytest.mark.timeout(1800)]


def with_words(geometry: FF3RConfig, words: TIPSv2Config) -> FF3RConfig:
    """In lifting mode."""
    return replace(geometry, lseg=None, tipsv2=words, text_width=words.vit.width, decode_gaussians=False)


def tiny() -> FF3R:
    return randomised(with_words(tiny_da3(), tiny_tipsv2.IMAGE))


def small() -> FF3R:
    """Stand-in geometry of the published size, and TIPSv2-B with its initial weights."""
    network = FF3R(with_words(FF3RConfig.da3_small(), TIPSv2Config.b14())).eval()
    load_da3(network, standin_da3(SHAPES), "stand-in")
    return network


@pytest.fixture(scope="module", params=[tiny, pytest.param(small, marks=BUILT)], ids=lambda make: make.__name__)
def network(request: pytest.FixtureRequest) -> FF3R:
    torch.manual_seed(0)
    return request.param()


@pytest.fixture(scope="module")
def folder(network: FF3R, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("da3") / "onnx"
    export_unchecked(network, ExportConfig(*SIZE, "float32"), folder)
    return folder


def test_da3_with_tipsv2_says_what_torch_says(network: FF3R, folder: Path) -> None:
    for views in VIEWS:
        found = errors(folder, network, views)
        assert max(found.values()) <= LIMITS["float32"], (views, found)
        assert {"pose_encodings", "depth", "depth_confidence", "patches"} <= found.keys()


@pytest.mark.parametrize("graph", GRAPHS)
def test_tensorrt_rtx_builds_plans_of_it(folder: Path, graph: str) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is on PyPI for Linux on x86-64 alone")
    profile = Profile(1 if graph == "frames" else 2, 8, 64)
    plan = build_plan(load_library(("tensorrt_rtx",)), graph_path(folder, graph), [profile], lambda *_: None)
    assert len(plan) > 1e4
