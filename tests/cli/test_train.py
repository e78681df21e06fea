"""`ff3r train` from end to end on pictures of a procedural room, and what it says of options that make no sense."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ff3r_model.cli import main
from ff3r_model.cli.train import Train
from ff3r_model.network.checkpoint import NANO_WEIGHTS, load_checkpoint, save_checkpoint
from ff3r_model.network.model import FF3R
from ff3r_model.network.text_encoder import TextConfig, TextEncoder
from ff3r_model.synthetic import CLASSES, COLORS
from ff3r_model.training import ship
from ff3r_model.training.datasets.room_shards import render_shard, write_shards
from ff3r_model.training.recipe import _check_same_space, student
from ff3r_model.training.run_folder import RunError
from ff3r_model.training.settings import FROM_SCRATCH, ON_A_CPU, plain
from tests.support.training_run import tiny_config


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four views of a procedural room."""
    folder = tmp_path_factory.mktemp("room")
    for index, image in enumerate(render_shard(5, 1, 4, (84, 84))["images"][0]):
        cv2.imwrite(str(folder / f"{index}.png"), image[..., ::-1])
    return folder


def log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_run_on_images_ends_in_a_checkpoint_that_loads(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    options = ["train", "-o", str(out), "--images", str(pictures), "--views", "2", "--total-views", "2"]
    options += ["--long-side", "42", "--device", "cpu"]
    assert main([*options, "--steps", "2"]) == 0
    assert "reconstruct --weights" in capsys.readouterr().out
    made = load_checkpoint(out / "checkpoint.safetensors")
    assert made.mode == "trained" and made.card["steps"] == 2
    averaged = torch.load(out / "average.pt", weights_only=True)
    assert all(torch.equal(value, averaged[name]) for name, value in made.network.state_dict().items())
    assert made.text_encoder.encode(["chair"]).shape == (1, made.config.text_width)
    terms = {"rgb", "feature", "warp", "camera", "depth", "total"}
    assert terms <= set(next(line for line in log(out) if line["step"] == 1 and "total" in line))
    sheets = sorted((out / "pictures").glob("*.png"))
    assert [sheet.name for sheet in sheets] == ["windows_0000000.png", "windows_0000002.png"]
    first, last = (cv2.imread(str(sheet)) for sheet in sheets)
    assert first.shape == last.shape and not np.array_equal(first, last) and first.std() > 20
    assert main([*options, "--steps", "2"]) == 2 and "holds a run already" in capsys.readouterr().err
    assert main([*options, "--steps", "3", "--resume"]) == 0
    assert load_checkpoint(out / "checkpoint.safetensors").card["steps"] == 3


def test_rooms_are_taught_by_their_truth(tmp_path: Path) -> None:
    write_shards(tmp_path / "rooms", 100_000, 1, 1, 3)
    options = ["--rooms", str(tmp_path / "rooms"), "--views", "2", "--total-views", "2", "--steps", "2", "--fresh"]
    assert main(["train", "-o", str(tmp_path / "run"), *options, "--device", "cpu"]) == 0
    line = next(line for line in log(tmp_path / "run") if "total" in line)
    assert {"matching", "rotation"} <= set(line) and "rgb" not in line
    load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")


def test_a_part_is_taught_by_itself_and_shipped_with_the_run_s_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shards(tmp_path / "rooms", 100_000, 1, 1, 3)
    out, shipped = tmp_path / "run", tmp_path / "nano.safetensors"
    options = ["--rooms", str(tmp_path / "rooms"), "--views", "2", "--total-views", "2", "--steps", "2"]
    assert main(["train", "-o", str(out), *options, "--part", "words", "--fresh", "--device", "cpu"]) == 0
    assert {line["semantics"] > 0 and "rotation" not in line for line in log(out) if "total" in line} == {True}
    monkeypatch.setattr("sys.argv", ["ship", str(out), "-o", str(shipped)])
    ship.main()
    made, run = load_checkpoint(shipped), load_checkpoint(out / "checkpoint.safetensors")
    assert shipped.stat().st_size < 0.6 * (out / "checkpoint.safetensors").stat().st_size
    words = ["red chair", "sofa"]
    assert torch.allclose(made.text_encoder.encode(words), run.text_encoder.encode(words), atol=1e-2)
    kept = run.network.state_dict()
    assert all(torch.allclose(value, kept[name], atol=1e-2) for name, value in made.network.state_dict().items())
    with pytest.raises(RunError, match="--part is for --rooms"):
        command(tmp_path, part="words").settings(on_cpu=True)


def test_a_text_space_of_its_own_gets_no_strange_tower(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shards(tmp_path / "rooms", 100_000, 1, 1, 2)
    targets = {
        "class_targets": torch.eye(64)[: len(CLASSES)],
        "phrase_targets": torch.randn(len(CLASSES) * len(COLORS), 64),
    }
    torch.save(targets, tmp_path / "targets.pt")
    options = ["--rooms", str(tmp_path / "rooms"), "--text-targets", str(tmp_path / "targets.pt"), "--steps", "1"]
    options += ["--views", "2", "--total-views", "2", "--device", "cpu"]
    assert main(["train", "-o", str(tmp_path / "run"), *options]) == 0
    assert "ff3r_model.training.ship" in capsys.readouterr().out
    assert (tmp_path / "run/average.pt").exists() and not (tmp_path / "run/checkpoint.safetensors").exists()
    assert len(list((tmp_path / "run/pictures").glob("*.png"))) == 2


def test_text_targets_that_are_none_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shards(tmp_path / "rooms", 100_000, 1, 1, 2)
    options = ["--rooms", str(tmp_path / "rooms"), "--text-targets", str(tmp_path / "targets.pt"), "--device", "cpu"]
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    for content in (b"", b"no archive", (tmp_path / "other.pt").read_bytes()):
        (tmp_path / "targets.pt").write_bytes(content)
        assert main(["train", "-o", str(tmp_path / "run"), *options]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("ff3r: ") and "targets.pt holds no class_targets" in said


def test_a_lifting_checkpoint_gets_a_gaussian_head(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = tiny_config()
    lifting = FF3R(replace(config, decode_gaussians=False))
    text = TextEncoder(TextConfig(dim=8, width=16, heads=2, layers=1, vocabulary_rank=4))
    save_checkpoint(tmp_path / "lifting.safetensors", lifting, text, mode="lifting", card={})
    start = load_checkpoint(tmp_path / "lifting.safetensors")
    made = student(start, fresh=False, seed=0)
    assert made.config.decode_gaussians and made(torch.rand(1, 2, 3, 28, 28)).gaussians is not None
    kept = lifting.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in made.state_dict().items() if name in kept)
    fresh = student(start, fresh=True, seed=0)
    assert not torch.equal(fresh.aggregator.camera_token, made.aggregator.camera_token)
    assert torch.equal(fresh.feature_decoder.weight, made.feature_decoder.weight), "the text space stays"


def test_a_teacher_of_other_words_is_refused(tmp_path: Path) -> None:
    start, other = load_checkpoint(NANO_WEIGHTS), load_checkpoint(NANO_WEIGHTS)
    _check_same_space(start, other)
    torch.nn.init.normal_(other.text_encoder.tower.token_embedding.table.weight)
    other.text_encoder.clear_cache()
    with pytest.raises(RunError, match=r"another text space than the weights do \('\w+': cosine -?0\.\d\d\)"):
        _check_same_space(start, other)


def command(tmp_path: Path, settings: object = None, **options: object) -> Train:
    config = tmp_path / "config.json"
    if settings is not None:
        config.write_text(json.dumps(settings))
    sources = {} if "rooms" in options else {"images": (tmp_path,)}
    return Train(tmp_path / "out", config=None if settings is None else config, **{**sources, **options})  # type: ignore[arg-type]


def test_options_go_before_the_file_and_the_file_before_what_suits_a_cpu(tmp_path: Path) -> None:
    chosen = command(tmp_path).settings(on_cpu=True)
    assert chosen.train.minutes == 10 and chosen.sampling.views == (2, 3, 4)
    assert chosen.paper.render_views == ON_A_CPU["paper"]["render_views"]
    filed = {"train": {"steps": 7, "learning_rate": 0.5}, "sampling": {"long_side": 70}}
    chosen = command(tmp_path, filed).settings(on_cpu=True)
    assert (chosen.train.steps, chosen.train.minutes, chosen.train.learning_rate) == (7, None, 0.5)
    assert chosen.sampling.long_side == 70 and chosen.sampling.total_views == 4
    chosen = command(tmp_path, filed, minutes=2.0, long_side=56).settings(on_cpu=False)
    assert (chosen.train.steps, chosen.train.minutes, chosen.sampling.long_side) == (None, 2.0, 56)
    assert chosen.sampling.total_views == 16
    chosen = command(tmp_path, rooms=tmp_path).settings(on_cpu=True)
    assert chosen.train.learning_rate == FROM_SCRATCH["train"]["learning_rate"]


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("options", [{"steps": 5, "views": (2, 4)}, {"fresh": True}])
def test_the_settings_of_an_earlier_run_are_a_settings_file(
    tmp_path: Path, options: dict[str, object], on_cpu: bool
) -> None:
    first = command(tmp_path, **options).settings(on_cpu=on_cpu)
    assert command(tmp_path, plain(first)).settings(on_cpu=not on_cpu) == first


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"train": {"momentum": 1}}, "train has no momentum; it has"),
        ({"data": {}}, "no section data.*known are train"),
        ({"train": {"steps": 0}}, "steps must be at least 1, not 0"),
        ({"paper": {"weights": {"rbg": 1}}}, "weights has no rbg"),
        ({"paper": {"weights": {"rgb": -1}}}, "rgb must be 0 to 1e\\+06, not -1"),
        ({"paper": {"target_views": 1}}, "must leave the network 2 views of the smallest window, not 1 of 2"),
        ({"train": {"weight_decay": float("nan")}}, "weight_decay must be 0 to 10, not nan"),
        ({"train": {"minutes": float("inf")}}, "minutes must be above 0 to 1e\\+06, not inf"),
        ({"train": {"ema": 1}}, "ema must be 0 to 1, not 1"),
        ({"supervised": {"pixels_per_view": 0}}, "pixels_per_view must be at least 1, not 0"),
        ({"sampling": {"views": []}}, r"views must be one or more numbers of 2 to 64, not \[\]"),
        ([1], "should be an object of sections"),
    ],
)
def test_settings_that_make_no_sense_are_named(tmp_path: Path, settings: object, complaint: str) -> None:
    with pytest.raises(RunError, match=complaint):
        command(tmp_path, settings).settings(on_cpu=False)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"views": (1,)}, r"views must be one or more numbers of 2 to 64, not \[1\]"),
        ({"views": (2, 65)}, r"not \[2, 65\]"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0 to 10, not -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0 to 10, not nan"),
        ({"learning_rate": float("inf")}, "not inf"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"minutes": -1.0}, "minutes must be above 0"),
        ({"total_views": 0}, "total_views must be 1 to 4096, not 0"),
        ({"long_side": 0}, "long_side must be 1 to 4096, not 0"),
        ({"workers": -1}, "workers must be 0 to 256, not -1"),
        ({"seed": -1}, "seed must be 0 to"),
        ({"cache_gigabytes": float("nan")}, "cache-gigabytes must be at least 0, not nan"),
        ({"steps": 1, "minutes": 1.0}, "give a budget in steps or in minutes"),
    ],
)
def test_options_out_of_range_are_named(tmp_path: Path, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(RunError, match=complaint):
        command(tmp_path, **options).settings(on_cpu=True)


def test_material_is_footage_or_rooms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in ([], ["--images", "a", "--rooms", "b"]):
        assert main(["train", "-o", str(tmp_path / "out"), *options]) == 2
        assert "give real footage" in capsys.readouterr().err
    assert main(["train", "-o", str(tmp_path / "out"), "--images", str(tmp_path / "no"), "--device", "cpu"]) == 2
    assert "no does not exist" in capsys.readouterr().err
