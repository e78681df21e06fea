"""Imports point one way and never back: what floors, engines and offline rooms may know."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ORDER = (
    {"types", "geometry"},
    {
        "images", "network", "text", "gaussians", "voxelize", "motion", "window", "engine", "overlap", "alignment",
        "scale", "gravity", "measured", "voxel_map", "queries", "grids",
    },
    {"mapping"},
    {"pipeline"},
    {"cli"},
)  # fmt: skip
"""Rooms of ff3r_model by floor: a room imports from its own floor or from floors before it."""
EVERY_STAGE = {"pipeline", "cli"}
OFFLINE = {"synthetic", "training", "evaluation"}
"""What the running pipeline never imports."""
NO_NETWORK = {
    "types", "geometry", "voxelize", "motion", "overlap", "alignment", "scale", "gravity", "measured", "voxel_map",
    "mapping", "queries", "grids",
}  # fmt: skip
"""Rooms that know types and not the network, so that engines can be swapped."""


def module_name(path: Path) -> str:
    """Dotted name of a source file below ROOT."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> dict[str, Path]:
    """Module name → file of everything we wrote in the two packages."""
    files = [*ROOT.glob("ff3r_model/**/*.py"), *ROOT.glob("ff3r_ros/*.py")]
    return {module_name(path): path for path in files}


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
    """The room of ff3r_model that a module lies in: network for ff3r_model.network.heads; "" for other packages."""
    parts = module.split(".")
    return parts[1] if parts[0] == "ff3r_model" and len(parts) > 1 else ""


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


def test_the_parser_sees_every_form(tmp_path: Path) -> None:
    path = tmp_path / "room.py"
    path.write_text(
        "import a.b, c as d\nfrom e import f\nfrom . import g\nfrom .h import i\nfrom ..j import k\n"
        "def late():\n    from l.m import n\nif True:\n    import o\n"
    )
    found = imports("p.q.room", path, {"e.f", "p.q.g"})
    assert found == {"a.b", "c", "e.f", "p.q.g", "p.q.h", "p.j", "l.m", "o"}


def test_there_is_something_to_check() -> None:
    assert {"ff3r_model.types", "ff3r_model.geometry"} <= set(MODULES)
    assert "ff3r_model.types" in GRAPH["ff3r_model.geometry"]


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("ff3r_model")))
def test_the_model_knows_no_ros(module: str) -> None:
    ros = {"rclpy", "ff3r_ros", "cv_bridge", "launch", "launch_ros", "ament_index_python", "tf2_ros"}
    taken = {name for name in GRAPH[module] if name.split(".")[0] in ros or name.split(".")[0].endswith("_msgs")}
    assert not taken, f"{module} imports {taken}"


@pytest.mark.parametrize("module", sorted(name for name in MODULES if room(name)))
def test_imports_point_from_later_floors_to_earlier_ones(module: str) -> None:
    floor = {name: level for level, rooms in enumerate(ORDER) for name in rooms}
    if room(module) in floor:
        later = {name for name in GRAPH[module] if floor.get(room(name), 0) > floor[room(module)]}
        assert not later, f"{module} imports {later}, which come after it"


@pytest.mark.parametrize("module", sorted(name for name in MODULES if room(name) in NO_NETWORK))
def test_rooms_that_do_not_know_the_network(module: str) -> None:
    reached = {name: via for name, via in reachable(module).items() if room(name) in {"network", "engine"}}
    assert not reached, f"{module} reaches the network: {reached}"


@pytest.mark.parametrize("name", ["ff3r_model.pipeline", "ff3r_ros.node"])
def test_the_running_pipeline_needs_no_training_material(name: str) -> None:
    if name not in MODULES:
        pytest.skip(f"{name} does not exist yet")
    reached = {module: via for module, via in reachable(name).items() if room(module) in OFFLINE}
    assert not reached, f"importing {name} brings in {reached}"


@pytest.mark.parametrize("module", sorted(m for m in MODULES if room(m) and room(m) not in EVERY_STAGE | OFFLINE))
def test_only_the_pipeline_knows_every_stage(module: str) -> None:
    taken = {name for name in GRAPH[module] if room(name) in EVERY_STAGE}
    assert not taken, f"{module} imports {taken}"
