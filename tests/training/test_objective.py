"""The supervised objective teaches the part that it is told to, and that part learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ff3r_model.core.geometry import field_of_view, quaternion_to_matrix
from ff3r_model.core.types import SH_C0
from ff3r_model.network.model import FF3R
from ff3r_model.synthetic import CLASSES, COLORS
from ff3r_model.training.datasets.base import Share
from ff3r_model.training.datasets.batches import TrainingBatch
from ff3r_model.training.datasets.room_shards import write_shards
from ff3r_model.training.datasets.room_windows import RoomConfig, RoomWindows
from ff3r_model.training.objectives.camera_losses import pair_loss
from ff3r_model.training.objectives.dense_losses import at_pixels, balanced_pixels, phrase_loss
from ff3r_model.training.objectives.patch_matching import flow_loss, matching_loss, patch_matches, patch_points
from ff3r_model.training.objectives.supervised import LossWeights, Objective, Part, SupervisedConfig, TextTargets
from tests.support.training_run import tiny_config

WORDS, GEOMETRY = {"lseg"}, {"aggregator", "camera_head"}


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> TrainingBatch:
    folder = tmp_path_factory.mktemp("rooms")
    write_shards(folder, 100_000, 1, 1, 4)
    return RoomWindows(folder, 0, RoomConfig(total_views=3, views=(3,))).batch(0, Share())


def objective(part: Part, weights: LossWeights | None = None) -> Objective:
    generator = torch.Generator().manual_seed(1)
    classes, phrases = (torch.randn(n, 8, generator=generator) for n in (len(CLASSES), len(CLASSES) * len(COLORS)))
    targets = TextTargets(*(torch.nn.functional.normalize(x, dim=1) for x in (classes, phrases)))
    config = SupervisedConfig(weights or LossWeights(), part, matching_blocks=(0, 1), pixels_per_view=64)
    return Objective(config, targets, tiny_config().width)


@pytest.mark.parametrize(("part", "taught"), [("words", WORDS), ("geometry", GEOMETRY)])
def test_one_part_leaves_the_rest_alone(part: Part, taught: set[str], batch: TrainingBatch) -> None:
    torch.manual_seed(0)
    network, teaching = FF3R(tiny_config()), objective(part)
    terms = teaching(network, batch)
    terms["total"].backward()
    touched = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == taught
    weighted = sum(getattr(teaching.config.weights, name) * term for name, term in terms.items() if name != "total")
    assert torch.allclose(terms["total"], torch.as_tensor(weighted))


def test_all_of_the_network_is_taught_at_once(batch: TrainingBatch) -> None:
    torch.manual_seed(0)
    network, teaching = FF3R(tiny_config()), objective("all")
    teaching(network, batch)["total"].backward()
    touched = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == {name.split(".")[0] for name, _ in network.named_parameters()}


@pytest.mark.parametrize("part", ["words", "geometry"])
def test_each_part_learns_a_window_by_heart(part: Part, batch: TrainingBatch) -> None:
    torch.manual_seed(0)
    network, teaching = FF3R(tiny_config()), objective(part)
    optimizer = torch.optim.Adam([*network.parameters(), *teaching.parameters()], 3e-3)
    losses = []
    for _ in range(40):
        terms = teaching(network, batch)
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
        losses.append(float(terms["total"].detach()))
    assert losses[-1] < 0.8 * losses[0], f"{Path(__file__).name}: {losses[0]:.2f} to {losses[-1]:.2f}"


WEIGHTS = {
    "pair": 1.0, "rotation": 1.0, "translation": 3.0, "field_of_view": 1.0, "contrast": 0.3, "matching": 0.5,
    "flow": 0.3, "pose_probe": 0.2, "point_probe": 0.3, "depth": 1.0, "depth_gradient": 0.5, "color": 0.5,
    "gaussian": 0.1, "semantics": 0.5, "feature": 0.5,
}  # fmt: skip
"""The weights that `nano` was trained with, and the order in which terms are summed."""


def discounted(errors: Tensor) -> Tensor:
    """Mean errors of the camera head's iterations, each counting 0.6 of the next."""
    shares = [0.6 ** (len(errors) - 1 - k) for k in range(len(errors))]
    return sum((share * error for share, error in zip(shares, errors, strict=True)), torch.zeros(())) / sum(shares)


def camera_terms(encodings: Tensor, batch: TrainingBatch) -> dict[str, Tensor]:
    assert batch.truth is not None
    truth = batch.truth
    pose, rotation = truth.camera_from_world, quaternion_to_matrix(encodings[..., [6, 3, 4, 5]])
    angles = field_of_view(truth.intrinsics, *batch.images.shape[-2:])
    chordal = ((rotation - pose[..., :3, :3]).square().flatten(-2).sum(-1) + 1e-8).sqrt()
    apart = (encodings[..., :3] - pose[..., :3, 3]).abs()
    huber = torch.where(apart < 0.05, apart.square() / 0.1, apart - 0.025).sum(-1)
    return {
        "pair": discounted(pair_loss(rotation, encodings[..., :3], pose).mean(1)),
        "rotation": discounted((chordal + 0.1 * (encodings[..., 3:7].norm(dim=-1) - 1) ** 2).mean((1, 2))),
        "translation": discounted(huber.mean((1, 2))),
        "field_of_view": discounted((encodings[..., 7:] - angles).abs().sum(-1).mean((1, 2))),
    }


def matching_terms(teaching: Objective, network: FF3R, batch: TrainingBatch) -> dict[str, Tensor]:
    """From the aggregator, played block by block."""
    assert batch.truth is not None
    truth, aggregator = batch.truth, network.aggregator
    patch, size = aggregator.patch, batch.images.shape[-2:]
    grid, views = (size[0] // patch, size[1] // patch), batch.images.shape[1]
    count, (matches, visible) = grid[0] * grid[1], patch_matches(truth, patch)
    patches = aggregator.encode(batch.images)
    unit = F.normalize(teaching.contrast(patches), dim=-1)
    cosines = torch.stack([torch.stack([unit[:, v] @ unit[:, t].mT for t in range(views)], 2) for v in range(views)], 1)
    terms = {"contrast": matching_loss((10 * cosines).log_softmax(-1), matches, visible, grid)}
    rope, tokens, inputs, outputs = aggregator.rope(*size, patches.device), aggregator.with_special(patches), [], []
    length = tokens.shape[2]
    for frame_block, global_block in zip(aggregator.frame_blocks, aggregator.global_blocks, strict=True):
        inputs.append(frame_block(tokens.flatten(0, 1), rope).view(tokens.shape))
        tokens = global_block(inputs[-1].flatten(1, 2), rope.repeat(views)).view(tokens.shape)
        outputs.append(tokens)
    found: dict[str, list[Tensor]] = {"matching": [], "flow": [], "pose_probe": [], "point_probe": []}
    for block, probe in zip((0, 1), teaching.flow, strict=True):
        attention = aggregator.global_blocks[block].attn
        normed = aggregator.global_blocks[block].norm1(inputs[block].flatten(1, 2))
        queries, keys = attention.queries_keys(normed, rope.repeat(views))
        logits = queries[:, :2] @ keys[:, :2].mT / queries.shape[-1] ** 0.5
        logits = logits.unflatten(-2, (views, length)).unflatten(
            -1, (views, length)
        )  # batch head view token view token
        everywhere = logits[:, 0].flatten(-2).log_softmax(-1).unflatten(-1, (views, length))
        within = logits[:, 1, :, -count:, :, -count:].log_softmax(-1)
        first = everywhere[:, :, -count:, :1, -count:]
        found["matching"] += [matching_loss(first, matches[:, :, :1], visible[:, :, :1], grid)]
        found["matching"] += [matching_loss(within, matches, visible, grid)]
        found["flow"] += [flow_loss(probe(outputs[block][:, :, -count:]), matches, visible)]
    for block, pose, point in zip((2, -2, -1), teaching.pose, teaching.point, strict=True):
        entries = pose(outputs[block][:, :, 0]) - truth.camera_from_world[..., :3, :].flatten(-2)
        found["pose_probe"] += [entries.abs().sum(-1).mean()]
        points = point(outputs[block][:, :, -count:]) - patch_points(truth, patch)
        found["point_probe"] += [points.abs().sum(-1).mean()]
    return terms | {name: sum(values, torch.zeros(())) / len(values) for name, values in found.items()}


def dense_terms(teaching: Objective, network: FF3R, batch: TrainingBatch, picks: Tensor) -> dict[str, Tensor]:
    """From the network's whole output for one window."""
    assert batch.truth is not None
    truth, output = batch.truth, network(batch.images)
    raw = output.gaussians
    assert raw is not None and output.semantics is not None
    depth, confidence, true = output.depth[0], output.depth_confidence[0], truth.depth[0]
    known = true > 0
    error = torch.where(known, depth.clamp(min=1e-4).log() - true.clamp(min=1e-4).log(), 0.0)
    both = known[:, :, 1:] & known[:, :, :-1], known[:, 1:] & known[:, :-1]
    every = (depth.detach().clamp(min=1e-4).log() - true.clamp(min=1e-4).log()).abs()
    unrotated = torch.tensor([1.0, 0, 0, 0])[:, None, None]
    terms = {
        "depth": ((confidence * error.abs() - 0.1 * confidence.log()) * known).mean(),
        "depth_gradient": (error.diff(dim=2).abs() * both[0]).mean() + (error.diff(dim=1).abs() * both[1]).mean(),
        "color": (raw.harmonics[0, :, :3] * SH_C0 + 0.5 - batch.images[0]).abs().mean(),
        "gaussian": raw.log_scale.abs().mean()
        + (F.normalize(raw.quaternion[0], dim=1) - unrotated).abs().mean()
        - raw.opacity_logit.sigmoid().log().mean()
        + F.smooth_l1_loss(raw.confidence_logit[0, :, 0], -10 * every.clamp(max=0.5)),
    }
    classes, colors = truth.classes[0, picks], truth.colors[0, picks]
    for name, features in {"semantics": output.semantics[0, picks], "feature": raw.feature[0, picks]}.items():
        places = balanced_pixels(classes.flatten(1), 64, len(CLASSES))
        rows = at_pixels(features, places, classes.shape[-2:]).flatten(0, 1)
        rows = network.feature_decoder(rows) if name == "feature" else rows
        things, paints = (x.flatten(1).gather(1, places).flatten() for x in (classes, colors))
        phrases = torch.where(paints >= 0, things * len(COLORS) + paints, -1)
        named = phrase_loss(rows, things, teaching.classes, 0.07)
        terms[name] = named + 0.5 * phrase_loss(rows, phrases, teaching.phrases, 0.07)
    return terms


def test_the_objective_is_the_weighted_sum_of_losses_computed_by_hand(batch: TrainingBatch) -> None:
    torch.manual_seed(0)
    network, teaching = FF3R(tiny_config()), objective("all", LossWeights(rotation=2.0, feature=0.25))
    torch.manual_seed(1)
    terms = teaching(network, batch)
    torch.manual_seed(1)
    picks = torch.randperm(3)
    encodings = network(batch.images).pose_encodings
    expected = camera_terms(encodings, batch) | matching_terms(teaching, network, batch)
    expected |= dense_terms(teaching, network, batch, picks)
    weights = WEIGHTS | {"rotation": 2.0, "feature": 0.25}
    assert list(terms) == [*WEIGHTS, "total"] and expected.keys() == WEIGHTS.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            terms[name], value, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert torch.equal(terms["total"], torch.stack([weights[name] * terms[name] for name in WEIGHTS]).sum())
    assert {loss.name: loss.weight for loss in teaching.losses} == weights


def test_a_part_is_the_sum_of_its_own_losses(batch: TrainingBatch) -> None:
    for part, names in {"words": ["semantics"], "geometry": list(WEIGHTS)[:9]}.items():
        torch.manual_seed(0)
        terms = objective(part)(FF3R(tiny_config()), batch)  # type: ignore[arg-type]
        assert list(terms) == [*names, "total"]
        assert torch.equal(terms["total"], torch.stack([WEIGHTS[name] * terms[name] for name in names]).sum())
