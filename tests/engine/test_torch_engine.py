"""The torch engine: what it does on a GPU, shown on the CPU as far as that goes."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.network.standin import tiny_da3
from ff3r_model.core.types import Window
from ff3r_model.engine import half_precision as half
from ff3r_model.engine import torch_engine
from ff3r_model.engine.torch_engine import TorchConfig, TorchEngine
from ff3r_model.network import FF3R, FF3RConfig, NetworkOutput
from ff3r_model.network.sparse_attention import SparseConfig

CONFIGS = {
    "trained": FF3RConfig.nano(),
    "lifting": replace(FF3RConfig.nano(), decode_gaussians=False),
    "da3": tiny_da3(),
}


@pytest.fixture(scope="module", params=CONFIGS)
def network(request: pytest.FixtureRequest) -> FF3R:
    torch.manual_seed(0)
    return FF3R(CONFIGS[request.param]).eval().requires_grad_(False)


def run(network: FF3R, images: torch.Tensor) -> NetworkOutput:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        return network(images, semantics=False)


def test_weights_in_bf16_give_what_autocast_gives(network: FF3R) -> None:
    images = torch.rand(1, 3, 3, 42, 56)
    expected = run(network, images)
    halved = copy.deepcopy(network)
    half.halve_weights(halved)
    got = run(halved, images)
    assert torch.equal(got.depth, expected.depth) and torch.equal(got.pose_encodings, expected.pose_encodings)
    assert torch.equal(got.tokens, expected.tokens)
    if expected.gaussians is None:
        assert torch.equal(got.lifted, expected.lifted)
    else:
        assert torch.equal(got.gaussians.feature, expected.gaussians.feature)
    before, after = (sum(p.nbytes for p in n.parameters()) for n in (network, halved))
    assert after < 0.65 * before, "most weights are matrices"


def test_what_computes_in_float32_keeps_its_weights(network: FF3R) -> None:
    halved = copy.deepcopy(network)
    half.halve_weights(halved)
    for part in (halved.camera_head, halved.depth_head, halved.feature_decoder):
        assert {p.dtype for p in part.parameters()} == {torch.float32}
    if network.config.takes_known_cameras:
        assert {p.dtype for p in halved.aggregator.camera_encoder.parameters()} == {torch.float32}
    block = halved.aggregator.all_blocks[-1]
    assert block.attn.qkv.weight.dtype == torch.bfloat16 and block.norm1.weight.dtype == torch.float32


def test_neither_half_of_the_network_reads_a_value_back(network: FF3R) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):  # raises where a tensor's value is asked for
        images = torch.empty(1, 4, 3, 42, 56)
        output = network.decode_window(images, network.encode_frames(images), SparseConfig())
    assert output.depth.shape == (1, 4, 42, 56)


def test_blocks_are_compiled_one_by_one(network: FF3R, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[dict[str, object]] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: compiled.append(options))
    torch_engine.compile_blocks(network)
    sizes = network.config
    beyond = 2 * sizes.aggregator.depth + sizes.camera.depth if sizes.da3 is None else 4
    assert compiled == [{"dynamic": True}] * (sizes.encoder.depth + sizes.lseg.vit.depth + beyond)


def test_sparse_attention_reaches_the_prediction(network: FF3R) -> None:
    ids = (0, 1, 2)
    window = Window(torch.rand(3, 3, 42, 56), ids, ids)
    exact, same, fewer = (
        TorchEngine(network, config=TorchConfig(sparse=sparse))(window).depth
        for sparse in (None, SparseConfig(early=0, stride=1), SparseConfig())
    )
    torch.testing.assert_close(same, exact, rtol=1e-4, atol=1e-5)
    assert (fewer - exact).abs().max() > 10 * (same - exact).abs().max()


def test_what_the_network_cannot_see_is_refused(network: FF3R) -> None:
    with pytest.raises(ValueError, match="multiples of 14"):
        TorchEngine(network)(Window(torch.rand(2, 3, 40, 56), (0, 1), (0, 1)))
