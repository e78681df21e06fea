"""Teachers say what their network or the world says; the cache keeps it, whole, within its limit, for these weights."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ff3r_model.network.decode import decode_cameras
from ff3r_model.network.model import FF3R
from ff3r_model.synthetic import CLASSES, COLORS
from ff3r_model.training.datasets.batches import TeacherTargets
from ff3r_model.training.datasets.room_shards import render_shard
from ff3r_model.training.datasets.room_views import make_window
from ff3r_model.training.target_cache import TargetCache, fingerprint
from ff3r_model.training.teachers import NetworkTeacher, SyntheticTeacher, Teacher
from tests.support.training_run import tiny_config

IDS = ("a", "b", "c", "d")


def network(seed: int = 0) -> FF3R:
    torch.manual_seed(seed)
    return FF3R(tiny_config())


def images(seed: int = 0) -> Tensor:
    """Two windows of two views whose pixels are whole bytes, as prepared images nearly are."""
    return torch.randint(0, 256, (2, 2, 3, 28, 28), generator=torch.Generator().manual_seed(seed)) / 255


class Counted(NetworkTeacher):
    """Counts the windows that its network really looks at."""

    asked = 0

    def _ask(self, images: Tensor) -> list[dict[str, Tensor]]:
        self.asked += len(images)
        return super()._ask(images)


def equal(first: TeacherTargets, second: TeacherTargets) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in first.__dataclass_fields__)


def test_the_network_teacher_says_what_its_network_says() -> None:
    teacher = NetworkTeacher(network())
    assert isinstance(teacher, Teacher)
    said = teacher(images(), IDS)
    with torch.no_grad():
        output = network().eval()(images())
    assert torch.allclose(said.depth, output.depth, rtol=1e-3)
    assert torch.allclose(said.depth_confidence, output.depth_confidence, rtol=1e-3)
    pose = output.pose_encodings[-1]
    assert torch.allclose(said.pose_encodings[..., :3], pose[..., :3])
    assert torch.allclose(said.pose_encodings[..., 3:7], normalize(pose[..., 3:7], dim=-1))
    assert output.semantics is not None and said.features.shape == (2, 2, 8, 7, 7)
    side = output.semantics.shape[-1]
    for row, column in ((0, 0), (3, 5), (6, 6)):  # means of the cells that a coarse one touches
        rows, columns = (slice(k * side // 7, -(-(k + 1) * side // 7)) for k in (row, column))
        mean = output.semantics[..., rows, columns].mean((-1, -2))
        assert torch.allclose(said.features[..., row, column], mean, atol=2e-3)
    assert not said.depth.requires_grad


def test_the_cache_gives_the_same_numbers_and_asks_once(tmp_path: Path) -> None:
    plain = NetworkTeacher(network())(images(), IDS)
    teacher = Counted(network(), TargetCache(tmp_path, network()))
    assert equal(teacher(images(), IDS), plain) and teacher.asked == 2
    again = Counted(network(), TargetCache(tmp_path, network()))
    assert equal(again(images(), IDS), plain) and again.asked == 0
    half = torch.cat([images()[:1], images(1)[:1]])
    again(half, IDS)
    assert again.asked == 1, "one window was known"
    again(images().flip(1), IDS)
    assert again.asked == 3, "another first view is another world"
    assert not list(tmp_path.glob(".*")), "nothing is left half written"


def test_other_weights_find_nothing_and_damage_is_made_good(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Counted(network(), TargetCache(tmp_path, network()))(images(), IDS)
    other = Counted(network(1), TargetCache(tmp_path, network(1)))
    other(images(), IDS)
    assert other.asked == 2
    damaged = max(tmp_path.glob("*.pt"), key=lambda file: file.stat().st_size)
    for file in tmp_path.glob("*.pt"):
        file.write_bytes(damaged.read_bytes()[:100])
    repaired = Counted(network(), TargetCache(tmp_path, network()))
    with caplog.at_level(logging.WARNING):
        assert equal(repaired(images(), IDS), NetworkTeacher(network())(images(), IDS))
    assert repaired.asked == 2 and "is damaged" in caplog.text


def test_the_cache_keeps_within_its_limit_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    teacher = Counted(network(), TargetCache(tmp_path, network(), gigabytes=15e-6))
    with caplog.at_level(logging.WARNING):
        for seed in range(4):
            teacher(images(seed), IDS)
    size = sum(file.stat().st_size for file in tmp_path.glob("*.pt"))
    assert 0 < size < 25_000 and caplog.text.count("is full") == 1


def test_a_fingerprint_is_of_values() -> None:
    weights = network().state_dict()
    moved = {name: value.clone() for name, value in weights.items()}
    assert fingerprint(weights) == fingerprint(moved)
    name = next(iter(moved))
    moved[name] = moved[name] + 1e-3
    assert fingerprint(weights) != fingerprint(moved)


def test_the_synthetic_teacher_says_the_worlds_truth() -> None:
    truth = make_window(render_shard(11, 1, 3, (84, 112)))
    classes = torch.randn(len(CLASSES), 6)
    phrases = torch.randn(len(CLASSES) * len(COLORS), 6)
    truth = replace(truth, colors=torch.where(truth.depth > truth.depth.median(), truth.colors, -1))
    said = SyntheticTeacher(classes, phrases)(truth.images, IDS, truth)
    cameras = decode_cameras(said.pose_encodings[0], 84, 112)
    assert torch.allclose(cameras.camera_from_world, truth.camera_from_world[0], atol=1e-5)
    assert torch.allclose(cameras.intrinsics, truth.intrinsics[0], rtol=1e-5)
    assert torch.equal(said.depth, truth.depth) and bool(((said.depth_confidence > 0) == (truth.depth > 0)).all())
    seen = set()
    for view, row, column in [(0, 40, 50), (1, 10, 100), (2, 80, 3), (0, 70, 20), (1, 60, 60), (2, 30, 30)]:
        label, color = int(truth.classes[0, view, row, column]), int(truth.colors[0, view, row, column])
        expected = phrases[label * len(COLORS) + color] if color >= 0 else classes[label]
        assert torch.equal(said.features[0, view, :, row, column], expected if label >= 0 else torch.zeros(6))
        seen.add(color >= 0)
    assert seen == {True, False}
