"""Groups, rates, averages and recomputed activations do what they say."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from ff3r_model.network.model import FF3R
from ff3r_model.training.config import TrainConfig
from ff3r_model.training.optimization import (
    Optimizers,
    freeze,
    freeze_statistics,
    optimizer,
    rate_share,
    recompute_activations,
    set_rate,
    update_average,
)
from ff3r_model.training.run_folder import RunError
from tests.support.training_run import tiny_config


def network() -> FF3R:
    torch.manual_seed(0)
    return FF3R(tiny_config())


def test_the_backbone_learns_more_slowly_and_only_matrices_decay() -> None:
    net, probe = network(), nn.Linear(3, 3)
    net.lseg.scratch.head1.requires_grad_(False)
    chosen = optimizer(net, probe, TrainConfig(steps=10, backbone_factor=0.1, weight_decay=0.3))
    set_rate(chosen, 2.0)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in chosen.param_groups for p in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in chosen.param_groups), "none twice"
    assert found[id(net.aggregator.patch_embed.patch_embed.proj.weight)] == (pytest.approx(0.2), 0.3)
    assert found[id(net.aggregator.patch_embed.patch_embed.proj.bias)] == (pytest.approx(0.2), 0.0)
    assert found[id(net.gaussian_head.semantic.weight)] == (2.0, 0.3) and found[id(probe.bias)] == (2.0, 0.0)
    trained = [p for module in (net, probe) for p in module.parameters() if p.requires_grad]
    assert set(found) == {id(p) for p in trained}


def test_one_rate_for_all_makes_two_groups_in_the_order_of_the_weights() -> None:
    net, probe = network(), nn.Linear(3, 3)
    matrices, vectors = optimizer(net, probe, TrainConfig(steps=10, backbone_factor=1.0)).param_groups
    every = [p for p in [*net.parameters(), *probe.parameters()] if p.requires_grad]
    assert [id(p) for p in matrices["params"]] == [id(p) for p in every if p.ndim > 1]
    assert [id(p) for p in vectors["params"]] == [id(p) for p in every if p.ndim <= 1]


def test_muon_takes_the_matrices_of_blocks_and_nothing_else() -> None:
    net, probe = network(), nn.Linear(3, 3)
    chosen = optimizer(net, probe, TrainConfig(steps=10, muon=True, muon_factor=3.0, backbone_factor=0.5))
    adam, muon = chosen.parts
    assert isinstance(adam, torch.optim.AdamW) and isinstance(muon, torch.optim.Muon)
    names = {id(p): name for name, p in net.named_parameters()}
    orthogonal = {names[id(p)]: group["factor"] for group in muon.param_groups for p in group["params"]}
    assert len(orthogonal) == 4 * (4 + 4 + 4 + 4 + 1), "four matrices per block: two encoders, aggregator, camera head"
    assert all(name.split(".")[-3] in ("attn", "mlp") and name.endswith("weight") for name in orthogonal)
    assert orthogonal["camera_head.trunk.0.attn.qkv.weight"] == 3.0
    assert orthogonal["aggregator.global_blocks.3.mlp.fc2.weight"] == 1.5
    held = [id(p) for group in chosen.param_groups for p in group["params"]]
    trained = [p for module in (net, probe) for p in module.parameters() if p.requires_grad]
    assert len(held) == len(set(held)) and set(held) == {id(p) for p in trained}


def test_several_optimizers_go_on_from_their_state() -> None:
    def steps(net: FF3R, chosen: Optimizers, count: int) -> None:
        for _ in range(count):
            chosen.zero_grad()
            torch.stack([p.sin().sum() for p in net.parameters() if p.requires_grad]).sum().backward()
            chosen.step()

    config = TrainConfig(steps=10, muon=True)
    whole, first = network(), network()
    steps(whole, optimizer(whole, nn.Identity(), config), 3)
    before = optimizer(first, nn.Identity(), config)
    steps(first, before, 2)
    after = optimizer(first, nn.Identity(), config)
    after.load_state_dict(before.state_dict())
    steps(first, after, 1)
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), first.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(network().parameters()))


def test_the_rate_rises_and_falls_as_half_a_cosine() -> None:
    assert rate_share(0.0, 0.1) == 0.01 and rate_share(0.05, 0.1) == 0.5 and rate_share(0.1, 0.1) == 1
    assert rate_share(0.55, 0.1) == pytest.approx(0.505) and rate_share(1.0, 0.1) == pytest.approx(0.01)
    assert rate_share(0.325, 0.1) == pytest.approx(0.01 + 0.99 * (1 + math.cos(math.pi / 4)) / 2)
    falling = [rate_share(step / 20, 0.1) for step in range(2, 21)]
    assert all(before > after for before, after in pairwise(falling)) and rate_share(1.2, 0.1) == pytest.approx(0.01)


def test_averages_forget_the_start_and_then_move_slowly() -> None:
    layer = nn.BatchNorm1d(2)
    average = {name: value.clone() for name, value in layer.state_dict().items()}
    expected = torch.ones(2)
    for step in range(1, 200):
        with torch.no_grad():
            layer.weight.fill_(float(step))
        layer.num_batches_tracked += 1
        update_average(average, layer, 0.9, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert torch.allclose(average["weight"], expected) and 185 < float(expected[0]) < 195
    assert int(average["num_batches_tracked"]) == 199


def test_recomputed_activations_give_the_same_gradients() -> None:
    images = torch.rand(1, 2, 3, 28, 28)

    def gradients(net: FF3R) -> dict[str, torch.Tensor]:
        output = net(images)
        assert output.gaussians is not None
        (output.depth.mean() + output.gaussians.feature.square().mean() + output.pose_encodings.sum()).backward()
        return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}

    plain, thrifty = network(), network()
    recompute_activations(thrifty)
    calls = []
    thrifty.aggregator.global_blocks[0].attn.register_forward_hook(lambda *_: calls.append(1))
    expected, found = gradients(plain), gradients(thrifty)
    assert len(calls) == 2, "computed again on the way back"
    assert expected.keys() == found.keys() and len(expected) > 100
    assert all(torch.allclose(expected[name], found[name], atol=1e-6) for name in expected)
    assert thrifty.state_dict().keys() == plain.state_dict().keys()


def test_frozen_weights_are_out_of_the_optimizer() -> None:
    net = network()
    freeze(net, ("lseg.", "aggregator.patch_embed."))
    chosen = optimizer(net, nn.Identity(), TrainConfig(steps=10, muon=True))
    names = {id(p): name for name, p in net.named_parameters()}
    held = {names[id(p)] for group in chosen.param_groups for p in group["params"]}
    frozen = {name for name in names.values() if name.startswith(("lseg.", "aggregator.patch_embed."))}
    assert frozen and held == set(names.values()) - frozen
    with pytest.raises(RunError, match="begins with 'lsegg'"):
        freeze(net, ("lsegg",))
    with pytest.raises(RunError, match="holds all weights: nothing is left to train"):
        freeze(net, ("",))


def test_statistics_stay_while_the_rest_trains() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    freeze_statistics(net)
    before = net[1].running_mean.clone()
    net(torch.randn(8, 2))
    assert net.training and torch.equal(net[1].running_mean, before)


@pytest.mark.parametrize("budget", [{}, {"steps": 3, "minutes": 1.0}, {"steps": 0}, {"minutes": -1.0}])
def test_a_run_has_one_budget(budget: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"budget|steps must be at least 1|minutes must be above 0"):
        TrainConfig(**budget)
