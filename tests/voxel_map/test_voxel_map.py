"""The map against voxelizing everything at once, against a dictionary, under its cap, and through bad files."""

from __future__ import annotations

import itertools
import json
import math
import resource
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ff3r_model.core.geometry import rigid
from ff3r_model.core.text_space import TextSpace
from ff3r_model.core.types import Gaussians, Similarity
from ff3r_model.gaussians.voxelize import CELL_LIMIT, VoxelizeConfig, voxelize
from ff3r_model.voxel_map.config import NO_WINDOW, MapConfig, ScaleInfo
from ff3r_model.voxel_map.file import MapFileError, write_map
from ff3r_model.voxel_map.hash_index import HashIndex, pack, unpack
from ff3r_model.voxel_map.voxel_map import VoxelMap

NAMES = [field.name for field in fields(Gaussians)]
CHANNELS = 6
CONFIG = MapConfig(voxel_size=0.25, max_map_bytes=2**22, compact=False, max_keyframes=50, initial_rows=16)


def scene(count: int, seed: int = 0, offset: float = 0.0, confidence: float = 1.0) -> Gaussians:
    """Gaussians in a unit box; rotations near one another."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    quaternions = torch.tensor([0.5, 0.5, 0.5, 0.5]) + 0.1 * normal(count, 4)
    return Gaussians(
        means=torch.rand(count, 3, generator=generator) + offset,
        scales=normal(count, 3).exp() * 0.01,
        quaternions=torch.nn.functional.normalize(quaternions, dim=1),
        harmonics=normal(count, 1, 3),
        opacities=normal(count).sigmoid(),
        confidences=normal(count) * confidence,
        features=normal(count, CHANNELS),
    )


def joined(parts: list[Gaussians]) -> Gaussians:
    return Gaussians(**{name: torch.cat([getattr(part, name) for part in parts]) for name in NAMES})


def by_cell(voxel_map: VoxelMap) -> tuple[torch.Tensor, Gaussians]:
    """Cells and Gaussians in the order of the cells' keys, and the index checked on the way."""
    keys = pack(voxel_map.cells())
    rows = voxel_map._store.find(keys)
    assert torch.equal(rows, torch.arange(len(voxel_map)))
    order = keys.argsort()
    return voxel_map.cells()[order], voxel_map.gaussians().select(order)


class Counted:
    """What a window did to a map: counted by cells, before and after."""

    def __init__(self, voxel_map: VoxelMap, window: Gaussians, window_id: int) -> None:
        before = set(map(tuple, voxel_map.cells().tolist()))
        voxel_map.integrate(window, window_id)
        after = set(map(tuple, voxel_map.cells().tolist()))
        own = set(map(tuple, torch.round(window.means / voxel_map.config.voxel_size).int().tolist()))
        assert after <= before | own
        self.added = len(after - before)
        self.merged = len(own & before & after)
        self.evicted = len(before - after)
        self.refused = len(own - after)


def test_windows_merge_to_what_voxelizing_everything_at_once_gives() -> None:
    """Exactly so without the semantic term; see the next test for what it brings."""
    config = replace(CONFIG, distance_weight=0.0)
    windows = [scene(300, seed, offset=0.3 * seed) for seed in range(4)]
    voxel_map = VoxelMap(config, CHANNELS)
    stats = [Counted(voxel_map, window, number) for number, window in enumerate(windows)]
    whole = voxelize(joined(windows), VoxelizeConfig(0.25, 0.0))
    cells, merged = by_cell(voxel_map)
    assert torch.equal(cells, whole.cells)
    for name in set(NAMES) - {"quaternions"}:
        torch.testing.assert_close(getattr(merged, name), getattr(whole.gaussians, name), atol=1e-4, rtol=1e-4)
    aligned = (merged.quaternions * whole.gaussians.quaternions).sum(dim=1).abs()
    assert aligned.min() > math.cos(math.radians(1) / 2)
    assert sum(stat.added for stat in stats) == len(whole)
    order = pack(voxel_map.cells()).argsort()
    torch.testing.assert_close(voxel_map.rows.log_mass[order], whole.log_mass, atol=1e-4, rtol=1e-4)


def test_merging_with_the_semantic_term_weighs_by_mass() -> None:
    windows = [scene(300, seed) for seed in range(2)]
    voxel_map = VoxelMap(CONFIG, CHANNELS)
    parts = [voxelize(window, VoxelizeConfig(0.25, 1.0)) for window in windows]
    for number, part in enumerate(parts):
        voxel_map.integrate(part, number)
    cells, merged = by_cell(voxel_map)
    masses = [dict(zip(map(tuple, part.cells.tolist()), part.log_mass.tolist(), strict=True)) for part in parts]
    rows = [{tuple(cell): row for row, cell in enumerate(part.cells.tolist())} for part in parts]
    for index, cell in enumerate(map(tuple, cells.tolist())):
        weights = {k: math.exp(masses[k][cell]) for k in range(2) if cell in masses[k]}
        expected = sum(
            weight * parts[k].gaussians.features[rows[k][cell]].double() for k, weight in weights.items()
        ) / sum(weights.values())
        torch.testing.assert_close(merged.features[index].double(), expected, atol=1e-4, rtol=1e-4)


def test_compact_storage_stays_close() -> None:
    full, compact = VoxelMap(CONFIG, CHANNELS), VoxelMap(replace(CONFIG, compact=True), CHANNELS)
    for number in range(6):
        full.integrate(scene(300, number), number)
        compact.integrate(scene(300, number), number)
    assert compact._store.columns.layout.row_bytes < 0.8 * full._store.columns.layout.row_bytes
    for name in NAMES:
        torch.testing.assert_close(
            getattr(by_cell(full)[1], name), getattr(by_cell(compact)[1], name), atol=5e-3, rtol=5e-3
        )


def test_huge_features_fit_compact_columns() -> None:
    huge = scene(20)
    huge.features.mul_(1e9)
    voxel_map = VoxelMap(replace(CONFIG, compact=True), CHANNELS)
    voxel_map.integrate(huge, 0)
    assert torch.isfinite(voxel_map.gaussians().features).all()


@pytest.mark.parametrize("kilobytes", [20, 90])
def test_never_exceeds_its_cap(kilobytes: int) -> None:
    cap = kilobytes * 1024
    space = TextSpace(torch.randn(12, CHANNELS))
    voxel_map = VoxelMap(replace(CONFIG, voxel_size=0.05, max_map_bytes=cap, compact=True), CHANNELS, space)
    total = 0
    for number in range(40):
        stats = Counted(voxel_map, scene(150, number, offset=0.5 * number), number)
        voxel_map.add_keyframes([number], [number], torch.eye(4)[None])
        total += stats.added
        assert voxel_map.nbytes <= cap
        assert len(voxel_map) <= voxel_map.max_rows
    assert total > 2 * voxel_map.max_rows
    assert len(voxel_map) > 0.7 * voxel_map.max_rows
    by_cell(voxel_map)


def test_nbytes_counts_what_is_held() -> None:
    voxel_map = VoxelMap(CONFIG, CHANNELS, TextSpace(torch.randn(12, CHANNELS)))
    voxel_map.integrate(scene(200), 0)
    held = sum(column.untyped_storage().nbytes() for column in voxel_map._store.columns._data.values())
    held += voxel_map._store._index._table.untyped_storage().nbytes()
    assert voxel_map.nbytes >= held + 12 * CHANNELS * 4
    before = voxel_map.nbytes
    voxel_map.add_keyframes([1], [1], torch.eye(4)[None])
    assert voxel_map.nbytes - before >= 64


def test_a_window_larger_than_the_map() -> None:
    voxel_map = VoxelMap(replace(CONFIG, voxel_size=0.01, max_map_bytes=20_000), CHANNELS)
    window = scene(3000, confidence=3)
    stats = Counted(voxel_map, window, 0)
    assert stats.added == len(voxel_map) == voxel_map.max_rows
    heaviest = voxelize(window, VoxelizeConfig(0.01)).log_mass.sort(descending=True).values[: voxel_map.max_rows]
    torch.testing.assert_close(voxel_map.rows.log_mass.sort(descending=True).values, heaviest)
    assert stats.refused > 0


def test_order_of_eviction() -> None:
    """log mass − decay × windows unseen, smallest first; what the window has just seen is safe."""
    config = replace(CONFIG, voxel_size=1.0, max_map_bytes=16_000, eviction_share=0.0, evict_decay=0.5)
    voxel_map = VoxelMap(config, CHANNELS)
    count = voxel_map.max_rows
    row = torch.arange(count)
    window = scene(count)
    means = torch.stack([row.float(), row * 0.0, row * 0.0], dim=1)
    window = replace(window, means=means, confidences=torch.linspace(0, 10, count))
    voxel_map.integrate(window.select(row[: count // 2]), 0)
    voxel_map.integrate(window.select(row[count // 2 :]), 12)
    assert len(voxel_map) == count
    lightest = window.select(row[:3])  # seen again: no longer first to go, however light
    newcomers = replace(scene(7, seed=1), means=torch.arange(7)[:, None] * torch.tensor([1.0, 0, 0]) - 100)
    stats = Counted(voxel_map, joined([lightest, newcomers]), 14)
    assert (stats.merged, stats.added, stats.evicted) == (3, 7, 7)
    age = torch.where(row < count // 2, 14, 2)
    priority = window.confidences - 0.5 * age
    priority[:3] = math.inf
    gone = set(priority.argsort(stable=True)[:7].tolist())
    left = set(voxel_map.cells()[:, 0].tolist())
    assert left == set(range(count)) - gone | set(range(-100, -93))
    by_cell(voxel_map)


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 1000), st.booleans()), min_size=1, max_size=12),
)
def test_hash_index_behaves_like_a_dictionary(steps: list[tuple[int, int, bool]]) -> None:
    """Insertions and removals in any order, at loads up to the limit."""
    index, column, known = HashIndex(600), torch.zeros(600, dtype=torch.int64), {}
    for count, seed, removing in steps:
        if removing:
            gone = list(known)[:count]
            index.remove(torch.tensor(gone, dtype=torch.int64), column)
            for key in gone:
                del known[key]
        generator = torch.Generator().manual_seed(seed)
        cells = torch.randint(-30, 30, (count, 3), generator=generator).unique(dim=0)
        keys = [key for key in pack(cells).tolist() if key not in known]
        free = sorted(set(range(600)) - set(known.values()))[: len(keys)]
        keys = keys[: len(free)]
        if index.crowded(len(known) + len(keys)):
            break
        column[free] = torch.tensor(keys, dtype=torch.int64)
        index.insert(torch.tensor(keys, dtype=torch.int64), torch.tensor(free, dtype=torch.int64))
        known.update(zip(keys, free, strict=True))
        asked = [*known, *pack(cells + 1000).tolist()]
        expected = [known.get(key, -1) for key in asked]
        assert index.find(torch.tensor(asked, dtype=torch.int64), column).tolist() == expected


def test_keys_are_distinct_over_the_whole_range() -> None:
    edge = torch.tensor([-CELL_LIMIT, -1, 0, 1, CELL_LIMIT])
    cells = torch.cartesian_prod(edge, edge, edge).int()
    keys = pack(cells)
    assert len(keys.unique()) == len(cells)
    assert (keys >= 0).all()
    assert torch.equal(unpack(keys), cells)


def test_rescaling_equals_mapping_at_the_other_scale() -> None:
    window = scene(400, confidence=2)
    voxel_map = VoxelMap(replace(CONFIG, distance_weight=0.0, voxel_size=0.02), CHANNELS)
    voxel_map.integrate(window, 3)
    voxel_map.add_keyframes([0], [5], torch.eye(4)[None] + torch.tensor([[0, 0, 0, 1.0], *[[0] * 4] * 3]))
    fine = voxel_map.gaussians()
    mass = voxel_map.rows.log_mass.clone()
    voxel_map.transform({}, Similarity(0.2))
    small = replace(fine, means=fine.means * 0.2, scales=fine.scales * 0.2, confidences=mass)
    expected = voxelize(small, VoxelizeConfig(0.02, 0.0))
    cells, merged = by_cell(voxel_map)
    assert torch.equal(cells, expected.cells)
    torch.testing.assert_close(merged.means, expected.gaussians.means)
    torch.testing.assert_close(merged.scales, expected.gaussians.scales)
    torch.testing.assert_close(merged.features, expected.gaussians.features)
    assert float(voxel_map.rows.log_mass.exp().sum()) == pytest.approx(float(mass.exp().sum()), rel=1e-4)
    assert merged.confidences.max() <= fine.confidences.max() + 1e-4
    assert next(voxel_map.trajectory())[1][0, 3] == pytest.approx(0.2)
    voxel_map.integrate(scene(100, 9), 4)
    with pytest.raises(ValueError, match="positive"):
        voxel_map.transform({}, Similarity(0.0))


def test_rescaling_an_empty_map() -> None:
    voxel_map = VoxelMap(CONFIG, CHANNELS)
    voxel_map.transform({}, Similarity(2.0))
    voxel_map.scale = ScaleInfo(True, "test")
    assert (len(voxel_map), voxel_map.metric) == (0, True)
    voxel_map.integrate(scene(50), 0)
    assert len(voxel_map.gaussians()) == len(voxel_map) > 0


def test_keyframes_are_bounded_and_keep_their_first_pose() -> None:
    voxel_map = VoxelMap(replace(CONFIG, max_keyframes=3), CHANNELS)
    poses = torch.eye(4).repeat(5, 1, 1)
    poses[:, 0, 3] = torch.arange(5)
    voxel_map.add_keyframes(range(5), range(10, 15), poses)
    voxel_map.add_keyframes([4], [14], torch.zeros(1, 4, 4))
    assert [(stamp, float(pose[0, 3])) for stamp, pose in voxel_map.trajectory()] == [(12, 2.0), (13, 3.0), (14, 4.0)]


def test_feature_norms_follow_the_features() -> None:
    space = TextSpace(torch.randn(12, CHANNELS))
    voxel_map = VoxelMap(replace(CONFIG, compact=True), CHANNELS, space)
    for number in range(3):
        voxel_map.integrate(scene(200, number), number)
    voxel_map.transform({}, Similarity(0.7))
    expected = (voxel_map.features.double() @ space.decoder.double().T).norm(dim=1)
    assert voxel_map.feature_norms is not None
    torch.testing.assert_close(voxel_map.feature_norms.double(), expected, rtol=2e-3, atol=1e-3)
    assert VoxelMap(CONFIG, CHANNELS).feature_norms is None


def test_what_does_not_fit_is_refused() -> None:
    voxel_map = VoxelMap(CONFIG, CHANNELS)
    with pytest.raises(ValueError, match=r"0\.5"):
        voxel_map.integrate(voxelize(scene(5), VoxelizeConfig(0.5)), 0)
    with pytest.raises(ValueError, match="2 channels"):
        voxel_map.integrate(replace(scene(5), features=torch.zeros(5, 2)), 0)
    with pytest.raises(ValueError, match="too small"):
        VoxelMap(replace(CONFIG, max_map_bytes=100), CHANNELS)
    with pytest.raises(ValueError, match="channels"):
        VoxelMap(CONFIG, CHANNELS, TextSpace(torch.randn(4, CHANNELS + 1)))
    assert len(voxel_map) == 0


def test_an_empty_window_changes_nothing() -> None:
    voxel_map = VoxelMap(CONFIG, CHANNELS)
    voxel_map.integrate(scene(20), 0)
    before = len(voxel_map)
    stats = Counted(voxel_map, scene(20).select(torch.zeros(0, dtype=torch.long)), 1)
    assert (stats.added, stats.merged, len(voxel_map)) == (0, 0, before)


def filled() -> VoxelMap:
    space = TextSpace(torch.randn(12, CHANNELS, generator=torch.Generator().manual_seed(0)))
    voxel_map = VoxelMap(replace(CONFIG, compact=True), CHANNELS, space)
    for number in range(3):
        voxel_map.integrate(scene(200, number, offset=number * 0.4), number)
    turns = torch.tensor([[[0.0, -0.6, 0], [0.6, 0, -0.3], [0, 0.3, 0]]]).repeat(2, 1, 1)
    voxel_map.add_keyframes([3, 9], [10**18, 10**18 + 1], rigid(torch.matrix_exp(turns), torch.randn(2, 3)))
    voxel_map.scale = ScaleInfo(True, "camera height 0.4 m")
    return voxel_map


def test_save_and_load(tmp_path: Path) -> None:
    before = filled()
    before.save(tmp_path / "room.ff3r")
    after = VoxelMap.load(tmp_path / "room.ff3r")
    for name in NAMES:
        assert torch.equal(getattr(after.gaussians(), name), getattr(before.gaussians(), name))
    assert torch.equal(after.cells(), before.cells())
    assert torch.equal(after.rows.log_mass, before.rows.log_mass)
    assert (after.scale, after.config, after.revision) == (before.scale, before.config, before.revision)
    for (stamp, pose), (other_stamp, other_pose) in zip(after.trajectory(), before.trajectory(), strict=True):
        assert stamp == other_stamp
        assert torch.equal(pose, other_pose)
    assert after.space is not None
    assert before.space is not None
    assert torch.equal(after.space.decoder, before.space.decoder)
    for each in (before, after):
        each.integrate(scene(200, 7), 7)
    assert torch.equal(by_cell(before)[1].features, by_cell(after)[1].features)
    assert [path.name for path in tmp_path.iterdir()] == ["room.ff3r"]


def test_an_empty_map_can_be_saved(tmp_path: Path) -> None:
    VoxelMap(CONFIG, CHANNELS).save(str(tmp_path / "empty.ff3r"))
    assert len(VoxelMap.load(tmp_path / "empty.ff3r")) == 0


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    before = filled()
    before.save(tmp_path / "room.ff3r")
    tensors = load_file(tmp_path / "room.ff3r")
    assert torch.equal(tensors["voxels.means"], before.gaussians().means)


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.5, 0.999])
def test_a_file_cut_short(tmp_path: Path, share: float) -> None:
    path = tmp_path / "room.ff3r"
    filled().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MapFileError, match=r"room\.ff3r.*cut short"):
        VoxelMap.load(path)


def test_a_single_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "room.ff3r"
    filled().save(path)
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(MapFileError, match="checksum"):
        VoxelMap.load(path)


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "foreign"
    with pytest.raises(MapFileError, match="foreign"):
        VoxelMap.load(path)
    with pytest.raises(MapFileError):
        VoxelMap.load(tmp_path)
    path.write_bytes(b"PK\x03\x04" * 100)
    with pytest.raises(MapFileError, match="not a map file"):
        VoxelMap.load(path)
    save_file({"weights": torch.zeros(3)}, path)
    with pytest.raises(MapFileError, match="holds no map"):
        VoxelMap.load(path)
    for record in ("[]", "{}", "no JSON"):
        save_file({"weights": torch.zeros(3)}, path, metadata={"ff3r_map": record})
        with pytest.raises(MapFileError, match="holds no map"):
            VoxelMap.load(path)
    save_file({}, path, metadata={"ff3r_map": json.dumps({"version": 99, "checksum": ""})})
    with pytest.raises(MapFileError, match="format 99"):
        VoxelMap.load(path)


def test_files_of_the_first_format_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They know no anchors and no extras."""
    before = filled()
    header, tensors = before.header(), before.tensors()
    assert before.space is not None
    old = {name: tensor for name, tensor in tensors.items() if "anchors" not in name}
    monkeypatch.setattr("ff3r_model.voxel_map.file.FORMAT_VERSION", 1)
    write_map(tmp_path / "old", {**old, "decoder": before.space.decoder}, header)
    after, extras, extra_header = VoxelMap.load_with_extras(tmp_path / "old")
    assert torch.equal(after.gaussians().means, before.gaussians().means)
    assert set(after.rows.anchors.tolist()) == {NO_WINDOW}
    assert (extras, extra_header) == ({}, {})


def test_extras_come_back(tmp_path: Path) -> None:
    path, extras = tmp_path / "map", {"graph.poses": torch.randn(3, 4, 4, dtype=torch.float64), "ids": torch.arange(3)}
    before = filled()
    before.save(path, extras, {"graph": {"nodes": [1, 2]}})
    after, tensors, header = VoxelMap.load_with_extras(path)
    assert header == {"graph": {"nodes": [1, 2]}}
    assert tensors.keys() == extras.keys()
    assert all(torch.equal(tensors[name], extras[name]) for name in extras)
    assert torch.equal(after.cells(), before.cells())


def test_a_thinned_copy_is_spread_over_the_map() -> None:
    voxel_map = filled()
    chosen = voxel_map.spread_rows(50)
    some, everything = voxel_map.gaussians(chosen), voxel_map.gaussians()
    rows = [int((everything.means == mean).all(dim=1).nonzero()[0, 0]) for mean in some.means]
    assert rows == chosen.tolist()
    assert len(rows) == 50
    assert max(after - before for before, after in itertools.pairwise(rows)) <= -(-len(voxel_map) // 50)
    assert torch.equal(some.features, everything.features[rows])
    assert torch.equal(voxel_map.spread_rows(10**6), torch.arange(len(voxel_map)))
    assert len(VoxelMap(CONFIG, CHANNELS).spread_rows(5)) == 0
    everything.means.zero_()
    assert voxel_map.gaussians().means.abs().max() > 0


def test_no_folder_to_save_to(tmp_path: Path) -> None:
    voxel_map = filled()
    with pytest.raises(MapFileError, match="No such file"):
        voxel_map.save(tmp_path / "missing" / "room.ff3r")


DISK_FULL = """
import resource, signal, sys, torch
from ff3r_model.voxel_map.file import MapFileError
from ff3r_model.voxel_map.voxel_map import VoxelMap
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
voxel_map = VoxelMap.load(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    voxel_map.save(sys.argv[1])
except MapFileError as error:
    print(error)
    sys.exit(len(VoxelMap.load(sys.argv[1])) != len(voxel_map))
sys.exit("no error")
"""


@pytest.mark.skipif(
    not hasattr(signal, "SIGXFSZ") or not hasattr(resource, "RLIMIT_FSIZE"), reason="needs POSIX limits"
)
def test_no_room_on_the_disk(tmp_path: Path) -> None:
    """A limit on file sizes makes writing fail half-way, as a full disk does: the old file stays, no rest is left."""
    path = tmp_path / "room.ff3r"
    filled().save(path)
    before = path.read_bytes()
    result = subprocess.run([sys.executable, "-c", DISK_FULL, str(path)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "cannot save the map" in result.stdout
    assert path.read_bytes() == before
    assert [other.name for other in tmp_path.iterdir()] == ["room.ff3r"]
