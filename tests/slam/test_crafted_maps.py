"""Crafted map files: each is refused with a reason, the old map kept, or is a map like any other."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ff3r_model.core.types import Frame
from ff3r_model.pipeline import Pipeline
from ff3r_model.voxel_map.file import MapFileError, read_map
from tests.support import crafted
from tests.support.crafted import Case, mapper, outcome_of_map

FORMER = {
    "config.voxel_size = nan", "config.voxel_size = -1", "config.voxel_size = 1e300", "config.distance_weight = inf",
    "config.fade_rate = inf", "config.bands = 0", "extra = null", "extra = list", "extra.mapping.others = list",
    "scale = null", "extra.mapping.others.0.config.voxel_size = nan", "extra.mapping.references.0.floor = text",
    "keyframes.map_from_camera nan", "voxels.means nan", "voxels.features nan", "keyframes.stamps largest",
    "extra.archive.depths emptied", "extra.archive.jpegs a row fewer", "extra.archive.ids no dimension",
    "extra.graph0.edges a row fewer", "voxels.last_seen largest", "voxels.keys zeros", "decoder a row more",
}  # fmt: skip
"""What was once accepted with trouble, or ended in another error than a MapFileError."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crafted.base_map(tmp_path_factory.mktemp("crafted"))


@pytest.fixture(scope="module")
def cases(base: Path) -> dict[str, Case]:
    return {f"{case.name}": case for case in (*crafted.field_cases(base), *crafted.tensor_cases(base))}


def test_the_map_itself_is_read_and_goes_on(base: Path, tmp_path: Path) -> None:
    assert outcome_of_map(Case("", "", lambda path: path.write_bytes(base.read_bytes())), tmp_path) == "harmless"


def test_what_was_once_accepted_is_refused(cases: dict[str, Case], tmp_path: Path) -> None:
    assert cases.keys() >= FORMER
    assert {name: outcome_of_map(cases[name], tmp_path) for name in FORMER} == dict.fromkeys(FORMER, "refused")


@pytest.mark.fuzz
@settings(max_examples=settings.default.max_examples // 2)
@given(number=st.integers(min_value=0))
def test_damage_is_refused_or_harmless(cases: dict[str, Case], tmp_path: Path, number: int) -> None:
    name = sorted(cases)[number * 7919 % len(cases)]  # neighbours are damages of different kinds
    assert outcome_of_map(cases[name], tmp_path) in ("refused", "harmless"), name


@pytest.mark.fuzz
@settings(max_examples=settings.default.max_examples // 2)
@given(bit=st.integers(min_value=0))
@example(bit=7 * 8)
def test_every_flipped_bit_is_refused(base: Path, tmp_path: Path, bit: int) -> None:
    """In the header, the record and the tensors alike: all of it is under a checksum."""
    data = base.read_bytes()
    case = Case("", "", lambda path: path.write_bytes(crafted.flipped(data, bit % (8 * len(data)))))
    assert outcome_of_map(case, tmp_path) in ("refused", "harmless")


@pytest.mark.parametrize("case", list(crafted.header_cases("ff3r_map")), ids=lambda case: case.name[:12])
def test_crafted_headers_are_refused(tmp_path: Path, case: Case) -> None:
    case.make(tmp_path / "map")
    with pytest.raises(MapFileError, match="map"):
        read_map(tmp_path / "map")


def test_small_files_take_little_memory_and_time(base: Path, tmp_path: Path) -> None:
    """They spoke of 2^25 rows to come, and of 100 submaps with nothing in them."""
    wanted = {"33554432", "1099511627776", "100"}
    for case in (case for case in crafted.size_cases(base) if case.name in wanted):
        case.make(tmp_path / "map")
        loaded, before, start = mapper(), _resident(), time.process_time()
        loaded.load(tmp_path / "map", "words")
        assert _resident() - before < 100 * 2**20
        assert time.process_time() - start < 20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_failed_load_leaves_the_old_map_running(base: Path, tmp_path: Path) -> None:
    pipeline = Pipeline.from_checkpoint()
    for number in range(3):
        pipeline.add(Frame(torch.randint(0, 255, (84, 112, 3), dtype=torch.uint8), number * 10**9))
    before, pending = pipeline.map, pipeline.status().pending
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "cut").write_bytes(base.read_bytes()[:-1])
    (tmp_path / "folder").mkdir()
    for path in (
        base,
        tmp_path / "pipe",
        tmp_path / "cut",
        tmp_path / "folder",
        tmp_path / "missing",
        Path("/dev/zero"),
    ):
        with pytest.raises(MapFileError, match=str(path)):
            pipeline.load(path)
        assert pipeline.map is before and pipeline.status().pending == pending


def test_maps_are_not_mapped(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_bytes(base.read_bytes())
    loaded = mapper()
    loaded.load(path, "words")
    means = loaded.map.gaussians().means
    os.truncate(path, 10)
    assert torch.equal(loaded.map.gaussians().means, means)
    crafted.use(loaded, tmp_path)


LIMITED = """
import resource, sys, torch
from pathlib import Path
from ff3r_model.voxel_map.file import MapFileError, read_map, write_map
path = Path(sys.argv[1])
write_map(path, {"x": torch.zeros(2**24)}, {})
used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + 2**25, used + 2**25))
try:
    read_map(path)
except MapFileError as error:
    print(error)
"""


def test_a_memory_limit_is_an_error_with_a_reason(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "map")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "allocate memory" in done.stdout or "memory" in done.stdout


@pytest.mark.long
def test_all_crafted_files() -> None:
    """The whole table of tools/crafted_files.py."""
    done = subprocess.run([sys.executable, "-m", "tools.crafted_files"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
