"""Metres from single images: the formula, whose turn it is, and what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ff3r_model.core.types import Cameras, Prediction, Window
from ff3r_model.engine.metric_depth import MetricDepth, MetricDepthConfig
from ff3r_model.network.checkpoint import CheckpointError
from ff3r_model.network.config import DPTConfig, ViTConfig
from ff3r_model.network.da3_metric import DA3Metric, MetricConfig, metres
from tests.support.random_gaussians import gaussians

VIEWS, HEIGHT, WIDTH = 3, 28, 42
DECODER = DPTConfig(channels=(8, 8, 8, 8), features=8, hidden=(8, 8), relu_skip=False)
VIT = ViTConfig(width=16, depth=4, heads=2, grid=4, registers=0, interpolation="bicubic_scaled")
TINY = MetricConfig(VIT, (0, 1, 2, 3), DECODER)


class Sees(DA3Metric):
    """Says what it is told to, whatever it is shown."""

    def __init__(self, depth: Tensor, sky: Tensor) -> None:
        super().__init__(TINY)
        self.says = torch.stack([depth, sky])[None]

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape == (1, 3, HEIGHT, WIDTH)
        return self.says


def window() -> Window:
    ids = tuple(range(VIEWS))
    return Window(torch.rand(VIEWS, 3, HEIGHT, WIDTH), ids, ids)


def prediction(depth: Tensor, confidence: Tensor) -> Prediction:
    intrinsics = torch.tensor([[50.0, 0, 21], [0, 70, 14], [0, 0, 1]]).repeat(VIEWS, 1, 1)
    cameras = Cameras(torch.eye(4).repeat(VIEWS, 1, 1), intrinsics)
    return Prediction(cameras, depth, confidence, gaussians(depth.numel()))


def test_metres_are_output_by_focal_length() -> None:
    output = torch.tensor([6.0, 0.29, 3.0, 0.31]).view(2, 2, 1, 1)
    intrinsics = torch.tensor([[100.0, 0, 0], [0, 200, 0], [0, 0, 1]]).repeat(2, 1, 1)
    torch.testing.assert_close(metres(output, intrinsics), torch.tensor([3.0, 0.0]).view(2, 1, 1))


def test_scale_is_of_the_surer_pixels_below_the_sky() -> None:
    true = 1 + torch.rand(HEIGHT, WIDTH)
    depth = true.expand(VIEWS, -1, -1) / 2.5
    confidence = torch.full_like(depth, 2.0)
    depth, sky = depth.clone(), torch.zeros(HEIGHT, WIDTH)
    confidence[-1, :10], depth[-1, :10] = 1.0, 77.0  # doubtful, and wrong
    sky[10:12], depth[-1, 10:12] = 1.0, 0.001
    said = MetricDepth(Sees(true * 300 / 60, sky), every=2)
    found = [said(window(), prediction(depth, confidence)).metres_per_unit for _ in range(4)]
    assert found == [pytest.approx(2.5), None, pytest.approx(2.5), None]


def test_a_view_of_the_sky_says_nothing() -> None:
    one = torch.ones(HEIGHT, WIDTH)
    same = one.expand(VIEWS, -1, -1)
    assert MetricDepth(Sees(one, one), every=1)(window(), prediction(same, same)).metres_per_unit is None


def test_a_network_of_the_class_runs() -> None:
    torch.manual_seed(0)
    found = MetricDepth(DA3Metric(TINY), every=1)(window(), prediction(*torch.rand(2, VIEWS, HEIGHT, WIDTH) + 1))
    assert found.metres_per_unit is None or found.metres_per_unit > 0


def test_only_the_metric_file_is_taken(tmp_path: Path) -> None:
    assert MetricDepth.from_config(MetricDepthConfig(), "cpu") is None
    names = ("backbone.pretrained.cls_token", "cam_dec.fc_t.weight")
    save_file({f"model.{name}": torch.zeros(1) for name in names}, tmp_path / "any.safetensors")
    with pytest.raises(CheckpointError, match=r"any\.safetensors has no .*sky.*DA3METRIC-LARGE is wanted"):
        MetricDepth.from_config(MetricDepthConfig(tmp_path / "any.safetensors"), "cpu")
    with pytest.raises(ValueError, match="every must be"):
        MetricDepthConfig(every=0)
