"""The package as others see it: manifest, wheel, executables, messages, launch files, and the set-up's refusals."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))
from tools import robot_env, setup_env  # noqa: E402
from tools.environment import SetupError, constraints, normalised, requirements  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()
LAUNCH_FILES = sorted(ROOT.glob("launch/*.launch.py"))
OWN = {"ff3r_ros", "ff3r_model"}


def manifest(tag: str) -> set[str]:
    """The texts of all elements `tag` of package.xml."""
    return {element.text or "" for element in MANIFEST.findall(tag)}


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that pip builds of a copy of the tracked files."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout, so nobody knows which files belong to the project")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", out, source]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_one_version_and_licence() -> None:
    assert manifest("version") == {PROJECT["version"]}
    assert manifest("name") == {PROJECT["name"]}
    assert manifest("license") == {PROJECT["license"]} == {"Apache-2.0"}
    assert PROJECT["version"] in (ROOT / "CHANGELOG.md").read_text()
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_the_manifest_names_every_ros_package_that_is_imported() -> None:
    files = [*(path for path in ROOT.glob("ff3r_ros/**/*.py") if path.parent.name != "msg"), *LAUNCH_FILES]
    used = set().union(*(imported(path) for path in files)) - OWN
    others = {"rclpy", "cv_bridge", "launch", "launch_ros", "tf2_ros", "ament_index_python"}
    ros = {name for name in used if name.endswith(("_msgs", "_srvs", "_interfaces")) or name in others}
    fields = (ROOT / "msg").glob("*.msg")
    ros |= {match for path in fields for match in re.findall(r"^(\w+)/\w+", path.read_text(), re.MULTILINE)}
    assert ros <= manifest("exec_depend") | manifest("depend")


def test_the_manifest_and_setup_agree_on_what_messages_are_made_of() -> None:
    tree = ast.parse((ROOT / "setup.py").read_text())
    stated = {target.id: node.value for node in tree.body if isinstance(node, ast.Assign)
              for target in node.targets if isinstance(target, ast.Name)}  # fmt: skip
    dependencies = set(ast.literal_eval(stated["DEPENDENCIES"]))
    assert dependencies == manifest("depend")
    assert all(f"find_package({name} REQUIRED)" in (ROOT / "CMakeLists.txt").read_text() for name in dependencies)
    for name, module in ast.literal_eval(stated["EXECUTABLES"]).items():
        assert f'"{name}:{module}"' in (ROOT / "CMakeLists.txt").read_text()


def test_every_requirement_is_pinned() -> None:
    pinned = {normalised(line) for line in constraints()}
    assert all(re.fullmatch(r"[\w.-]+==[\w.!+]+", line) for line in constraints())
    asked = requirements("ros-wheels", "dev", "eval", "export", "train", "world")
    missing = {line for line in asked if normalised(line) not in pinned}
    assert not missing, f"run `make lock`: {missing}"


@pytest.mark.parametrize("folder", ["ff3r_model", "ff3r_ros", "tests"])
def test_what_is_imported_is_required(folder: str) -> None:
    """Nothing is there by luck, as somebody else's dependency."""
    allowed = requirements(*(["dev"] if folder == "tests" else ["eval", "export", "train", "world"]))
    projects = {normalised(line) for line in allowed}
    used = set().union(*(imported(path) for path in ROOT.glob(f"{folder}/**/*.py"))) - set(sys.stdlib_module_names)
    owners = {name: found for name, found in importlib.metadata.packages_distributions().items() if name in used}
    ours = {name: found for name, found in owners.items() if not any(text.startswith("ros") for text in found)}
    missing = {name for name, found in ours.items() if not projects & {normalised(text) for text in found}} - OWN
    assert not missing - {"tf2_msgs", "nav2_msgs"}, f"{folder} imports {missing}, which pyproject.toml does not ask for"


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_files_name_what_exists(path: Path) -> None:
    """ROS' launch is not on PyPI, so its files are read here and run by hand."""
    tree = ast.parse(path.read_text())
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    keywords = [(node.arg, node.value) for node in ast.walk(tree) if isinstance(node, ast.keyword)]
    executables = {value.value for name, value in keywords if name == "executable" and isinstance(value, ast.Constant)}
    assert executables - {"rviz2"} <= {"perception_node", "camera_node", "viewer_node"}
    assert all((ROOT / "rviz" / text).is_file() for text in texts if text.endswith(".rviz"))
    assert all((ROOT / "launch" / text).is_file() for text in texts if text.endswith(".launch.py") and " " not in text)
    assert any(isinstance(node, ast.FunctionDef) and node.name == "generate_launch_description" for node in tree.body)


def test_perception_launch_sets_parameters_that_the_node_has() -> None:
    parameters = pytest.importorskip("ff3r_ros.perception.parameters")
    tree = ast.parse((ROOT / "launch/perception.launch.py").read_text())
    stated = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    kinds = {ast.unparse(key).strip("'"): ast.unparse(value) for key, value in
             zip(stated["TYPES"].keys, stated["TYPES"].values, strict=True)}  # fmt: skip
    fields = {name: field.type for name, field in parameters.NodeParameters.__dataclass_fields__.items()}
    assert kinds.pop("use_sim_time") == "bool"
    assert kinds == {name: fields.get(name) for name in kinds}
    assert fields["image_transport"] == "str"


@pytest.mark.parametrize("name", ["perception.node", "camera.node", "viewer.node"])
def test_executables_have_a_main(name: str) -> None:
    pytest.importorskip("rclpy", reason="needs a ROS: native, or its wheels")
    assert callable(importlib.import_module(f"ff3r_ros.{name}").main)


def test_console_script_has_a_main() -> None:
    module, function = PROJECT["scripts"]["ff3r"].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_wheel_has_every_tracked_file_of_the_packages(wheel: zipfile.ZipFile) -> None:
    listed = subprocess.run(["git", "ls-files", *OWN], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = {name for name in listed.stdout.split() if (ROOT / name).is_file()}
    assert wanted and not wanted - set(wheel.namelist())


def test_wheel_has_what_ros_looks_for(wheel: zipfile.ZipFile) -> None:
    base = f"{PROJECT['name']}-{PROJECT['version']}.data/data"
    installed = {name.removeprefix(f"{base}/"): name for name in wheel.namelist() if name.startswith(base)}
    index = "share/ament_index/resource_index"
    wanted = {f"{index}/packages/ff3r_ros"}
    wanted |= {
        f"share/ff3r_ros/{name}" for name in ("package.xml", "config/fastdds_large_data.xml", "config/pipeline.yaml")
    }
    wanted |= {f"lib/ff3r_ros/{name}" for name in ("perception_node", "camera_node", "viewer_node")}
    wanted |= {f"share/ff3r_ros/{path.relative_to(ROOT)}" for path in (*LAUNCH_FILES, *ROOT.glob("msg/*.msg"))}
    assert wanted <= set(installed)
    executable = wheel.getinfo(installed["lib/ff3r_ros/perception_node"])
    assert executable.external_attr >> 16 & 0o111, "not executable"


def test_wheel_has_the_messages(wheel: zipfile.ZipFile) -> None:
    pytest.importorskip("rosidl_adapter", reason="without rosidl the wheel has no messages")
    names = set(wheel.namelist())
    assert {"ff3r_ros/msg/_occupancy_mask.py", "ff3r_ros/msg/_query_list.py", "ff3r_ros/msg/_query.py"} <= names
    assert any(re.fullmatch(r"ff3r_ros/ff3r_ros_s__rosidl_typesupport_c\..*\.so", name) for name in names)


COSTMAP_FILTER_INFO = """
std_msgs/Header header
uint8 type
string filter_mask_topic
float32 base
float32 multiplier
"""
"""As upstream has it."""
HASHED = ("ff3r_ros/msg/OccupancyMask", "ff3r_ros/msg/QueryList", "tf2_msgs/msg/TFMessage")


@pytest.mark.parametrize("name", [*HASHED, "nav2_msgs/msg/CostmapFilterInfo"])
def test_type_hashes_are_those_that_other_implementations_compute(name: str) -> None:
    """rosbags hashes our definitions by code of its own; a wrong hash keeps DDS from matching us with anybody."""
    rclpy = pytest.importorskip("rclpy", reason="needs a ROS: native, or its wheels")
    typesys = pytest.importorskip("rosbags.typesys")
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    for path in (ROOT / "msg").glob("*.msg"):
        store.register(typesys.get_types_from_msg(path.read_text(), f"ff3r_ros/msg/{path.stem}"))
    store.register(typesys.get_types_from_msg(COSTMAP_FILTER_INFO, "nav2_msgs/msg/CostmapFilterInfo"))
    package, _, kind = name.split("/")
    context = rclpy.context.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("hashes", context=context)
    node.create_publisher(getattr(importlib.import_module(f"{package}.msg"), kind), "hashed", 1)
    (endpoint,) = node.get_publishers_info_by_topic("hashed")
    node.destroy_node()
    rclpy.shutdown(context=context)
    digest = bytes(endpoint.topic_type_hash.value).hex()
    assert f"RIHS0{endpoint.topic_type_hash.version}_{digest}" == store.hash_rihs01(name)


TALK_TO_ONESELF = """
import importlib, sys
import rclpy

rclpy.init()
node = rclpy.create_node("quiet")
for name in sys.argv[1:]:
    package, _, kind = name.split("/")
    message, received = getattr(importlib.import_module(f"{package}.msg"), kind)(), []
    publisher = node.create_publisher(type(message), kind, 1)
    node.create_subscription(type(message), kind, received.append, 1)
    for _ in range(200):
        publisher.publish(message)
        rclpy.spin_once(node, timeout_sec=0.1)
        if received:
            break
    assert received and received[0] == message, name
node.destroy_node()
rclpy.shutdown()
"""


def test_messages_arrive_and_the_middleware_has_nothing_to_complain() -> None:
    """rcutils prints to stderr when FastDDS finds no introspection of a type. Ours and then others', which trip too."""
    pytest.importorskip("rclpy", reason="needs a ROS: native, or its wheels")
    names = [f"ff3r_ros/msg/{path.stem}" for path in sorted((ROOT / "msg").glob("*.msg"))]
    names += ["tf2_msgs/msg/TFMessage", "geometry_msgs/msg/PoseStamped"]
    command = [sys.executable, "-c", TALK_TO_ONESELF, *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def native_ros(tmp_path: Path) -> Path:
    """A prefix that looks like an installed ROS."""
    prefix = tmp_path / "opt/ros/jazzy"
    (prefix / "share/ament_index/resource_index/packages").mkdir(parents=True)
    for package in ("rclpy", "rcutils"):
        (prefix / "share/ament_index/resource_index/packages" / package).touch()
    return prefix


def test_a_sourced_native_ros_stops_make_and_imports(native_ros: Path) -> None:
    environ = {**os.environ, "AMENT_PREFIX_PATH": str(native_ros)}
    commands = [[sys.executable, "-S", "tools/setup_env.py", "--check-shell", ".venv"]]
    if importlib.util.find_spec("ros_wheels_bootstrapper"):
        commands.append([sys.executable, "-c", "import ff3r_ros"])
    for command in commands:
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
        assert done.returncode == 1
        assert str(native_ros) in done.stderr and "make robot-env" in done.stderr


def test_an_overlay_is_no_native_ros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    setup_env.check_shell(tmp_path / ".venv")


def test_set_up_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SetupError, match="no-such-compiler not found"):
        setup_env.check_machine()
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    with pytest.raises(SetupError, match=r"3\.12 is needed"):
        setup_env.check_machine()


def test_robot_env_finds_the_sourced_ros(native_ros: Path, tmp_path: Path) -> None:
    sourced = {"AMENT_PREFIX_PATH": f"{tmp_path}/overlay:{native_ros}", "ROS_DISTRO": "jazzy"}
    assert robot_env.find_ros(sourced) == ("jazzy", native_ros)
    with pytest.raises(SetupError, match="no native ROS"):
        robot_env.find_ros({"AMENT_PREFIX_PATH": f"{tmp_path}/overlay"})


def test_robot_env_keeps_what_the_system_has() -> None:
    system = {"numpy": "1.26.4", "pyyaml": "6.0.1"}
    wanted, limits = robot_env.plan(system.get, lambda module: module == "cv2")
    assert "numpy==1.26.4" in limits and [normalised(line) for line in limits].count("numpy") == 1
    assert "pyyaml" not in {normalised(line) for line in limits}
    assert not [line for line in [*wanted, *limits] if normalised(line).startswith("ros-")]
    assert not [line for line in wanted if "opencv" in line]
    assert {"torch", "numpy"} <= {normalised(line) for line in wanted}
    assert any(line.startswith("torch==") for line in limits)


def test_robot_env_refuses_a_python_with_wheels() -> None:
    pytest.importorskip("ros_wheels_bootstrapper", reason="this Python has no wheels of ROS")
    with pytest.raises(SetupError, match="ROS from wheels"):
        robot_env.check_python()
