"""Maps in parts that have no common frame: all of them are told, written, searched and shown."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ff3r_model.cli import main, map_files
from ff3r_model.cli.map_page import MapPage, side_by_side
from ff3r_model.gaussians.ply import read_ply
from ff3r_model.pipeline import Pipeline
from ff3r_model.voxel_map.voxel_map import VoxelMap

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def apart(frames: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reconstruction in which no window fits to the one before."""
    folder = tmp_path_factory.mktemp("apart")
    (folder / "strict.yaml").write_text("mapping: {patience: 0, align: {max_rms: 1.0e-9}}")
    options = [
        "--weights",
        str(weights),
        "--device",
        "cpu",
        "--min-motion",
        "0",
        "--config",
        str(folder / "strict.yaml"),
    ]
    assert main(["reconstruct", str(frames), "-o", str(folder / "out"), *options, "--views", "4"]) == 0
    return folder / "out"


@pytest.fixture
def pipeline(apart: Path, weights: Path) -> Pipeline:
    loaded = Pipeline.from_checkpoint(weights)
    loaded.load(apart / map_files.MAP)
    return loaded


def test_each_part_has_its_files(apart: Path, pipeline: Pipeline) -> None:
    parts = list(map_files.parts_of(pipeline).values())
    assert len(parts) > 1
    assert [len(part) for part in parts] == sorted((len(part) for part in parts), reverse=True)
    assert {path.name for path in apart.iterdir() if path.name[0] != "."} == set(map_files.output_names(len(parts)))
    for number, part in enumerate(parts, 1):
        cloud = read_ply(apart / ("cloud.ply" if number == 1 else f"cloud-part-{number}.ply"))
        torch.testing.assert_close(cloud.means, part.gaussians().means)
        lines = (apart / map_files.name_in_part(map_files.TRAJECTORY, number)).read_text().splitlines()
        assert len(lines) - 1 == sum(1 for _ in part.trajectory())


def test_all_parts_are_searched(apart: Path, weights: Path, pipeline: Pipeline, tmp_path: Path, run: Run) -> None:
    picture = tmp_path / "found.png"
    status, out, _ = run("query", apart, "chair", "--weights", weights, "--threshold", 0.001, "-o", picture)
    pipeline.queries.set_threshold(0.001)
    pipeline.queries.add("chair")
    masks = [pipeline.queries.masks(part)[0] for part in map_files.parts_of(pipeline).values()]
    total = sum(map(len, pipeline.mapper.submaps.values()))
    assert status == 0
    assert f"{sum(len(mask.indices) for mask in masks):,} of {total:,} voxels" in out and "no common frame" in out
    for number, mask in enumerate(masks, 1):
        assert f"part {number}: {len(mask.indices):,} of" in out
    told = [line for line in out.splitlines() if line.startswith("part ")]
    best = [float(masks[int(line.split(":")[0].split()[1]) - 1].scores.max()) for line in told]
    assert best == sorted(best, reverse=True), "the part of the best place comes first"
    assert cv2.imread(str(picture)).shape[0] > 2 * 200


def test_the_page_shows_all_parts(pipeline: Pipeline) -> None:
    page = MapPage(pipeline, "127.0.0.1", 0)
    try:
        parts = list(map_files.parts_of(pipeline).values())
        assert page.viewer._cloud is not None and len(page.viewer._cloud[0]) == sum(map(len, parts))
        assert f"{len(parts)} parts side by side" in page.viewer._status.content
        pipeline.queries.set_threshold(0.0)
        page.ask("chair")
        shown = page.viewer._queries[pipeline.queries.active[0].id].voxels
        assert len(shown) == sum(map(len, parts))
        assert np.isfinite(page.viewer._path).all()
    finally:
        page.viewer.close()


def test_parts_side_by_side_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    clouds = [rng.normal(size=(50, 3)) * scale + rng.normal(size=3) * 9 for scale in (1.0, 5.0, 0.1)]
    spans = [(cloud + shift)[:, 1] for cloud, shift in zip(clouds, side_by_side(clouds), strict=True)]
    assert all(right.max() < left.min() for left, right in pairwise(spans))


def test_a_run_of_fewer_parts_leaves_no_files_of_others(
    frames: Path, weights: Path, apart: Path, tmp_path: Path, run: Run
) -> None:
    def files() -> Iterator[str]:
        return (path.name for path in (tmp_path / "out").iterdir() if path.name[0] != ".")

    shutil.copytree(apart, tmp_path / "out")
    assert "cloud-part-2.ply" in set(files())
    options = ["--weights", weights, "--device", "cpu", "--min-motion", 0, "--stride", 7]
    assert run("reconstruct", frames, "-o", tmp_path / "out", *options)[0] == 0
    assert set(files()) == set(map_files.output_names(1))
    assert len(VoxelMap.load(tmp_path / "out" / map_files.MAP)) > 0
