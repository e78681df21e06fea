"""Every option of every command with values that make no sense: done, or one line and exit status 2, never a traceback.

The heavy work is stubbed; what is tried is all that stands before it.
"""

from __future__ import annotations

import functools
import json
import typing
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from unittest.mock import Mock

import cv2
import numpy as np
import pytest

from ff3r_model.cli import COMMANDS, main, map_page, view
from ff3r_model.cli.evaluate import Evaluate, Frames, Manifest, Report, Synthetic
from ff3r_model.engine.onnx import export as onnx_export
from ff3r_model.engine.onnx.manifest import ExportError
from ff3r_model.evaluation.subject import CheckpointUnderTest
from ff3r_model.network.checkpoint import load_checkpoint
from ff3r_model.network.public_weights import convert
from ff3r_model.pipeline import Pipeline
from ff3r_model.training import recipe, target_cache, trainer
from tests.evaluation.test_evaluation_files import result

SUBCOMMANDS = {name: command for name, command in COMMANDS.items() if command is not Evaluate} | {
    "eval synthetic": Synthetic, "eval frames": Frames, "eval split": Manifest, "eval report": Report,
}  # fmt: skip
NUMBERS: dict[Any, tuple[str, ...]] = {
    int: ("-1", "0", "999999999999", "nan", "1,2"),
    float: ("nan", "-1", "inf", "0", "-inf", "1e300", "0,5"),
    str: ("", "nonsense", "a\nb", " ", "ü" * 300),
}
FEW = 3
"""Values per option that a normal run tries, the likeliest first."""
LOADERS = ("pipeline", "evaluation.subject", "training.recipe", "network.public_weights.convert")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> dict[str, Path]:
    """What commands are given where the option that is tried is another."""
    root = tmp_path_factory.mktemp("given")
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    (root / "recording").mkdir()
    for index in range(4):
        picture = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(root / f"images/{index}.png"), picture)
        stem = root / f"recording/frame-{index:06d}"
        cv2.imwrite(f"{stem}.color.png", picture)
        cv2.imwrite(f"{stem}.depth.png", np.full((48, 64), 1000, np.uint16))
        np.savetxt(f"{stem}.pose.txt", np.eye(4))
    split = {"version": 1, "windows": [{"scene": "recording", "context": [0, 1], "targets": []}]}
    (root / "split.json").write_text(json.dumps(split))
    (root / "result.json").write_text(json.dumps(result()))
    Pipeline.from_checkpoint(weights).save(root / "map")
    return {path.name.partition(".")[0]: path for path in root.iterdir()} | {"weights": weights}


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    """No network runs, nothing large is written, nothing waits."""
    cached = functools.cache(lambda device: load_checkpoint(weights, device))

    def quickly(path: Path, device: Any = "cpu") -> Any:
        return cached(device) if path == weights else load_checkpoint(path, device)

    for module in LOADERS:
        monkeypatch.setattr(f"ff3r_model.{module}.load_checkpoint", quickly)
    monkeypatch.setattr(Pipeline, "add", lambda self, frame: None)
    monkeypatch.setattr(Pipeline, "step", lambda self, flush=False: None)
    monkeypatch.setattr(recipe, "student", lambda start, **_: start.network.requires_grad_(True))
    monkeypatch.setattr(recipe, "_snapshots", lambda *_: None)
    monkeypatch.setattr(trainer, "optimizer", lambda *_: None)
    monkeypatch.setattr(trainer, "freeze", lambda *_: None)
    monkeypatch.setattr(target_cache, "fingerprint", lambda _: "0")
    monkeypatch.setattr(trainer.Trainer, "run", lambda self: True)
    monkeypatch.setattr(CheckpointUnderTest, "measure", lambda *_: iter([result()]))
    monkeypatch.setattr(convert, "save_checkpoint", lambda path, *_, **__: Path(path).write_bytes(b""))
    monkeypatch.setattr(onnx_export, "export", Mock(side_effect=ExportError("stubbed")))
    monkeypatch.setattr(map_page, "MapPage", Mock(return_value=Mock(viewer=Mock(urls=["http://localhost"]))))
    monkeypatch.setattr(view, "threading", Mock(Event=Mock(side_effect=KeyboardInterrupt)))


def given(command: str, files: dict[str, Path], out: Path) -> dict[str, list[str]]:
    """Options that make sense, by field: what the command cannot do without, and what makes it quick."""
    one = {name: [str(path)] for name, path in files.items()}
    cpu = {"weights": one["weights"], "device": ["cpu"]}
    return {
        "reconstruct": {"source": one["images"], "output": [f"{out}/map"], **cpu},
        "query": {"map": one["map"], "text": ["chair"], "weights": one["weights"]},
        "view": {"map": one["map"], "weights": one["weights"]},
        "convert": {"ff3r": one["weights"], "output": [f"{out}/c.safetensors"]},
        "train": {"images": one["images"], "output": [f"{out}/run"], "steps": ["1"], "views": ["2"], **cpu},
        "export": {"checkpoint": one["weights"], "output": [f"{out}/onnx"]},
        "build-engine": {"exported": one["images"]},
        "config": {},
        "eval synthetic": {"json": [f"{out}/f.json"], **cpu},
        "eval frames": {"data": one["recording"], "split": one["split"], "json": [f"{out}/f.json"], **cpu},
        "eval split": {"data": one["recording"], "output": [f"{out}/s.json"], "views": ["2"], "stride": ["1"]},
        "eval report": {"results": one["result"], "out": [f"{out}/report"]},
    }[command]


def nonsense(hint: Any, files: dict[str, Path], out: Path) -> Iterator[list[str]]:
    """Values of an option that make no sense, or hardly any."""
    options = [option for option in (hint, *get_args(hint)) if option not in (type(None), Ellipsis)]
    if get_origin(hint) is typing.Annotated:
        yield from nonsense(get_args(hint)[0], files, out)
    elif any(get_origin(option) is Literal for option in options):
        yield ["nonsense"]
    elif Path in options or Path in get_args(options[-1]):
        paths = (out / "missing/x", out, files["split"], "", "/dev/null", "/proc/x", "x" * 300)
        yield from ([str(path)] for path in paths)
    elif get_origin(hint) is tuple:
        yield from ([value] * (2 if len(options) > 2 else 1) for value in NUMBERS[int])
        yield []
    else:
        yield from ([value] for kind in NUMBERS for value in NUMBERS[kind] if kind in options)


def arguments(command: str, options: dict[str, list[str]]) -> list[str]:
    """The command line; positional arguments by their place."""
    places, named = [], []
    for each in fields(SUBCOMMANDS[command]):
        if each.name not in options:
            continue
        positional = "Positional" in str(each.type)
        flag = [] if positional else [f"--{each.name.replace('_', '-')}"]
        (places if positional else named).extend([*flag, *options[each.name]])
    return [*command.split(), *named, *places]


@pytest.mark.parametrize("count", [FEW, pytest.param(99, marks=pytest.mark.long)])
@pytest.mark.parametrize("command", list(SUBCOMMANDS))
def test_no_option_ends_in_a_traceback(
    command: str, count: int, stubbed: None, files: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    hints = typing.get_type_hints(SUBCOMMANDS[command], include_extras=True)
    wrong = []
    for name, hint in hints.items():
        for number, value in enumerate(islice([] if hint is bool else nonsense(hint, files, tmp_path), count)):
            out = tmp_path / f"{name}{number}"
            out.mkdir()
            line = arguments(command, given(command, files, out) | {name: value})
            problem = complaint(lambda line=line: main(line), capfd)  # type: ignore[misc]
            wrong += [f"{' '.join(line)}\n    {problem}"] if problem else []
    assert not wrong, "\n".join(wrong)


def complaint(run: Callable[[], int], capfd: pytest.CaptureFixture[str]) -> str | None:
    """What is wrong with how a command ended."""
    capfd.readouterr()
    try:
        status = run()
    except SystemExit as stop:  # the parser's, which draws a box around what it says
        return None if stop.code == 2 else f"exit {stop.code}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    said = capfd.readouterr().err
    if status == 0:
        return "Traceback" if "Traceback" in said else None
    one_line = said.startswith("ff3r: ") and said.count("\n") == 1 and len(said) < 1000
    return None if status == 2 and one_line else f"exit {status}: {said[:500]}"
