"""The merging of voxels against brute force in float64: each group by itself, member by member."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from ff3r_model.gaussians.groups import Groups, group_keys
from ff3r_model.voxel_map.fusion import merge_groups
from ff3r_model.voxel_map.rows import VoxelRows

LINEAR = ("means", "scales", "harmonics", "opacities", "confidences", "features")


def rows(count: int, seed: int = 0, bands: int = 4, small: torch.dtype = torch.float32, cells: int = 5) -> VoxelRows:
    """Voxels of a few cells; rotations near one another, so that their mean is well defined."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    quaternions = torch.nn.functional.normalize(torch.full((4,), 0.5) + 0.05 * normal(count, 4), dim=1)
    signs = torch.randint(2, (count, 1), generator=generator) * 2 - 1  # q and −q are one rotation
    return VoxelRows(
        keys=torch.randint(cells, (count,), generator=generator),
        means=normal(count, 3),
        scales=normal(count, 3).exp(),
        quaternions=(quaternions * signs).to(small),
        harmonics=normal(count, bands, 3).to(small),
        opacities=normal(count).sigmoid(),
        confidences=normal(count),
        features=normal(count, 6).to(small),
        log_mass=normal(count) * 3,
        last_seen=torch.randint(100, (count,), generator=generator, dtype=torch.int32),
        anchors=torch.arange(count, dtype=torch.int32),
        norms=torch.ones(count),
    )


def brute_merge(given: VoxelRows, members: list[int]) -> dict[str, np.ndarray]:
    """One group in float64: m = Σ exp(log_mass), x = Σ exp(log_mass) x / m, the dominant eigenvector of Σ w q qᵀ."""
    columns = {name: column.double().numpy() for name, column in vars(given).items()}
    mass = [np.exp(np.longdouble(columns["log_mass"][row])) for row in members]
    merged = {}
    for name in LINEAR:
        total = sum(weight * columns[name][row] for weight, row in zip(mass, members, strict=True))
        merged[name] = np.asarray(total / sum(mass), dtype=np.float64)
    outer = sum(
        float(weight / sum(mass)) * np.outer(columns["quaternions"][row], columns["quaternions"][row])
        for weight, row in zip(mass, members, strict=True)
    )
    merged["quaternions"] = np.linalg.eigh(outer)[1][:, -1]
    merged["log_mass"] = np.float64(np.log(sum(mass)))
    merged["last_seen"] = max(columns["last_seen"][row] for row in members)
    merged["anchors"] = columns["anchors"][max(members, key=lambda row: columns["log_mass"][row])]
    merged["keys"] = columns["keys"][members[0]]
    return merged


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 60),
    seed=st.integers(0, 1000),
    bands=st.sampled_from([1, 4]),
    small=st.sampled_from([torch.float16, torch.float32]),
    cells=st.integers(1, 40),
)
def test_a_merged_voxel_is_the_mean_of_its_members_by_mass(
    count: int, seed: int, bands: int, small: torch.dtype, cells: int
) -> None:
    given_rows = rows(count, seed, bands, small, cells)
    merged = merge_groups(given_rows, group_keys(given_rows.keys))
    keys = sorted(set(given_rows.keys.tolist()))
    assert merged.keys.tolist() == keys
    for row, key in enumerate(keys):
        members = [other for other, own in enumerate(given_rows.keys.tolist()) if own == key]
        expected = brute_merge(given_rows, members)
        for name in LINEAR:
            np.testing.assert_allclose(getattr(merged, name)[row], expected[name], atol=2e-5, rtol=2e-5, err_msg=name)
        assert abs(merged.quaternions[row].double().numpy() @ expected["quaternions"]) > 1 - 1e-6
        assert float(merged.log_mass[row]) == pytest.approx(float(expected["log_mass"]), abs=1e-5)
        for name in ("last_seen", "anchors", "keys"):
            assert int(getattr(merged, name)[row]) == int(expected[name]), name
    assert merged.norms.tolist() == [0.0] * len(keys)


def test_merging_in_two_steps_is_merging_at_once() -> None:
    """What the map relies on, as windows come one after the other."""
    given_rows = rows(40, cells=1)
    whole = merge_groups(given_rows, group_keys(given_rows.keys))
    halves = [given_rows.select(slice(0, 13)), given_rows.select(slice(13, 40))]
    parts = VoxelRows.concatenated([merge_groups(half, group_keys(half.keys)) for half in halves])
    stepwise = merge_groups(parts, group_keys(parts.keys))
    for name in (*LINEAR, "log_mass"):
        torch.testing.assert_close(getattr(stepwise, name), getattr(whole, name), atol=1e-5, rtol=1e-5)
    assert torch.equal(stepwise.last_seen, whole.last_seen)


def test_of_equal_masses_the_first_members_anchor_stays() -> None:
    given_rows = replace(rows(6, cells=1), log_mass=torch.tensor([1.0, 2.0, 2.0, 0.0, 2.0, -1.0]))
    groups = Groups(torch.tensor([5, 4, 2, 1, 0, 3]), torch.tensor([0, 4, 6]))
    assert merge_groups(given_rows, groups).anchors.tolist() == [4, 0]


def test_masses_beyond_what_an_exponential_holds() -> None:
    given_rows = replace(rows(3, cells=1), log_mass=torch.tensor([500.0, 500.0, -500.0]))
    merged = merge_groups(given_rows, group_keys(given_rows.keys))
    assert float(merged.log_mass) == pytest.approx(500 + np.log(2))
    torch.testing.assert_close(merged.means[0], given_rows.means[:2].mean(dim=0))


@pytest.mark.parametrize("name", [field.name for field in fields(VoxelRows)])
def test_rows_of_another_number_or_type_are_refused(name: str) -> None:
    """The annotations of VoxelRows are checked, as all are in tests."""
    given_rows = rows(4)
    column = getattr(given_rows, name)
    for wrong in (column[:3], column[None], column.to(torch.complex64)):
        with pytest.raises((TypeCheckError, BeartypeCallHintViolation)):
            replace(given_rows, **{name: wrong})
