"""`ff3r weights`, and names of weights where commands take a checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ff3r_model.network.named_weights.digests import manifest
from ff3r_model.network.named_weights.memory import file_bytes, gpu_bytes
from ff3r_model.network.named_weights.places import NAMES, place_of
from ff3r_model.network.named_weights.recipes import RECIPES

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FF3R_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def test_the_table(run: Run, folder: Path, weights: Path) -> None:
    folder.mkdir()
    shutil.copy(weights, place_of("apache"))
    status, out, _ = run("weights", "list")
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert status == 0 and set(NAMES) <= set(lines)
    assert "depth-anything/DA3-BASE + google/tipsv2-b14" in lines["apache"] and lines["apache"].endswith("yes")
    assert " NO " in lines["vggt-lseg"] and " NO " in lines["da3-large"] and "CC BY-NC 4.0" in lines["da3-large"]
    assert all(" NO " not in lines[name] for name in ("nano", "apache", "apache-small", "apache-large-words"))
    assert str(folder) in out


def test_the_table_as_json(run: Run) -> None:
    status, out, _ = run("weights", "list", "--json")
    rows = {row["name"]: row for row in json.loads(out)["weights"]}
    assert status == 0 and list(rows) == list(NAMES)
    assert rows["apache"]["gpu_bytes"].keys() == {"8", "16", "64"} and rows["apache"]["installed"] is None
    assert rows["nano"]["installed"] and rows["da3-large"]["commercial_use"] is False


def test_the_documentation_has_the_same_figures(run: Run, repository: Path) -> None:
    """The page's table: file, memory, commercial use."""
    page = (repository / "docs/public-weights.md").read_text()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `") and "`" in line[3:]}
    for recipe in RECIPES.values():
        memory = " / ".join(f"{gpu_bytes(recipe, views) / 2**30:.1f}" for views in (8, 16, 64))
        row = rows[recipe.name]
        assert f"| {file_bytes(recipe) / 1e9:.2f} | {memory} |" in row, recipe.name
        assert row.endswith("| yes |" if recipe.commercial else "| **no** |")


def test_every_file_is_in_the_manifest() -> None:
    assert set(manifest()) == {source.address for recipe in RECIPES.values() for source in recipe.sources}


def test_licences_are_shown_and_must_be_accepted(run: Run) -> None:
    for name, licence in (("vggt-lseg", "vggt"), ("da3-large", "cc-by-nc-4.0")):
        status, out, err = run("weights", "get", name)
        assert status == 2 and "non-commercial" in out and "https://" in out
        assert f"`ff3r weights get {name} --accept-licence {licence}`" in err
    status, _, err = run("weights", "get", "apache", "--accept-licence", "mit")
    assert status == 2 and "the licences are apache-2.0, cc-by-nc-4.0, lseg, vggt" in err


def test_what_only_people_can_fetch(run: Run) -> None:
    status, _, err = run("weights", "get", "vggt-lseg", "--accept-licence", "vggt")
    assert status == 2 and "Google Drive" in err and "--file lseg=PATH" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nano"], "comes with the package"),
        (["apach"], "there are no weights named 'apach'"),
        (["apache", "--file", "da3"], "give KEY=PATH"),
        (["apache", "--file", "lseg=x"], "apache is made of da3, tipsv2, tokenizer"),
    ],
)
def test_nonsense(run: Run, arguments: list[str], said: str) -> None:
    status, _, err = run("weights", "get", *arguments)
    assert status == 2 and said in err


def test_commands_take_names(run: Run, folder: Path, frames: Path, tmp_path: Path, weights: Path) -> None:
    missing = "the weights 'apache' are not installed"
    status, _, err = run("reconstruct", frames, "-o", tmp_path / "out", "--weights", "apache")
    assert status == 2 and missing in err and "`ff3r weights get apache`" in err
    for command in (
        ["export", "apache", "-o", tmp_path / "onnx"],
        ["train", "-o", tmp_path / "run", "--images", frames, "--weights", "apache"],
        ["train", "-o", tmp_path / "run", "--images", frames, "--teacher", "apache"],
        ["eval", "synthetic", "--json", tmp_path / "x.json", "--weights", "apache"],
        ["query", tmp_path / "out", "chair", "--weights", "apache"],
        ["view", tmp_path / "out", "--weights", "apache"],
    ):
        status, _, err = run(*command)
        assert status == 2 and missing in err, (command, err)
    folder.mkdir(exist_ok=True)
    shutil.copy(weights, place_of("apache"))
    assert run("reconstruct", frames, "-o", tmp_path / "out", "--weights", "apache", "--stride", "7")[0] == 0
    assert (tmp_path / "out/map.ff3r.safetensors").exists()
