"""The benchmark's judgement of a predictor that knows the truth, of the constant one, and of windows in a manifest."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from ff3r_model.core.geometry import (
    invert_rigid,
    quaternion_to_matrix,
    rigid,
    transform_points,
    transform_pose,
    unproject,
)
from ff3r_model.core.text_space import TextSpace
from ff3r_model.core.types import SH_C0, Cameras, Gaussians, Prediction, Similarity, Window
from ff3r_model.evaluation.accumulators import Figures
from ff3r_model.evaluation.benchmark import Judge, run
from ff3r_model.evaluation.held_out_rooms import CLEARANCE, TARGETS, held_out_sample, held_out_window
from ff3r_model.evaluation.image_quality import ImageQuality
from ff3r_model.evaluation.novel_views import camera_similarity
from ff3r_model.evaluation.sample import Sample
from ff3r_model.evaluation.vocabulary import attributes, of_rooms
from ff3r_model.network.public_weights.compact_space import shipped_words
from ff3r_model.synthetic import CLASSES, COLORS, make_room
from ff3r_model.training.datasets.room_shards import render_shard
from ff3r_model.training.text.corpus import build_corpus
from ff3r_model.training.text.word_lists import word_groups

SIZE, VIEWS = (70, 70), 4
DIMS = len(CLASSES) + len(COLORS)
GAUGE = Similarity(1.7, quaternion_to_matrix(torch.tensor([0.8, 0.3, -0.4, 0.2])), torch.tensor([0.4, -1.0, 2.0]))
"""The frame and unit that the all-knowing predictor answers in."""


@cache
def sample(seed: int) -> Sample:
    return held_out_sample(seed, VIEWS, SIZE)


def embed(words: list[str]) -> Tensor:
    """Words in a space with an axis for each class and each colour; a synonym is its class."""
    owners = {
        word: name for file in ("unseen", "synonyms") for name, group in word_groups(file).items() for word in group
    }
    rows = torch.zeros(len(words), DIMS)
    for row, word in zip(rows, words, strict=True):
        color, _, rest = word.partition(" ")
        name = owners.get(word, word if word in CLASSES else rest)
        row[CLASSES.index(name)] = 1
        if name == rest and color in COLORS:
            row[len(CLASSES) + COLORS.index(color)] = 1
    return rows


def features(classes: Tensor, colors: Tensor) -> Tensor:
    """What a pixel means in that space."""
    return torch.cat(
        [torch.eye(len(CLASSES))[classes.flatten()], 0.5 * torch.eye(len(COLORS))[colors.flatten()]], dim=1
    )


def all_knowing(given: Sample) -> Prediction:
    """The truth about a window, in another frame and unit."""
    truth = given.context
    depth = truth.depth * GAUGE.scale
    pose = transform_pose(GAUGE, invert_rigid(truth.cameras.camera_from_world))
    points = transform_points(pose, unproject(depth, truth.cameras.intrinsics).flatten(1, 2)).flatten(0, 1)
    footprint = (depth / truth.cameras.intrinsics[:, 0, 0, None, None]).flatten()
    count = len(points)
    gaussians = Gaussians(
        means=points,
        scales=(0.5 * footprint)[:, None].expand(-1, 3).contiguous(),
        quaternions=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        harmonics=((truth.images.permute(0, 2, 3, 1).reshape(-1, 1, 3) - 0.5) / SH_C0),
        opacities=torch.full((count,), 0.95),
        confidences=torch.zeros(count),
        features=features(truth.classes, truth.colors),
    )
    cameras = Cameras(invert_rigid(pose), truth.cameras.intrinsics)
    return Prediction(cameras, depth, torch.ones_like(depth), gaussians)


def figures_of(samples: list[Sample], predictions: list[Prediction]) -> Figures:
    judge = Judge(embed, TextSpace(torch.eye(DIMS)), of_rooms())
    answers = iter(predictions)

    def engine(window: Window) -> Prediction:
        return next(answers)

    for shown in run(samples, engine, judge, torch.device("cpu")):
        assert shown.labels.shape == shown.depth.shape
    return judge.figures()


@cache
def knowing_figures() -> Figures:
    return figures_of([sample(0), sample(3)], [all_knowing(sample(0)), all_knowing(sample(3))])


def test_who_knows_the_truth_makes_no_error_in_any_frame_and_unit() -> None:
    figures = knowing_figures()
    assert figures["depth_rel"] == pytest.approx(0, abs=1e-4) and figures["depth_tau"] == 1
    assert figures["auc5"] == figures["auc30"] == pytest.approx(1, abs=1e-6)
    assert figures["ate"] == pytest.approx(0, abs=1e-3)
    for name in ("miou", "miou_attributes", "miou_synonyms", "miou_synonyms_taught", "accuracy"):
        assert figures[name] == pytest.approx(1), name


def test_the_truth_renders_like_the_held_out_views() -> None:
    figures = knowing_figures()
    assert figures["psnr"] > figures["copied_psnr"] + 4 and figures["psnr"] > figures["constant_psnr"] + 4
    assert figures["ssim"] > figures["copied_ssim"] + 0.2
    assert figures["accuracy_rendered"] > 0.9
    assert figures["lpips"] is None, "not measured without a trunk"
    assert figures["voxels"] < figures["gaussians"] == VIEWS * SIZE[0] * SIZE[1]


def test_a_wrong_camera_is_seen_in_the_poses_and_in_the_picture() -> None:
    good = all_knowing(sample(0))
    turn = rigid(quaternion_to_matrix(torch.tensor([0.98, 0.0, 0.2, 0.0])), torch.zeros(3))
    poses = good.cameras.camera_from_world.clone()
    poses[1] = turn @ poses[1]
    bad = Prediction(Cameras(poses, good.cameras.intrinsics), good.depth, good.depth_confidence, good.gaussians)
    figures = figures_of([sample(0)], [bad])
    assert figures["auc30"] < 0.8
    assert figures["psnr"] < figures_of([sample(0)], [good])["psnr"] - 1


def test_known_intrinsics_are_given_where_the_figures_say_so() -> None:
    """A predictor that is right only where it is told the intrinsics gets full marks for that alone."""
    good = all_knowing(sample(0))
    poses = good.cameras.camera_from_world.clone()
    poses[1:, :3, 3] += 1.0
    bad = Prediction(Cameras(poses, good.cameras.intrinsics), good.depth, good.depth_confidence, good.gaussians)

    def engine(window: Window) -> Prediction:
        if window.intrinsics is None:
            return bad
        assert torch.equal(window.intrinsics, sample(0).context.cameras.intrinsics)
        return good

    judge = Judge(embed, TextSpace(torch.eye(DIMS)), of_rooms())
    for _ in run([sample(0)], engine, judge, torch.device("cpu"), engine):
        pass
    figures = judge.figures()
    assert figures["auc30_calibrated"] == pytest.approx(1, abs=1e-6)
    assert figures["auc30"] == figures["auc30_refined"] < 0.8
    assert figures["seconds_per_window"] > 0 and figures["seconds_per_window_refined"] > 0


def test_the_constant_predictor_by_hand() -> None:
    figures = knowing_figures()
    truth = torch.cat([sample(seed).context.classes.flatten() for seed in (0, 3)])
    counts = torch.bincount(truth, minlength=len(CLASSES))
    assert figures["constant_accuracy"] == pytest.approx(float(counts.max() / counts.sum()))
    wanted = float(counts.max() / counts.sum()) / int((counts > 0).sum())
    assert figures["constant_miou"] == pytest.approx(wanted, rel=1e-4)
    rel = []
    for seed in (0, 3):
        depth = sample(seed).context.depth.double()
        middle = depth[depth > 0].median()
        rel.append(float(((middle - depth).abs() / depth)[depth > 0].mean()))
    assert figures["constant_depth_rel"] == pytest.approx(sum(rel) / 2, rel=1e-3)
    target = sample(0).targets
    assert target is not None
    error = (sample(0).context.images.mean((0, 2, 3))[:, None, None] - target.images).square().mean((1, 2, 3))
    alone = figures_of([sample(0)], [all_knowing(sample(0))])
    assert alone["constant_psnr"] == pytest.approx(float((-10 * error.log10()).mean()), rel=1e-3)


class Difference(torch.nn.Module):
    """In LPIPS' place: the mean difference."""

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        return (images - others).abs().mean()


def test_image_figures_are_means_over_views() -> None:
    quality = ImageQuality(Difference())
    truth, images = torch.full((3, 3, 16, 16), 0.5), torch.full((3, 3, 16, 16), 0.5)
    images[0] += 0.1
    images[1] += 0.2
    images[2] -= 0.3
    quality.add(images[:2], truth[:2])
    quality.add(images[2:], truth[2:])
    figures = quality.figures()
    assert figures["psnr"] == pytest.approx(-10 * sum(math.log10(d * d) for d in (0.1, 0.2, 0.3)) / 3, rel=1e-4)
    assert figures["lpips"] == pytest.approx(0.2, rel=1e-4)


def test_held_out_views_lie_between_the_views_and_clear_of_things() -> None:
    for seed in (0, 3, 5):
        given = sample(seed)
        arrays = render_shard(seed, 1, VIEWS, SIZE)
        assert given.targets is not None and 1 <= len(given.targets) <= TARGETS
        world_from_camera = torch.from_numpy(arrays["world_from_camera"][0]).float()
        centres = invert_rigid(given.targets.cameras.camera_from_world)[:, :3, 3] * given.metres
        in_room = transform_points(world_from_camera[0], centres)
        middles = (world_from_camera[:-1, :3, 3] + world_from_camera[1:, :3, 3]) / 2
        assert torch.cdist(in_room, middles).amin(1).max() < 1e-3
        assert make_room(seed).clearance(in_room).min() > CLEARANCE - 1e-3


def test_held_out_views_show_what_the_depth_says() -> None:
    """Their points, seen from the context's cameras, have the context's classes."""
    given = sample(3)
    targets, context = given.targets, given.context
    assert targets is not None
    points = unproject(targets.depth, targets.cameras.intrinsics).flatten(1, 2)
    world = transform_points(invert_rigid(targets.cameras.camera_from_world), points).flatten(0, 1)
    agree, seen = 0, 0
    for view in range(len(context)):
        local = transform_points(context.cameras.camera_from_world[view], world)
        matrix = context.cameras.intrinsics[view]
        pixel = (local[:, :2] / local[:, 2:] @ matrix[:2, :2].T + matrix[:2, 2]).floor().long()
        inside = (local[:, 2] > 0) & (pixel >= 0).all(1) & (pixel < SIZE[0]).all(1)
        u, v = pixel[inside].T
        near = (context.depth[view, v, u] / local[inside, 2] - 1).abs() < 0.02
        agree += int((context.classes[view, v, u] == targets.classes.flatten()[inside])[near].sum())
        seen += int(near.sum())
    assert seen > 2000 and agree > 0.97 * seen


def test_windows_are_those_of_before() -> None:
    truth = held_out_window(7, VIEWS, SIZE)
    assert torch.equal(truth.images[0], held_out_sample(7, VIEWS, SIZE).context.images)


def test_camera_similarity_recovers_the_gauge() -> None:
    truth = sample(0).context.cameras.camera_from_world
    ours = invert_rigid(transform_pose(GAUGE, invert_rigid(truth)))
    found = camera_similarity(ours, truth, GAUGE.scale)
    assert torch.allclose(found.rotation, GAUGE.rotation, atol=1e-5)
    assert torch.allclose(found.translation, GAUGE.translation, atol=1e-4)


def test_unread_synonyms_are_kept_from_the_text_tower() -> None:
    unseen = word_groups("unseen")
    assert tuple(unseen) == CLASSES
    words = [word for group in unseen.values() for word in group]
    assert len(set(words)) == 2 * len(CLASSES)
    assert not [word for name, group in unseen.items() for word in group if name in word.split()]
    corpus = build_corpus(CLASSES, COLORS, None, 0, 0.04)
    texts = {text for pairs in corpus.pools.values() for pair in pairs for text in pair}
    assert not texts & set(words) and not set(words) & set(shipped_words())


def test_attribute_phrases_cover_what_rooms_show() -> None:
    vocabulary = attributes()
    for seed in (0, 3):
        truth = sample(seed).context
        ids = vocabulary.truth(truth)
        assert (ids >= 0).all()
        y, x = SIZE[0] // 2, SIZE[1] // 3
        name, color = CLASSES[truth.classes[0, y, x]], COLORS[truth.colors[0, y, x]]
        assert vocabulary.words[ids[0, y, x]] == f"{color} {name}"
