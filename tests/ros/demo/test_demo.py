"""The demo: its judgement against exact cases and evo, its processes against crashes, and one real run of it all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evo.core import geometry as evo_geometry
from scipy.spatial.transform import Rotation

pytest.importorskip("rclpy", reason="needs a ROS: native, or its wheels")

from ff3r_model.synthetic import CLASSES, COLORS, make_room, make_trajectory
from ff3r_ros.demo import checks as demo_check
from ff3r_ros.demo import dds_domain as domain
from ff3r_ros.demo import run as demo
from ff3r_ros.demo.checks import Surfaces, Verdict, align_positions, check_masks, check_poses, thin, tolerant_iou
from ff3r_ros.demo.processes import Child, ChildDied, stop_all
from ff3r_ros.demo.status import status_text

ROOT = Path(__file__).resolve().parents[3]


# The judgement


def poses_along(positions: np.ndarray) -> dict[int, np.ndarray]:
    poses = {}
    for index, position in enumerate(positions):
        poses[index * 10**8] = np.eye(4)
        poses[index * 10**8][:3, 3] = position
    return poses


def walk(count: int = 40) -> np.ndarray:
    angle = np.linspace(0, 3, count)
    return np.stack([2 * np.cos(angle), 2 * np.sin(angle), 1 + 0.1 * np.sin(5 * angle)], axis=1)


def test_align_positions_agrees_with_evo() -> None:
    rng = np.random.default_rng(0)
    source, rotation = rng.normal(size=(50, 3)), Rotation.from_euler("xyz", [0.3, -1.0, 2.0]).as_matrix()
    target = 2.5 * source @ rotation.T + [1.0, 2.0, 3.0] + rng.normal(scale=0.05, size=(50, 3))
    found = align_positions(source, target)
    expected_rotation, expected_translation, expected_scale = evo_geometry.umeyama_alignment(source.T, target.T, True)
    np.testing.assert_allclose(found.rotation, expected_rotation, atol=1e-9)
    np.testing.assert_allclose(found.translation, expected_translation, atol=1e-9)
    assert found.scale == pytest.approx(expected_scale, abs=1e-9)
    residual = np.linalg.norm(found(source) - target, axis=1)
    assert found.rms == pytest.approx(np.sqrt((residual**2).mean()))


def test_poses_in_another_frame_and_scale_are_right() -> None:
    rotation = Rotation.from_euler("z", 1.0).as_matrix()
    estimated = poses_along(0.3 * walk() @ rotation.T + [5.0, 0, 0])
    estimated[10**15] = np.eye(4)  # a stamp that the truth lacks is left out
    verdict = Verdict()
    world_from_map = check_poses(estimated, poses_along(walk()), verdict)
    assert world_from_map is not None and not verdict.failures
    assert world_from_map.scale == pytest.approx(1 / 0.3)
    assert world_from_map.rms < 1e-9
    assert "pose error 0.00%" in verdict.lines[0] and f"limits {demo_check.MAX_POSE_ERROR:.0%}" in verdict.lines[0]


def test_poses_that_stand_still_or_wander_fail() -> None:
    rng = np.random.default_rng(0)
    verdict = Verdict()
    check_poses(poses_along(rng.normal(size=(40, 3))), poses_along(walk()), verdict)
    assert "is above the limit" in verdict.failures[0]
    verdict = Verdict()
    assert check_poses(poses_along(walk()[:3]), poses_along(walk()[:3]), verdict) is None
    assert "prove nothing" in verdict.failures[0]


def test_constant_poses_fail_however_long_the_path() -> None:
    """Many laps make any error small beside the path; standing still must fail all the same."""
    laps = np.tile(np.concatenate([walk(), walk()[::-1]]), (20, 1))
    verdict = Verdict()
    check_poses(poses_along(np.zeros_like(laps)), poses_along(laps), verdict)
    assert any("of what standing still would get" in failure for failure in verdict.failures)


def test_tolerant_iou_on_sets_known_by_heart() -> None:
    line = np.stack([np.arange(10.0), np.zeros(10), np.zeros(10)], axis=1)
    assert tolerant_iou(line, line, 0.1) == 1.0
    assert tolerant_iou(line + np.array([0, 0, 0.05]), line, 0.1) == 1.0
    assert tolerant_iou(line + np.array([0, 0, 5.0]), line, 0.1) == 0.0
    assert tolerant_iou(line[:5], line, 0.1) == 0.5  # half is missed
    assert tolerant_iou(np.concatenate([line, line + np.array([0, 5, 0])]), line, 0.1) == 0.5  # half is false
    assert tolerant_iou(line[:0], line, 0.1) == 0.0


def test_masks_are_judged_in_the_world() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(10) * 0.1 + 0.05] * 2, [0.0]), -1).reshape(-1, 3)
    chair, sofa = CLASSES.index("chair"), CLASSES.index("sofa")
    points = np.concatenate([grid, grid + np.array([3, 0, 0]), grid + np.array([6, 0, 0])])
    classes = np.repeat([chair, chair, sofa], 100)
    colors = np.repeat([COLORS.index("red"), COLORS.index("blue"), COLORS.index("red")], 100)
    surfaces = Surfaces(points, classes, colors)
    world_from_map = align_positions(points / 2, points)  # the map is half as large
    right = {"red chair": grid / 2, "chair": points[:200] / 2, "zebra": grid}
    verdict = Verdict()
    check_masks(right, 0.05, world_from_map, surfaces, verdict)
    assert not verdict.failures
    assert "mask IoU 1.000" in verdict.lines[0] and "red chair 1.00, chair 1.00" in verdict.lines[0]
    assert "zebra" not in verdict.lines[0]
    verdict = Verdict()
    check_masks({"red chair": (grid + np.array([3, 0, 0])) / 2}, 0.05, world_from_map, surfaces, verdict)
    assert "mask IoU 0.000 is below the limit" in verdict.failures[0]
    verdict = Verdict()  # 0.2 off in a world where a voxel is 0.1: inside the tolerance, unless it says it is 0.05
    check_masks({"red chair": (grid + np.array([0, 0, 0.2])) / 2}, 0.05, world_from_map, surfaces, verdict)
    assert not verdict.failures
    check_masks({"red chair": (grid + np.array([0, 0, 0.2])) / 2}, 0.05, world_from_map, surfaces, verdict, metric=True)
    assert verdict.failures
    verdict = Verdict()
    check_masks({"lamp": grid}, 0.05, world_from_map, surfaces, verdict)
    assert verdict.failures == ["no query asked for anything that the camera saw"]


def test_thin_keeps_one_point_per_cell() -> None:
    points = np.array([[0.01, 0.01, 0.01], [0.03, 0.03, 0.03], [0.9, 0.9, 0.9], [-0.01, 0.0, 0.0]])
    thinned = thin(points, 0.1)
    assert sorted(map(tuple, thinned.round(6))) == [(-0.01, 0.0, 0.0), (0.02, 0.02, 0.02), (0.9, 0.9, 0.9)]


def test_seen_surfaces_lie_on_the_room() -> None:
    room = make_room(demo.DEMO_SEED)
    poses = make_trajectory(room, demo.DEMO_SEED, 30, "robot", 0.2)
    surfaces = demo_check.seen_surfaces(room, poses.double().numpy(), 70.0)
    floor = surfaces.matching("floor")
    assert floor is not None and len(floor) > 100
    assert np.abs(floor[:, 2]).max() < 1e-3
    inside = torch.from_numpy(surfaces.points).float()
    assert (inside >= room.low - 1e-2).all() and (inside <= room.high + 1e-2).all()


def test_default_queries_name_things_of_the_room() -> None:
    room = make_room(demo.DEMO_SEED)
    queries = demo_check.default_queries(room)
    names = {thing.name for thing in room.instances}
    assert 2 <= len(queries) <= 4
    assert all(query in names for query in queries[:-1])
    color, name = queries[-1].split(" ", 1)
    assert any((thing.color, thing.name) == (color, name) for thing in room.instances)


# Processes


def alive(pid: int) -> bool:
    """Whether a process runs (zombies do not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Child]:
    """Starts a child from source text."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def start(name: str, source: str) -> Child:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        return Child(name, name, [], tmp_path / f"{name}.log", os.environ)

    return start


def test_child_that_dies_is_named_with_its_last_words(module: Callable[[str, str], Child]) -> None:
    child = module("unlucky", "print('loading')\nraise SystemExit('out of luck')")
    wait_for(lambda: not alive(child.pid))
    with pytest.raises(
        ChildDied, match=r"unlucky ended with code 1; the end of .*unlucky\.log:\n +loading\n +out of luck"
    ):
        child.check()
    killed = module("killed", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    wait_for(lambda: not alive(killed.pid))
    with pytest.raises(ChildDied, match="killed was killed by signal SIGSEGV"):
        killed.check()
    stop_all([child, killed])


def test_stop_ends_stubborn_children_and_their_children(
    module: Callable[[str, str], Child], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ff3r_ros.demo.processes.GRACE", 1.0)
    source = """
        import signal, subprocess, sys, time
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(grandchild.pid, flush=True)
        time.sleep(600)
    """
    stubborn = module("stubborn", source)
    polite = module("polite", "import time\nprint('ready', flush=True)\ntime.sleep(600)")
    grandchild = int(wait_for(lambda: (tmp_path / "stubborn.log").read_text().strip()))
    wait_for(lambda: (tmp_path / "polite.log").read_text())
    stop_all([stubborn, polite])
    wait_for(lambda: not any(map(alive, (stubborn.pid, polite.pid, grandchild))))


def test_children_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(600)")
    parent_source = f"""
        import os, sys, time
        from pathlib import Path
        from ff3r_ros.demo.processes import Child
        child = Child("sleeper", "sleeper", [], Path({str(tmp_path / "sleeper.log")!r}), os.environ)
        print(child.pid, flush=True)
        time.sleep(600)
    """
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    command = [sys.executable, "-c", textwrap.dedent(parent_source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_for(lambda: (tmp_path / "sleeper.log").read_text())
        assert alive(child)
        parent.kill()
    wait_for(lambda: not alive(child))


# The whole


def start_demo(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ff3r_ros.demo", "--device", "cpu", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def children_of(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(word) for word in listed.split()]


def test_untrained_network_fails_the_demo_with_its_figures(weights: Path) -> None:
    """Everything is received, nothing is true: the exit status must say so, and nobody may be left over."""
    with start_demo("--seconds", 15, "--weights", weights, "--port", 0) as process:
        children = wait_for(lambda: len(found := children_of(process.pid)) == 3 and found, 60)
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 1, output
    assert "viewer: http://127.0.0.1:" in output
    assert "clouds that were not empty" in output and "poses that were not empty" in output
    assert "FAILED: " in output and "demo: FAILED" in output
    assert not any(map(alive, children))


def test_ctrl_c_ends_everything(weights: Path) -> None:
    with start_demo("--weights", weights, "--no-viewer") as process:
        children = wait_for(lambda: len(found := children_of(process.pid)) == 2 and found, 60)
        assert process.stdout is not None
        while "queries:" not in (line := process.stdout.readline()):
            assert line, "the demo ended by itself"
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in output
    assert not any(map(alive, children))


def test_a_run_that_is_cut_short_is_no_success(weights: Path) -> None:
    with start_demo("--weights", weights, "--no-viewer", "--seconds", 500) as process:
        children = wait_for(lambda: len(found := children_of(process.pid)) == 2 and found, 60)
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped before the verdict" in output
    assert not any(map(alive, children))


def test_a_process_that_dies_stops_the_demo_and_is_named(weights: Path) -> None:
    with start_demo("--weights", weights, "--no-viewer") as process:
        children = wait_for(lambda: len(found := children_of(process.pid)) == 2 and found, 60)
        os.kill(children[0], signal.SIGKILL)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "demo: camera was killed by signal SIGKILL; the end of" in output
    assert not any(map(alive, children))


def test_unreadable_source_and_weights_say_so(tmp_path: Path) -> None:
    with start_demo("--source", tmp_path / "none.mp4", "--seconds", 5) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and "none.mp4 does not exist" in output and "Traceback" not in output
    (tmp_path / "weights.safetensors").write_bytes(b"nothing")
    with start_demo("--weights", tmp_path / "weights.safetensors", "--no-viewer") as process:
        output, _ = process.communicate(timeout=150)
    assert process.returncode == 2 and "cannot configure" in output and "weights.safetensors" in output


def test_status_line() -> None:
    status = {"frames in": "12", "windows": "2", "latency": "0.512", "voxels": "900", "map bytes": "1500000"}
    text = status_text(status | {"queries": "4"}, 20)
    assert text == "frames in 12 · windows 2 · latency 0.512 s · voxels 900 · map bytes 1.5 MB · queries 4"
    assert "waiting" in status_text({}, 20)


def test_domains_differ_from_one_in_use() -> None:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("", 7410 + 250 * 5))
        original, domain.DOMAINS = domain.DOMAINS, range(5, 7)
        try:
            assert all(domain.free_domain() == 6 for _ in range(10))
        finally:
            domain.DOMAINS = original


def test_a_recordings_camera_may_be_stated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = demo.parse(["--source", "it's.mp4", "--intrinsics", "500,500,320,240", "--fov", "70"])
    words = demo._camera_arguments(options)
    assert {"source:='it''s.mp4'", "intrinsics:='500,500,320,240'", "recorded_fov:=70.0", "width:=640"} <= set(words)
    assert demo.main(["--fov", "70"]) == 2
    assert "give --source" in capsys.readouterr().err
    assert demo.main(["--source", str(tmp_path), "--fov", "70", "--intrinsics", "1,1,1,1"]) == 2
    assert "give one of them" in capsys.readouterr().err
