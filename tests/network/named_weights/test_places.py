"""One rule from a name or a path to a checkpoint file, and who may have written what a name stands for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ff3r_model.network.checkpoint import CheckpointError, load_checkpoint
from ff3r_model.network.named_weights.places import NANO_WEIGHTS, WeightsError, find_weights, place_of, weights_folder


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weights: Path) -> Path:
    """The file of `apache`, in a folder that FF3R_WEIGHTS names."""
    monkeypatch.setenv("FF3R_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    return shutil.copy(weights, place_of("apache"))


def test_names_and_paths(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_weights() == find_weights("nano") == NANO_WEIGHTS
    assert find_weights("apache") == installed
    assert find_weights(Path("apache")) == Path("apache"), "a Path is a path"
    assert find_weights("./apache") == Path("apache") and find_weights("apache.safetensors").suffix
    assert find_weights("~/x.safetensors") == Path.home() / "x.safetensors"
    # A name wins over a file of that name.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "apache").write_bytes(b"no checkpoint")
    assert find_weights("apache") == installed
    with pytest.raises(CheckpointError, match="apache cannot be read"):
        load_checkpoint("./apache")
    installed.unlink()
    with pytest.raises(WeightsError, match=r"For the file of that name in this folder write \./apache"):
        find_weights("apache")


def test_what_is_not_installed_or_no_name(installed: Path) -> None:
    with pytest.raises(WeightsError, match=r"'da3-large' are not installed \(no .*/da3-large\.safetensors\): `ff3r"):
        load_checkpoint("da3-large")
    with pytest.raises(CheckpointError, match=r"apach is not there.*a name of `ff3r weights list`"):
        load_checkpoint("apach")


def test_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FF3R_WEIGHTS", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert weights_folder() == Path.home() / ".local/share/ff3r/weights"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert weights_folder() == Path("/data/ff3r/weights")
    monkeypatch.setenv("FF3R_WEIGHTS", "~/mine")
    assert weights_folder() == Path.home() / "mine"


def test_what_others_can_write_is_not_loaded(installed: Path) -> None:
    find_weights("apache")
    installed.chmod(0o646)
    with pytest.raises(WeightsError, match=r"apache\.safetensors may be written by other users"):
        find_weights("apache")
    installed.chmod(0o644)
    installed.parent.chmod(0o777)
    with pytest.raises(WeightsError, match=r"weights may be written by other users"):
        find_weights("apache")
    installed.parent.chmod(0o755)
    elsewhere = installed.rename(installed.with_name("elsewhere"))
    installed.symlink_to(elsewhere)
    with pytest.raises(WeightsError, match="is a link"):
        find_weights("apache")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_somebody_else(installed: Path) -> None:
    os.chown(installed, 12345, -1)
    with pytest.raises(WeightsError, match="belongs to user 12345"):
        find_weights("apache")
