"""Crafted checkpoints: refused before anything is built for them; weights in memory of their own."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from ff3r_model.network.text_encoder import TextConfig, TextEncoder
from tests.support import crafted
from tests.support.crafted import Case, outcome_of_checkpoint
from tests.support.training_run import tiny_config

TEXT = TextConfig(dim=8, width=16, heads=2, layers=1, context_length=8, vocabulary_rank=2)
FORMER = {
    "config.encoder.depth": 10**6,
    "config.encoder.patch": 0,
    "config.encoder.grid": 0,
    "config.encoder.width": -1,
    "config.encoder.heads": 0,
    "config.lseg.vit.patch": "16",
    "config.aggregator.rope_base": "x",
    "config.aggregator.layers": [0, 1, 2, 9],
    "config.camera.iterations": 10**9,
    "config.camera.prior": [float("nan")] * 9,
    "config.long_side": 112_000,
    "config.head_chunk": 0,
    "config.name": "../../etc/cron.d/x",
    "config.text_width": 10**9,
    "text_config.context_length": 10**6,
    "text_config.layers": 10**6,
    "text_config.prompt": "{:>1000000000}",
    "text_config": None,
    "card": [],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny network."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("crafted") / "tiny.safetensors"
    save_checkpoint(path, FF3R(tiny_config()), TextEncoder(TEXT), mode="trained", card={})
    return path


@pytest.fixture(scope="module")
def cases(base: Path) -> list[Case]:
    return list(crafted.checkpoint_cases(base))


@pytest.mark.parametrize("at", FORMER)
def test_what_was_once_accepted_or_hung_is_refused_at_once(base: Path, tmp_path: Path, at: str) -> None:
    header = crafted.checkpoint_header(base)
    crafted.set_field(header, tuple(at.split(".")), FORMER[at])
    crafted.with_checkpoint_header(base, tmp_path / "changed", header)
    start = time.process_time()
    with pytest.raises(CheckpointError, match=at.rpartition(".")[2]):
        load_checkpoint(tmp_path / "changed")
    assert time.process_time() - start < 2


@pytest.mark.fuzz
@given(number=st.integers(min_value=0))
def test_changed_fields_are_refused_or_harmless(cases: list[Case], tmp_path: Path, number: int) -> None:
    case = cases[number * 7919 % len(cases)]
    assert outcome_of_checkpoint(case, tmp_path) in ("refused", "harmless"), case.name


@pytest.mark.fuzz
@given(bit=st.integers(min_value=0))
@example(bit=8 * 7)
def test_flipped_bits_are_refused_or_make_a_network(base: Path, tmp_path: Path, bit: int) -> None:
    """A checkpoint has no checksum: a flipped bit of a weight is another weight."""
    data = base.read_bytes()
    case = Case("", "", lambda path: path.write_bytes(crafted.flipped(data, bit % (8 * 200_000))))
    assert outcome_of_checkpoint(case, tmp_path).partition(":")[0] != "wrong error"


@pytest.mark.parametrize("case", list(crafted.header_cases("ff3r")), ids=lambda case: case.name[:12])
def test_crafted_headers_are_refused(tmp_path: Path, case: Case) -> None:
    assert outcome_of_checkpoint(case, tmp_path) == "refused"


@pytest.mark.parametrize("how", [how for how in crafted.DAMAGES if how not in ("zeros", "largest", "smallest")])
def test_damaged_tensors_are_refused_by_name(base: Path, tmp_path: Path, how: str) -> None:
    tensors, name = load_file(base), "network.camera_head.pose_branch.fc1.weight"
    if how == "removed":
        del tensors[name]
    else:
        tensors[name] = crafted.damaged(tensors[name], how)
    save_file(tensors, tmp_path / "new")
    crafted.with_checkpoint_metadata(tmp_path / "new", crafted.checkpoint_header(base))
    with pytest.raises(CheckpointError, match=r"camera_head\.pose_branch\.fc1\.weight"):
        load_checkpoint(tmp_path / "new")


def test_a_file_that_is_overwritten_or_cut_later_changes_no_weight(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(base.read_bytes())
    loaded = load_checkpoint(path)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
        file.truncate(100)
    expected = load_file(base)
    for name, tensor in loaded.network.state_dict().items():
        assert torch.equal(tensor, expected[f"network.{name}"])


@pytest.mark.parametrize("what", ["pipe", "folder", "/dev/zero"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, what: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match="only regular files"):
        load_checkpoint(tmp_path / what)


MEMORY = """
import sys
from pathlib import Path
from ff3r_model.network.checkpoint import load_checkpoint
def status(name):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if name in line)
load_checkpoint(sys.argv[2])  # what is made once
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
kept = load_checkpoint(sys.argv[1])
print(status("VmHWM") - before)
"""


@pytest.mark.long
def test_loading_takes_the_memory_of_the_weights_once(base: Path, tmp_path: Path) -> None:
    """200 MB of weights, in float32."""
    config = FF3RConfig.nano()
    text = TextConfig(dim=config.text_width, width=768, heads=8, layers=2, vocabulary_rank=None)
    save_checkpoint(tmp_path / "large", FF3R(config), TextEncoder(text), mode="trained", card={})
    size = (tmp_path / "large").stat().st_size
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "large"), str(base)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 1.1 * size + 2**20 * 160  # the text tower is built before it is filled


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from ff3r_model.core import files
from ff3r_model.network.checkpoint import load_checkpoint, save_checkpoint
def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)
loaded = load_checkpoint(sys.argv[1])
setattr(*{"written": (files, "sync", killed), "synced": (Path, "replace", killed)}[sys.argv[2]])
save_checkpoint(sys.argv[1], loaded.network, loaded.text_encoder, mode="trained", card={"new": True})
"""


@pytest.mark.parametrize("moment", ["written", "synced"])
def test_a_process_that_is_killed_while_it_saves_leaves_the_old_file(base: Path, tmp_path: Path, moment: str) -> None:
    path = tmp_path / "weights"
    path.write_bytes(base.read_bytes())
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), moment])
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == base.read_bytes() and load_checkpoint(path).card == {}


def test_no_room_on_the_disk(base: Path, tmp_path: Path) -> None:
    path, loaded = tmp_path / "weights", load_checkpoint(base)
    path.write_bytes(base.read_bytes())
    limits, before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"weights could not be written: .*Is the disk full or read-only\?"):
            save_checkpoint(path, loaded.network, loaded.text_encoder, mode="trained", card={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_bytes() == base.read_bytes() and [each.name for each in tmp_path.iterdir()] == ["weights"]
