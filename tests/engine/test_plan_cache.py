"""Plans on disk, TensorRT's absence and moods: with a stand-in of TensorRT, and a graph of one addition."""

from __future__ import annotations

import copy
import dataclasses
import json
import multiprocessing
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from ff3r_model.engine.device import SideStream
from ff3r_model.engine.onnx.manifest import ExportError, Graph, Manifest, graph_path
from ff3r_model.engine.tensorrt import plan_cache as plans
from ff3r_model.engine.tensorrt.bindings import Binding, Bindings
from ff3r_model.engine.tensorrt.build import Profile, build_plan, profiles
from ff3r_model.engine.tensorrt.library import TensorRTError, TensorRTLibrary, load_library
from ff3r_model.engine.tensorrt.plan_cache import CachedPlan, PlanError, PlanKey, find, obtain
from ff3r_model.engine.tensorrt.plan_runner import BadPlan, PlanRunner
from tests.support import fake_tensorrt

CPU = torch.device("cpu")
KEY = PlanKey("a" * 64, "nano", 56, 84, "float32", 8, "TensorRT 10.14.1.48", "Orin (sm_87)", 16)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> TensorRTLibrary:
    """The stand-in, imported as TensorRT."""
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.module())
    return load_library()


def write_graph(path: Path) -> None:
    """y = x + half, for any number of views; x float32, half float16."""
    make, types = onnx.helper, onnx.TensorProto
    nodes = [make.make_node("Cast", ["half"], ["wide"], to=types.FLOAT), make.make_node("Add", ["x", "wide"], ["y"])]
    inputs = [
        make.make_tensor_value_info("x", types.FLOAT, ["views", 3]),
        make.make_tensor_value_info("half", types.FLOAT16, ["views", 3]),
    ]
    outputs = [make.make_tensor_value_info("y", types.FLOAT, ["views", 3])]
    opset = make.make_opsetid("", 18)
    onnx.save(
        make.make_model(make.make_graph(nodes, "sum", inputs, outputs), opset_imports=[opset], ir_version=10), path
    )


def export_to(folder: Path) -> Path:
    """An export of two such graphs."""
    for graph in ("frames", "window"):
        write_graph(graph_path(folder, graph))
    graph = Graph(("x", "half"), ("y",))
    Manifest(KEY.network, KEY.weights, KEY.height, KEY.width, "float32", "fused", 23, graph, graph).write(folder)
    return folder


def inputs(views: int) -> dict[str, torch.Tensor]:
    return {"x": torch.rand(views, 3), "half": torch.rand(views, 3).half()}


@pytest.fixture
def runner(library: TensorRTLibrary, tmp_path: Path) -> PlanRunner:
    write_graph(tmp_path / "sum.onnx")
    ranges = [Profile(1, 2, 4), Profile(1, 4, 9)]
    (tmp_path / "sum.plan").write_bytes(build_plan(library, tmp_path / "sum.onnx", ranges))
    return PlanRunner(library, tmp_path / "sum.plan", SideStream(CPU))


def test_runner_computes_on_the_tensors_themselves(runner: PlanRunner) -> None:
    for views in (3, 9, 3, 1):
        given = inputs(views)
        torch.testing.assert_close(runner(given)["y"], given["x"] + given["half"].float())


def test_runner_takes_strided_views_and_leaves_what_the_plan_does_not_want(runner: PlanRunner) -> None:
    given = {"x": torch.rand(3, 5).T, "half": torch.rand(10, 3).half()[::2], "more": torch.zeros(1)}
    torch.testing.assert_close(runner(given)["y"], given["x"] + given["half"].float())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": torch.rand(2, 4)}, r"x is torch.float32 \[2, 4\], and the plan wants torch.float32 \[views, 3\]"),
        ({"half": torch.rand(2, 3)}, "half is torch.float32"),
        ({"half": torch.rand(3, 3).half()}, "the same views"),
        ({"x": torch.rand(10, 3), "half": torch.rand(10, 3).half()}, "1 to 4, 1 to 9 views, not 10"),
    ],
)
def test_runner_refuses_what_does_not_fit(runner: PlanRunner, change: dict[str, Any], said: str) -> None:
    with pytest.raises(TensorRTError, match=said):
        runner({**inputs(2), **change})
    with pytest.raises(TensorRTError, match="the plan wants half; given were x"):
        runner({"x": torch.rand(2, 3)})


def test_runner_says_when_tensorrt_fails(runner: PlanRunner) -> None:
    runner.library.module.faults.fail_runs = True
    with pytest.raises(TensorRTError, match=r"sum.plan failed on 2 views"):
        runner(inputs(2))


class Recording(SideStream):
    """A stream that can capture. As with CUDA graphs, nothing runs meanwhile; a replay uses the addresses of then."""

    runner: PlanRunner

    def capture(self, run: Any) -> Any:
        contexts = list(self.runner._contexts.values())
        then = [copy.deepcopy({k: v for k, v in vars(c).items() if k != "engine"}) for c in contexts]

        def replay() -> None:
            now = [dict(vars(context)) for context in contexts]
            for context, state in zip(contexts, then, strict=True):
                vars(context).update(state)
            run()
            for context, state in zip(contexts, now, strict=True):
                vars(context).update(state)

        return replay


def test_sizes_that_repeat_are_captured_and_replayed(runner: PlanRunner) -> None:
    runner.stream = Recording(CPU)
    runner.stream.runner = runner
    results = []
    for views in (2, 2, 3, 2, 3, 3, 4, 4, 2):
        given = inputs(views)
        result = runner(given)["y"]
        torch.testing.assert_close(result, given["x"] + given["half"].float())
        results.append(result.data_ptr())
    assert results[1] == results[3], "the second run on has memory of its own"
    assert len(runner._captured) == 2, "the oldest graph goes"
    runner.forget_graphs()
    assert not runner._captured


def test_the_narrowest_profile_is_taken() -> None:
    bindings = Bindings((Binding("x", torch.float32, (3,)),), (), ((1, 64), (1, 8), (2, 16)))
    assert [bindings.profile(views) for views in (1, 8, 9, 17, 64)] == [1, 1, 2, 0, 0]


def test_profiles_cover_every_window_and_are_tuned_for_the_usual_one() -> None:
    for views, most in ((2, 64), (8, 64), (64, 64), (16, 4)):
        for graph, low in (("frames", 1), ("window", 2)):
            ranges = profiles(views, most)[graph]
            assert all(p.low == low and p.low <= p.best <= p.high for p in ranges)
            assert max(p.high for p in ranges) == max(views, most)
            assert views in {p.high for p in ranges}
    assert Profile(2, 8, 8) in profiles(8)["window"]


def test_progress_reaches_the_end(library: TensorRTLibrary, tmp_path: Path) -> None:
    write_graph(tmp_path / "sum.onnx")
    told: list[tuple[str, float]] = []
    build_plan(library, tmp_path / "sum.onnx", [Profile(1, 2, 4)], lambda phase, share: told.append((phase, share)))
    assert told[0] == ("Building", 0.25) and told[-1] == ("Building", 1.0)
    assert [share for _, share in told] == sorted(share for _, share in told)


def test_ctrl_c_ends_the_build(library: TensorRTLibrary, tmp_path: Path) -> None:
    write_graph(tmp_path / "sum.onnx")

    def stop(phase: str, share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plan(library, tmp_path / "sum.onnx", [Profile(1, 2, 4)], stop)


def test_failures_of_the_builder_carry_its_reason(library: TensorRTLibrary, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no")
    with pytest.raises(TensorRTError, match=r"cannot read .*bad\.onnx: no ONNX"):
        build_plan(library, tmp_path / "bad.onnx", [Profile(1, 2, 4)])
    library.module.faults.fail_build = True
    write_graph(tmp_path / "sum.onnx")
    with pytest.raises(TensorRTError, match=r"cannot build sum\.onnx: no tactic"):
        build_plan(library, tmp_path / "sum.onnx", [Profile(1, 2, 4)])


def test_a_plan_is_built_once_and_found_again(library: TensorRTLibrary, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="there is no plan for nano-56x84-float32"):
        find(tmp_path, KEY)
    plan = obtain(tmp_path, KEY, library, export_to)
    assert obtain(tmp_path, KEY, library, export_to) == plan == find(tmp_path, KEY)
    assert library.module.faults.builds == 2, "one per graph"
    assert sorted(path.name for path in plan.folder.iterdir()) == [
        "frames.plan",
        "manifest.json",
        "plan.json",
        "window.plan",
    ]
    given = inputs(2)
    result = PlanRunner(library, plan.path("window"), SideStream(CPU))(given)["y"]
    torch.testing.assert_close(result, given["x"] + given["half"].float())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("weights", "b" * 64, r"the weights \(was aaaaaaaaaaaa, is bbbbbbbbbbbb\) changed"),
        ("gpu", "RTX 4090 (sm_89)", r"the GPU \(was Orin \(sm_87\), is RTX 4090 \(sm_89\)\) changed"),
        ("tensorrt", "TensorRT 10.15.0", r"TensorRT \(was TensorRT 10.14.1.48, is TensorRT 10.15.0\) changed"),
        ("views", 16, r"the views per window \(was 8, is 16\) changed"),
        ("max_views", 32, "the largest window"),
    ],
)
def test_a_change_is_said_and_built_for(
    library: TensorRTLibrary, tmp_path: Path, name: str, value: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    obtain(tmp_path, KEY, library, export_to)
    key = dataclasses.replace(KEY, **{name: value})
    with pytest.raises(PlanError, match=said):
        find(tmp_path, key)
    obtain(tmp_path, key, library, export_to)
    assert find(tmp_path, key)
    assert f"{plans.MEANINGS[name]} (was" in caplog.text and "may take a few minutes" in caplog.text


def test_every_field_of_the_key_has_words() -> None:
    assert {field.name for field in dataclasses.fields(PlanKey)} == set(plans.MEANINGS)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [truncate, flip, os.unlink])
@pytest.mark.parametrize("name", ["frames.plan", "window.plan"])
def test_damage_is_found_and_mended(library: TensorRTLibrary, tmp_path: Path, harm: Any, name: str) -> None:
    plan = obtain(tmp_path, KEY, library, export_to)
    harm(plan.folder / name)
    with pytest.raises(PlanError, match=rf"{name} is damaged"):
        find(tmp_path, KEY)
    assert obtain(tmp_path, KEY, library, export_to) == find(tmp_path, KEY)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"key": {"weights": 1}, "sha256": {}}'])
def test_a_damaged_description_is_no_plan(library: TensorRTLibrary, tmp_path: Path, text: str) -> None:
    plan = obtain(tmp_path, KEY, library, export_to)
    (plan.folder / "plan.json").write_text(text)
    with pytest.raises(PlanError, match="is damaged"):
        find(tmp_path, KEY)


def linked_out(folder: Path) -> None:
    """The plan as a link out of the cache, to the very same bytes."""
    outside = folder.parent.parent / "outside.plan"
    (folder / "window.plan").rename(outside)
    (folder / "window.plan").symlink_to(outside)


def linked_folder(folder: Path) -> None:
    folder.rename(folder.parent.parent / "elsewhere")
    folder.symlink_to(folder.parent.parent / "elsewhere")


def swapped(folder: Path) -> None:
    """The two plans' sums for one another's."""
    described = json.loads((folder / "plan.json").read_text())
    sums = described["sha256"]
    sums["frames.plan"], sums["window.plan"] = sums["window.plan"] + "0", sums["frames.plan"]
    (folder / "plan.json").write_text(json.dumps(described))


def edited(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"height": 112}))


def written(name: str, text: str) -> Any:
    return lambda folder: (folder / name).write_text(text)


def a_pipe(folder: Path) -> None:
    (folder / "plan.json").unlink()
    os.mkfifo(folder / "plan.json")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (linked_out, "window.plan is a link, a pipe or a device"),
        (linked_folder, "nano-56x84-float32 is a link"),
        (a_pipe, "plan.json is a link, a pipe"),
        (lambda folder: (folder / "window.plan").chmod(0o666), "window.plan may be written by other users"),
        (lambda folder: (folder / "plan.json").chmod(0o664), "plan.json may be written by other users"),
        (lambda folder: (folder / "manifest.json").chmod(0o646), "manifest.json may be written by other users"),
        (lambda folder: folder.chmod(0o777), "may be written by other users"),
        (swapped, "plan is damaged"),
        (edited, "manifest.json is damaged"),
        (written("plan.json", "[" * 100_000), "description of the plan in .* is damaged"),
        (written("manifest.json", '{"a":' * 100_000), "description of the plan in .* is damaged"),
        (written("plan.json", "9" * 6000), "is damaged"),
        (written("manifest.json", '{"format": 1, "height": -3}'), "is damaged"),
    ],
)
def test_what_others_may_have_put_there_is_not_used_but_built_anew(
    library: TensorRTLibrary, tmp_path: Path, harm: Any, said: str
) -> None:
    cache = tmp_path / "cache"
    plan = obtain(cache, KEY, library, export_to)
    harm(plan.folder)
    with pytest.raises(PlanError, match=said):
        find(cache, KEY)
    assert obtain(cache, KEY, library, export_to) == find(cache, KEY)
    outside = [path for path in tmp_path.iterdir() if path != cache]
    assert all(path.exists() for path in outside), "what a link led to is left alone"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_plan_of_another_user_is_not_used(library: TensorRTLibrary, tmp_path: Path) -> None:
    plan = obtain(tmp_path, KEY, library, export_to)
    os.chown(plan.path("window"), 12345, 12345)
    with pytest.raises(PlanError, match=r"window\.plan belongs to user 12345 and is not trusted"):
        find(tmp_path, KEY)


def test_a_cache_that_others_may_write_to_is_refused_with_the_way_out(library: TensorRTLibrary, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(PlanError, match=f"chmod go-w {tmp_path}"):
        obtain(tmp_path, KEY, library, export_to)
    assert not (tmp_path / KEY.slot).exists()


def test_a_cache_is_made_for_its_user_whatever_the_umask(library: TensorRTLibrary, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        obtain(tmp_path / "a" / "cache", KEY, library, export_to)
    finally:
        os.umask(before)
    assert find(tmp_path / "a" / "cache", KEY)


def test_the_lock_follows_no_link(library: TensorRTLibrary, tmp_path: Path) -> None:
    (tmp_path / f".{KEY.slot}.lock").symlink_to(tmp_path / "made")
    with pytest.raises(PlanError, match="cannot be locked"):
        obtain(tmp_path, KEY, library, export_to)
    assert not (tmp_path / "made").exists()


def test_a_build_that_fails_leaves_the_old_plan_and_no_litter(library: TensorRTLibrary, tmp_path: Path) -> None:
    plan = obtain(tmp_path, KEY, library, export_to)
    library.module.faults.fail_build = True
    with pytest.raises(TensorRTError, match="no tactic"):
        obtain(tmp_path, dataclasses.replace(KEY, views=4), library, export_to)
    assert find(tmp_path, KEY) == plan
    assert {path.name for path in tmp_path.iterdir()} == {plan.folder.name, f".{KEY.slot}.lock"}


def test_what_a_killed_builder_left_is_cleared(library: TensorRTLibrary, tmp_path: Path) -> None:
    left = tmp_path / f".{KEY.slot}.abc123"
    left.mkdir()
    (left / "frames.plan").write_bytes(b"half")
    obtain(tmp_path, KEY, library, export_to)
    assert not left.exists()


def build_slowly(cache: Path, started: Any) -> None:
    """In another process: build, and take a moment over it."""
    fake = fake_tensorrt.module()
    sys.modules["tensorrt"] = fake

    def slow_export(folder: Path) -> Path:
        started.set()
        import time

        time.sleep(0.5)
        return export_to(folder)

    obtain(cache, KEY, load_library(), slow_export)


def test_two_programs_build_one_plan(
    library: TensorRTLibrary, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context = multiprocessing.get_context("fork")
    started = context.Event()
    other = context.Process(target=build_slowly, args=(tmp_path, started))
    other.start()
    assert started.wait(60)
    plan = obtain(tmp_path, KEY, library, export_to)
    other.join()
    assert other.exitcode == 0 and library.module.faults.builds == 0
    assert "another program builds this plan" in caplog.text
    assert find(tmp_path, KEY) == plan


def test_manifest_round_trip_and_what_is_none(tmp_path: Path) -> None:
    export_to(tmp_path)
    manifest = Manifest.read(tmp_path)
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest
    for text in ("", "{}", '{"format": 2}', "[1]"):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ExportError, match="does not describe an export"):
            Manifest.read(tmp_path)


def test_a_plan_that_tensorrt_rejects(library: TensorRTLibrary, tmp_path: Path) -> None:
    (tmp_path / "foreign.plan").write_bytes(b"another version's plan")
    with pytest.raises(BadPlan, match=r"does not accept .*foreign\.plan: the plan was built for another GPU"):
        PlanRunner(library, tmp_path / "foreign.plan", SideStream(CPU))


def test_a_plan_of_something_else_is_refused() -> None:
    engine = SimpleNamespace(num_io_tensors=0, num_optimization_profiles=1)
    with pytest.raises(TensorRTError, match="no plan of this program"):
        Bindings.of(fake_tensorrt.module(), engine)


def test_where_plans_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert plans.default_cache() == tmp_path / "ff3r/engines"
    assert CachedPlan(tmp_path, Manifest.read(export_to(tmp_path))).path("frames") == tmp_path / "frames.plan"
    assert np.dtype("float16") == fake_tensorrt.DataType.HALF.numpy
