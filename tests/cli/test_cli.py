"""The `ff3r` command end to end, on random weights: what it writes agrees with the map, what it refuses is one line."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from evo.tools import file_interface

from ff3r_model import __version__
from ff3r_model.cli import COMMANDS, main, map_files
from ff3r_model.cli.map_page import MapPage
from ff3r_model.cli.query import best_places
from ff3r_model.core.types import Frame
from ff3r_model.frames.image_folder import FolderSource
from ff3r_model.frames.source import SourceError
from ff3r_model.gaussians.ply import read_ply
from ff3r_model.pipeline import Pipeline
from ff3r_model.visualization.web_address import LOCALHOST
from ff3r_model.voxel_map.voxel_map import VoxelMap

Run = Callable[..., tuple[int, str, str]]
FRAMES = 14


@pytest.fixture(scope="module")
def made(frames: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of one run."""
    folder = tmp_path_factory.mktemp("out") / "deep" / "er"
    options = ["--weights", str(weights), "--device", "cpu", "--min-motion", "0"]
    assert main(["reconstruct", str(frames), "-o", str(folder), *options]) == 0
    return folder


def test_version_and_help(run: Run) -> None:
    assert run("--version") == (0, f"ff3r {__version__}\n", "")
    with pytest.raises(SystemExit) as stop:
        run("--help")
    assert stop.value.code == 0


def test_reconstruct_writes_what_the_map_holds(made: Path) -> None:
    voxel_map = VoxelMap.load(made / map_files.MAP)
    assert len(voxel_map) > 0
    trajectory = file_interface.read_tum_trajectory_file(str(made / map_files.TRAJECTORY))
    poses = dict(voxel_map.trajectory())
    assert 0 < len(trajectory.timestamps) == len(poses) <= FRAMES, "random weights need not join every window"
    for seconds, matrix in zip(trajectory.timestamps, trajectory.poses_se3, strict=True):
        np.testing.assert_allclose(matrix, poses[round(seconds * 1e9)].double().numpy(), atol=1e-5)
    torch.testing.assert_close(read_ply(made / map_files.CLOUD).means, voxel_map.gaussians().means)
    assert cv2.imread(str(made / map_files.PICTURE)) is not None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SourceError("frame 9 is damaged"), ZeroDivisionError()])
def test_what_was_mapped_is_written_when_a_run_stops_early(
    frames: Path, weights: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def broken(self: FolderSource) -> Iterator[Frame]:
        yield from islice(whole(self), FRAMES - 2)
        raise error

    whole = FolderSource.__iter__
    monkeypatch.setattr(FolderSource, "__iter__", broken)
    options = ["--weights", weights, "--device", "cpu", "--min-motion", "0", "--views", 4, "--long-side", 56]
    command = ["reconstruct", frames, "-o", tmp_path / "out", *options]
    if isinstance(error, ZeroDivisionError):
        with pytest.raises(ZeroDivisionError):  # a mistake of our own keeps its traceback
            run(*command)
    else:
        status, out, err = run(*command)
        assert status == (130 if isinstance(error, KeyboardInterrupt) else 2)
        assert "stopped early" in out and ("interrupted" in err or "frame 9 is damaged" in err)
    assert len(VoxelMap.load(tmp_path / "out" / map_files.MAP)) > 0
    assert file_interface.read_tum_trajectory_file(str(tmp_path / "out" / map_files.TRAJECTORY)).num_poses > 0


def test_stride_skips_frames(frames: Path, weights: Path, tmp_path: Path, run: Run) -> None:
    options = ["--weights", weights, "--stride", 2, "--min-motion", 0, "--views", 4, "--overlap", 2, "--device", "cpu"]
    status, out, _ = run("reconstruct", frames, "-o", tmp_path, *options)
    assert status == 0 and "voxels" in out
    trajectory = file_interface.read_tum_trajectory_file(str(tmp_path / map_files.TRAJECTORY))
    stamps = {round(seconds * 10) for seconds in trajectory.timestamps}
    assert stamps and stamps <= set(range(0, FRAMES, 2))


def test_query_prints_what_the_map_answers(made: Path, weights: Path, tmp_path: Path, run: Run) -> None:
    map_file, picture = made / map_files.MAP, tmp_path / "found.png"
    options = ["--weights", weights, "-o", picture, "--threshold", 0.001]
    status, out, _ = run("query", map_file, "red chair", *options)
    assert status == 0
    assert run("query", made, "red", "chair", *options)[:2] == (0, out), "the folder, and words without quotes"
    pipeline = Pipeline.from_checkpoint(weights)
    pipeline.load(map_file)
    pipeline.queries.set_threshold(0.001)
    pipeline.queries.add("red chair")
    mask = pipeline.queries.masks(pipeline.map)[0]
    assert f'"red chair": {len(mask.indices):,} of {len(pipeline.map):,} voxels score at least 0.001' in out
    assert len(mask.indices) > 0
    assert f"score {mask.scores.max().item():.3f} at" in out
    assert "not metres" in out
    assert cv2.imread(str(picture)) is not None


def test_best_places_are_apart_and_sorted() -> None:
    rng = np.random.default_rng(0)
    points, scores = rng.uniform(0, 3, (500, 3)), rng.uniform(0, 1, 500)
    places = best_places(points, scores, apart=1.0, limit=4)
    assert places[0][1] == scores.max()
    assert [score for _, score in places] == sorted((score for _, score in places), reverse=True)
    chosen = np.array([place for place, _ in places])
    distances = np.linalg.norm(chosen[:, None] - chosen[None], axis=-1)
    assert distances[~np.eye(len(chosen), dtype=bool)].min() > 1.0
    for point, score in zip(points, scores, strict=True):  # nothing better was far enough from all chosen before it
        worse = [place for place, best in places if best < score]
        if len(worse):
            before = chosen[: len(places) - len(worse)]
            assert np.linalg.norm(before - point, axis=1).min() <= 1.0 or (before == point).all(1).any()


def test_view_serves_the_map(made: Path, weights: Path) -> None:
    pipeline = Pipeline.from_checkpoint(weights)
    pipeline.load(made / map_files.MAP)
    page = MapPage(pipeline, LOCALHOST, 0)
    try:
        assert urllib.request.urlopen(page.viewer.url).status == 200
        threads = [threading.Thread(target=page.ask, args=(text,)) for text in ("chair", "sofa", "chair")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(query.text for query in pipeline.queries.active) == ["chair", "sofa"]
        page.ask(" ")
        page.remove(pipeline.queries.active[0].id)
        assert len(pipeline.queries.active) == 1
    finally:
        page.viewer.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reconstruct", "{tmp}/none", "-o", "{tmp}/o"], "none does not exist"),
        (["reconstruct", "{tmp}", "-o", "{tmp}/o"], "holds no colour images"),
        (["reconstruct", "{frames}", "-o", "{tmp}/o", "--views", "65"], "views must be 2 to 64, not 65"),
        (["reconstruct", "{frames}", "-o", "{tmp}/o", "--overlap", "8"], "overlap must be 1 to views"),
        (["reconstruct", "{frames}", "-o", "{tmp}/o", "--stride", "0"], "stride must be 1 to 1,000,000,000, not 0"),
        (["reconstruct", "{frames}", "-o", "{tmp}/o", "--camera-height", "-1"], "must be positive metres, not -1.0"),
        (["reconstruct", "{frames}", "-o", "{tmp}/o", "--camera-height", "inf"], "must be positive metres, not inf"),
        (["reconstruct", "{frames}", "-o", "{tmp}/o", "--min-motion", "nan"], "min_motion must be at least 0, not nan"),
        (["reconstruct", "{frames}/0.png", "{frames}/1.png", "-o", "{tmp}/o"], "give one source, not 2"),
        (["reconstruct", "{frames}", "-o", "{tmp}/o", "--weights", "{tmp}/w"], "w is not there"),
        (["reconstruct", "{frames}", "-o", "{tmp}/o", "--depth", "/depth"], "is no bag, so it has no"),
        (["reconstruct", "{frames}", "-o", "{frames}"], "holds 0.png, 1.png, 10.png and"),
        (["reconstruct", "{frames}", "-o", "{tmp}/o", "--device", "toaster"], "device 'toaster'"),
        (["eval", "synthetic", "--json", "{tmp}/f.json", "--device", "toaster"], "device 'toaster'"),
        (["train", "-o", "{tmp}/o", "--images", "{frames}", "--device", "toaster"], "device 'toaster'"),
        (
            ["reconstruct", "{frames}", "-o", "{frames}/0.png", "--weights", "{weights}"],
            "0.png is a file: give a folder",
        ),
        (["query", "{tmp}/none", "chair", "--weights", "{weights}"], "none"),
        (["query", "{frames}/0.png", "chair", "--weights", "{weights}"], "not a map file"),
        (["query", "{frames}", "chair", "--weights", "{weights}"], "is a folder without map.ff3r.safetensors"),
        (["query", "/dev/null", "chair", "--weights", "{weights}"], "it is a device; only regular files are read"),
        (["query", "red chair", "{map}"], "the map comes before the text: ff3r query {map}"),
        (["query", "{map}", "", "--weights", "{weights}"], "empty"),
        (["query", "{map}", "--weights", "{weights}"], "empty"),
        (["query", "{map}", "chair", "--top", "-1"], "top must be at least 0, not -1"),
        (
            ["query", "{map}", "chair", "--weights", "{weights}", "--threshold", "2"],
            "threshold must be 0 to 1, not 2.0",
        ),
        (["query", "{map}", "chair", "--weights", "{weights}", "-o", "{tmp}/a.pdf"], "pictures are .png"),
        (["view", "{tmp}/none", "--weights", "{weights}"], "none"),
        (["view", "{map}", "--port", "70000"], "port 70000: allowed is 0 to 65535"),
        (["view", "{map}", "--port", "-1"], "port -1: allowed is 0 to 65535"),
        (["view", "{map}", "--host", "192.0.2.7"], "'192.0.2.7' is no address of this machine"),
        (["view", "{map}", "--host", "nosuchhost.invalid"], "the host 'nosuchhost.invalid' is unknown"),
        (["view", "{map}", "--allowed-hosts", "http://robot"], "the allowed host 'http://robot' is no name"),
    ],
)
def test_errors_are_one_line_and_status_2(
    arguments: list[str], message: str, run: Run, frames: Path, weights: Path, made: Path, tmp_path: Path
) -> None:
    places = {"tmp": tmp_path, "frames": frames, "weights": weights, "map": made / map_files.MAP}
    status, out, err = run(*(argument.format(**places) for argument in arguments))
    assert (status, out) == (2, "")
    assert err.startswith("ff3r: ") and message.format(**places) in err and err.count("\n") == 1


def test_cut_map_is_refused(made: Path, weights: Path, tmp_path: Path, run: Run) -> None:
    whole = (made / map_files.MAP).read_bytes()
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
    status, _, err = run("query", tmp_path / "half", "chair", "--weights", weights)
    assert status == 2 and err.count("\n") == 1 and "half" in err


def test_one_frame_is_too_few(frames: Path, weights: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "0.png").write_bytes((frames / "0.png").read_bytes())
    status, _, err = run("reconstruct", tmp_path / "one", "-o", tmp_path / "o", "--weights", weights, "--device", "cpu")
    assert status == 2 and "no map could be made" in err and "at least 2" in err


def test_identical_frames_say_why(frames: Path, weights: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "same").mkdir()
    for index in range(5):
        (tmp_path / "same" / f"{index}.png").write_bytes((frames / "0.png").read_bytes())
    status, _, err = run(
        "reconstruct", tmp_path / "same", "-o", tmp_path / "o", "--weights", weights, "--device", "cpu"
    )
    assert status == 2 and "4 × identical image" in err


def test_our_own_mistakes_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        json.loads("{")

    monkeypatch.setitem(COMMANDS, "broken", broken)
    with pytest.raises(json.JSONDecodeError):
        main(["broken"])
