"""Voxelization against equations 5 to 8 written out in float64 loops."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ff3r_model.core.types import Gaussians
from ff3r_model.gaussians import voxelize as module
from ff3r_model.gaussians.voxelize import CELL_LIMIT, VoxelizeConfig, voxelize

NAMES = [field.name for field in fields(Gaussians)]


def scene(count: int, seed: int = 0, channels: int = 8, bands: int = 4, turn: float = 0.3) -> Gaussians:
    """Random Gaussians in a box of one unit; rotations within about `turn` radians of a common one, signs at random."""
    rng = np.random.default_rng(seed)
    common = Rotation.random(random_state=seed)
    rotations = (common * Rotation.from_rotvec(rng.normal(size=(count, 3)) * turn / 3)).as_quat()[:, [3, 0, 1, 2]]
    rotations *= rng.choice([-1, 1], size=(count, 1))

    def normal(*shape: int) -> torch.Tensor:
        return torch.tensor(rng.normal(size=shape), dtype=torch.float32)

    return Gaussians(
        means=torch.tensor(rng.uniform(-0.5, 0.5, (count, 3)), dtype=torch.float32),
        scales=normal(count, 3).exp() * 0.01,
        quaternions=torch.tensor(rotations, dtype=torch.float32),
        harmonics=normal(count, bands, 3),
        opacities=normal(count).sigmoid(),
        confidences=normal(count) * 3,
        features=normal(count, channels),
    )


def oracle(
    gaussians: Gaussians, epsilon: float, distance_weight: float
) -> dict[tuple[int, ...], dict[str, np.ndarray]]:
    """Equations 5 to 8, one voxel at a time."""
    data = {name: getattr(gaussians, name).double().numpy() for name in NAMES}
    members: dict[tuple[int, ...], list[int]] = {}
    for row, cell in enumerate(np.rint(data["means"] / epsilon).astype(int)):
        members.setdefault(tuple(cell), []).append(row)
    result = {}
    for cell, rows in members.items():
        features = data["features"][rows]
        prototype = features.mean(axis=0)
        cosine = features @ prototype / (np.linalg.norm(features, axis=1) * np.linalg.norm(prototype))
        logits = data["confidences"][rows] - distance_weight * (1 - cosine)
        weights = np.exp(logits - logits.max())
        weights /= weights.sum()
        merged = {name: np.tensordot(weights, data[name][rows], axes=1) for name in NAMES}
        outer = np.einsum("i,ij,ik->jk", weights, data["quaternions"][rows], data["quaternions"][rows])
        merged["quaternions"] = np.linalg.eigh(outer)[1][:, -1]
        merged["log_mass"] = logits.max() + math.log(np.exp(logits - logits.max()).sum())
        result[cell] = merged
    return result


@pytest.mark.parametrize("epsilon", [0.05, 0.2, 3.0])
@pytest.mark.parametrize("distance_weight", [0.0, 1.0, 7.5])
def test_equals_the_equations(epsilon: float, distance_weight: float) -> None:
    gaussians = scene(400)
    expected = oracle(gaussians, epsilon, distance_weight)
    voxels = voxelize(gaussians, VoxelizeConfig(epsilon, distance_weight))
    assert [tuple(cell) for cell in voxels.cells.tolist()] == sorted(expected)
    for row, cell in enumerate(sorted(expected)):
        for name in NAMES:
            actual = getattr(voxels.gaussians, name)[row].double().numpy()
            if name == "quaternions":
                assert abs(actual @ expected[cell][name]) == pytest.approx(1, abs=1e-6)
            else:
                np.testing.assert_allclose(actual, expected[cell][name], rtol=2e-5, atol=2e-5, err_msg=name)
        assert float(voxels.log_mass[row]) == pytest.approx(expected[cell]["log_mass"], abs=1e-4)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """The block size is a matter of speed alone, also where one voxel is larger than a block."""
    gaussians = scene(500)
    whole = voxelize(gaussians, VoxelizeConfig(0.3))
    monkeypatch.setattr(module, "_CPU_BLOCK", 7)
    pieces = voxelize(gaussians, VoxelizeConfig(0.3))
    for name in NAMES:
        torch.testing.assert_close(getattr(whole.gaussians, name), getattr(pieces.gaussians, name))


def test_rounds_to_the_nearest_cell() -> None:
    means = torch.tensor([[0.49, -0.49, 0.0], [0.51, -0.51, 1.49], [-1.2, 2.6, -0.1]])
    gaussians = scene(3)
    gaussians = Gaussians(**{name: getattr(gaussians, name) for name in NAMES if name != "means"}, means=means)
    cells = voxelize(gaussians, VoxelizeConfig(1.0)).cells
    assert sorted(cells.tolist()) == sorted([[0, 0, 0], [1, -1, 1], [-1, 3, 0]])


@pytest.mark.parametrize("turn", [0.05, 0.5, 1.0])
def test_mean_rotation_is_the_dominant_eigenvector(turn: float) -> None:
    gaussians = scene(200, seed=3, turn=turn)
    expected = oracle(gaussians, 10.0, 0.0)[(0, 0, 0)]["quaternions"]
    quaternion = voxelize(gaussians, VoxelizeConfig(10.0, 0.0)).gaussians.quaternions[0].double().numpy()
    angle = 2 * np.arccos(min(1, abs(quaternion @ expected)))
    assert np.degrees(angle) < 0.1
    assert quaternion[0] >= 0
    assert np.linalg.norm(quaternion) == pytest.approx(1, abs=1e-6)


def test_mean_rotation_does_not_see_signs() -> None:
    gaussians = scene(64, seed=5)
    flipped = Gaussians(
        **{name: getattr(gaussians, name) for name in NAMES if name != "quaternions"},
        quaternions=-gaussians.quaternions,
    )
    config = VoxelizeConfig(0.4)
    torch.testing.assert_close(
        voxelize(gaussians, config).gaussians.quaternions, voxelize(flipped, config).gaussians.quaternions
    )


def test_single_members_stay_as_they_are() -> None:
    gaussians = scene(50)
    voxels = voxelize(gaussians, VoxelizeConfig(1e-4))
    assert len(voxels) == 50
    order = torch.tensor(sorted(range(50), key=lambda row: torch.round(gaussians.means[row] / 1e-4).tolist()))
    for name in set(NAMES) - {"quaternions"}:
        torch.testing.assert_close(getattr(voxels.gaussians, name), getattr(gaussians, name)[order])
    aligned = (voxels.gaussians.quaternions * gaussians.quaternions[order]).sum(dim=1).abs()
    torch.testing.assert_close(aligned, torch.ones(50))


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 120),
    seed=st.integers(0, 10_000),
    epsilon=st.floats(0.01, 2.0),
    distance_weight=st.floats(0, 20),
)
def test_properties(count: int, seed: int, epsilon: float, distance_weight: float) -> None:
    """Each Gaussian has a voxel; averages stay inside their cells and ranges; order does not matter."""
    gaussians = scene(count, seed, channels=3, bands=1)
    config = VoxelizeConfig(epsilon, distance_weight)
    voxels = voxelize(gaussians, config)
    cells = torch.round(gaussians.means / epsilon).int()
    assert {tuple(cell) for cell in cells.tolist()} == {tuple(cell) for cell in voxels.cells.tolist()}
    offset = voxels.gaussians.means / epsilon - voxels.cells
    assert offset.abs().max() <= 0.5 + 1e-3
    assert (voxels.gaussians.scales > 0).all()
    assert ((voxels.gaussians.opacities >= 0) & (voxels.gaussians.opacities <= 1 + 1e-6)).all()
    assert voxels.log_mass.max() >= gaussians.confidences.max() - 2 * distance_weight - 1e-3
    shuffled = voxelize(gaussians.select(torch.randperm(count)), config)
    assert torch.equal(shuffled.cells, voxels.cells)
    torch.testing.assert_close(shuffled.gaussians.features, voxels.gaussians.features, rtol=1e-4, atol=1e-4)


def test_drops_what_is_not_finite_or_out_of_range(caplog: pytest.LogCaptureFixture) -> None:
    gaussians = scene(20)
    gaussians.means[3, 1] = math.nan
    gaussians.features[5, 0] = math.inf
    gaussians.confidences[7] = math.nan
    gaussians.means[9, 2] = (CELL_LIMIT + 2) * 0.1
    gaussians.scales[11, 0] = math.inf
    voxels = voxelize(gaussians, VoxelizeConfig(0.1))
    assert voxels.dropped == 5
    assert "5 of 20" in caplog.text
    for name in NAMES:
        assert torch.isfinite(getattr(voxels.gaussians, name)).all()


def test_the_whole_range_has_distinct_cells() -> None:
    corners = torch.tensor([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * float(CELL_LIMIT)
    gaussians = scene(8)
    gaussians.means.copy_(corners)
    assert len(voxelize(gaussians, VoxelizeConfig(1.0))) == 8


def test_features_of_zeros_are_neutral() -> None:
    gaussians = scene(30)
    gaussians.features.zero_()
    voxels = voxelize(gaussians, VoxelizeConfig(0.5, 5.0))
    plain = voxelize(gaussians, VoxelizeConfig(0.5, 0.0))
    torch.testing.assert_close(voxels.gaussians.means, plain.gaussians.means)


def test_empty() -> None:
    voxels = voxelize(scene(4).select(torch.zeros(0, dtype=torch.long)), VoxelizeConfig())
    assert len(voxels) == 0
    assert voxels.log_mass.shape == (0,)
    assert voxels.cells.shape == (0, 3)


def test_gradients_match_finite_differences() -> None:
    gaussians = scene(12, channels=3, bands=1)
    inputs = {name: getattr(gaussians, name).double().requires_grad_() for name in NAMES}

    def merged(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        voxels = voxelize(Gaussians(**dict(zip(NAMES, values, strict=True))), VoxelizeConfig(0.8))
        return (*(getattr(voxels.gaussians, name) for name in NAMES), voxels.log_mass)

    assert torch.autograd.gradcheck(merged, tuple(inputs.values()), eps=1e-6, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_says_the_same() -> None:
    gaussians = scene(2000)
    config = VoxelizeConfig(0.1)
    there = voxelize(Gaussians(**{name: getattr(gaussians, name).cuda() for name in NAMES}), config)
    here = voxelize(gaussians, config)
    assert torch.equal(there.cells.cpu(), here.cells)
    for name in NAMES:
        torch.testing.assert_close(
            getattr(there.gaussians, name).cpu(), getattr(here.gaussians, name), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(
    "wrong", [{"epsilon": 0.0}, {"epsilon": -1.0}, {"epsilon": math.nan}, {"distance_weight": -1.0}]
)
def test_refuses_senseless_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        VoxelizeConfig(**wrong)
