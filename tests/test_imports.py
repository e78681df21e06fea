"""Imports point one way and never back: which room may know which, in both packages."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

MAY_IMPORT: dict[str, set[str]] = {
    "ff3r_model.core": set(),
    "ff3r_model.visualization": {"core"},
    "ff3r_model.frames": {"core"},
    "ff3r_model.gaussians": {"core"},
    "ff3r_model.network": {"core"},
    "ff3r_model.voxel_map": {"core", "gaussians"},
    "ff3r_model.engine": {"core", "frames", "network"},
    "ff3r_model.synthetic": {"core", "frames"},
    "ff3r_model.slam": {"core", "frames", "gaussians", "voxel_map"},
    "ff3r_model.training": {"core", "frames", "gaussians", "network", "synthetic", "visualization"},
    "ff3r_model.pipeline": {"core", "frames", "gaussians", "network", "engine", "voxel_map", "slam"},
    "ff3r_model.evaluation": {
        "core", "frames", "gaussians", "network", "engine", "voxel_map", "slam", "pipeline", "synthetic", "training",
        "visualization",
    },
    "ff3r_model.cli": {
        "core", "frames", "gaussians", "network", "engine", "voxel_map", "slam", "pipeline", "synthetic", "training",
        "evaluation", "visualization",
    },
    "ff3r_ros.wheels": set(),
    "ff3r_ros.qos": set(),
    "ff3r_ros.guard": set(),
    "ff3r_ros.parameters": set(),
    "ff3r_ros.lifecycle": set(),
    "ff3r_ros.log_forwarding": set(),
    "ff3r_ros.run_node": {"core", "log_forwarding", "parameters"},
    "ff3r_ros.conversions": {"core", "frames", "voxel_map"},
    "ff3r_ros.perception": {
        "core", "frames", "engine", "voxel_map", "slam", "pipeline", "conversions", "guard", "parameters", "qos",
        "run_node",
    },
    "ff3r_ros.camera": {"core", "frames", "synthetic", "conversions", "parameters", "qos", "run_node"},
    "ff3r_ros.viewer": {"frames", "visualization", "conversions", "guard", "parameters", "qos", "run_node"},
    "ff3r_ros.demo": {"core", "frames", "synthetic", "conversions", "camera", "lifecycle", "parameters", "qos"},
}  # fmt: skip
"""Every room, bottom up: it imports from rooms above it in this list only, and of these only what stands beside it."""
FACES = {"ff3r_model": {"frames", "pipeline"}, "ff3r_ros": {"wheels"}}
"""What the packages' own `__init__.py` may import."""
OFFLINE = {"synthetic", "training", "evaluation"}
"""What the running pipeline never imports."""
NO_NETWORK = {"core", "frames", "gaussians", "voxel_map", "slam", "visualization"}
"""Rooms that never reach the network, so that engines can be swapped."""


def module_name(path: Path) -> str:
    """Dotted name of a source file below ROOT."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> dict[str, Path]:
    """Module name → file of everything we wrote in the two packages."""
    files = [path for package in ("ff3r_model", "ff3r_ros") for path in ROOT.glob(f"{package}/**/*.py")]
    return {module_name(path): path for path in files if path.parent != ROOT / "ff3r_ros/msg"}  # generated


MODULES = sources()


def imports(module: str, path: Path, known: set[str]) -> set[str]:
    """Dotted names that the file imports, wherever in it; `from a import b` gives a.b where that is a module."""
    found: set[str] = set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{start}.{alias.name}" if f"{start}.{alias.name}" in known else start for alias in node.names}
    return found


GRAPH = {module: imports(module, path, set(MODULES)) for module, path in MODULES.items()}


def room(module: str) -> str:
    """The room of a module of ours, `slam` for ff3r_model.slam.mapper; "" for the packages' faces and for others."""
    parts = module.split(".")
    return parts[1] if parts[0] in FACES and len(parts) > 1 and module in MODULES else ""


def reachable(start: str) -> dict[str, str]:
    """Every module of ours that importing `start` imports → the module that imports it."""
    via: dict[str, str] = {}
    queue = [start]
    while queue:
        module = queue.pop()
        for imported in GRAPH.get(module, ()):
            if imported in MODULES and imported not in via and imported != start:
                via[imported] = module
                queue.append(imported)
    return via


def through_others(start: str) -> set[str]:
    """Every module of ours that `start` imports, directly or through others; itself where that is a circle."""
    seen: set[str] = set()
    queue = [start]
    while queue:
        for imported in GRAPH[queue.pop()]:
            if imported in MODULES and imported not in seen:
                seen.add(imported)
                queue.append(imported)
    return seen


def test_the_parser_sees_every_form(tmp_path: Path) -> None:
    path = tmp_path / "room.py"
    path.write_text(
        "import a.b, c as d\nfrom e import f\nfrom . import g\nfrom .h import i\nfrom ..j import k\n"
        "def late():\n    from l.m import n\nif True:\n    import o\n"
    )
    found = imports("p.q.room", path, {"e.f", "p.q.g"})
    assert found == {"a.b", "c", "e.f", "p.q.g", "p.q.h", "p.j", "l.m", "o"}


def test_there_is_something_to_check() -> None:
    assert {"ff3r_model.core.types", "ff3r_model.core.geometry"} <= set(MODULES)
    assert "ff3r_model.core.types" in GRAPH["ff3r_model.network.decode"]
    assert room("ff3r_model.slam.mapper") == "slam" and room("ff3r_model") == room("numpy") == ""


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("ff3r_model")))
def test_the_model_knows_no_ros(module: str) -> None:
    ros = {"rclpy", "ff3r_ros", "cv_bridge", "launch", "launch_ros", "ament_index_python", "tf2_ros"}
    taken = {name for name in GRAPH[module] if name.split(".")[0] in ros or name.split(".")[0].endswith("_msgs")}
    assert not taken, f"{module} imports {taken}"


def test_every_room_is_listed() -> None:
    rooms = {".".join(name.split(".")[:2]) for name in MODULES if room(name)}
    assert rooms == set(MAY_IMPORT), "list a new room in MAY_IMPORT, below those that it may import"


def test_the_list_points_up() -> None:
    above: set[str] = set()
    for name, allowed in MAY_IMPORT.items():
        assert allowed <= above, f"{name} may import {allowed - above}, which do not stand above it"
        above.add(name.split(".")[1])


@pytest.mark.parametrize("module", sorted(MODULES))
def test_rooms_import_what_they_may(module: str) -> None:
    package, own = module.split(".")[0], room(module)
    allowed = MAY_IMPORT[f"{package}.{own}"] | {own} if own else FACES[package]
    taken = {name for name in GRAPH[module] if room(name) and room(name) not in allowed}
    assert not taken, f"{module} imports {taken}"


def test_no_files_import_each_other_in_a_circle() -> None:
    circles = {module for module in MODULES if module in through_others(module)}
    assert not circles


@pytest.mark.parametrize("module", sorted(name for name in MODULES if room(name) in NO_NETWORK))
def test_rooms_that_do_not_know_the_network(module: str) -> None:
    reached = {name: via for name, via in reachable(module).items() if room(name) in {"network", "engine"}}
    assert not reached, f"{module} reaches the network: {reached}"


@pytest.mark.parametrize("name", ["ff3r_model.pipeline", "ff3r_ros.perception.node"])
def test_the_running_pipeline_needs_no_training_material(name: str) -> None:
    reached = {module: via for module, via in reachable(name).items() if room(module) in OFFLINE}
    assert not reached, f"importing {name} brings in {reached}"
