"""Create .venv-robot on a robot with a native ROS 2: it keeps the ROS's own packages and adds torch and the rest.

Run by `make robot-env`, with the Python that the ROS uses, in a shell that has sourced the ROS. Wheels of ROS never
get in.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tools.environment import ROOT, SetupError, constraints, create_venv, main, normalised, requirements, run

FOLDER = ".venv-robot"
NATIVE_MODULES = {"opencv-python-headless": "cv2"}
"""Projects that the ROS has from the system, under a name that pip does not know."""
ABI = "numpy"
"""The ROS's compiled modules are built against the system's numpy: the environment keeps that very version."""

NEXT = """
ready. Next, in this workspace (colcon ignores the environment):

  source {activate}
  colcon build --packages-select ff3r_ros
  source install/setup.bash
  ros2 launch ff3r_ros perception.launch.py image:=/camera/image_raw camera_info:=/camera/camera_info
"""


def find_ros(environ: Mapping[str, str]) -> tuple[str, Path]:
    """(distribution, prefix) of the sourced native ROS; raises SetupError where there is none."""
    for entry in environ.get("AMENT_PREFIX_PATH", "").split(":"):
        prefix = Path(entry)
        if entry and (prefix / "share/ament_index/resource_index/packages/rclpy").exists():
            return environ.get("ROS_DISTRO", prefix.name), prefix
    raise SetupError(
        "no native ROS 2 is sourced in this shell. Where one is installed: source /opt/ros/<distribution>/setup.bash; "
        "where none is, `make demo` brings its own."
    )


def check_python() -> None:
    """Raise SetupError unless this Python is the ROS's own, without wheels of ROS."""
    if importlib.util.find_spec("ros_wheels_bootstrapper"):
        raise SetupError(f"{sys.executable} has ROS from wheels; use the ROS's: make robot-env PYTHON=/usr/bin/python3")
    if importlib.util.find_spec("rclpy") is None:
        raise SetupError(f"{sys.executable} does not find rclpy; name the ROS's Python: make robot-env PYTHON=...")


def system_version(project: str) -> str | None:
    """The version of a project that this Python has, or None."""
    try:
        return importlib.metadata.version(project)
    except importlib.metadata.PackageNotFoundError:
        return None


def plan(installed: Callable[[str], str | None], importable: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """(requirements, constraints) for pip.

    What the system has stays as it is where it is new enough; numpy stays in any case; the rest is pinned as elsewhere.
    """
    wanted = [line for line in requirements() if not _native(normalised(line), importable)]
    pinned = [line for line in constraints() if installed(normalised(line)) is None]
    numpy = installed(ABI)
    limits = [line for line in pinned if not normalised(line).startswith("ros-")]
    return wanted, [*limits, f"{ABI}=={numpy}"] if numpy else limits


def _native(project: str, importable: Callable[[str], bool]) -> bool:
    return project in NATIVE_MODULES and importable(NATIVE_MODULES[project])


def refuse_wheels(python: Path) -> None:
    """Raise SetupError if wheels of ROS got into the environment after all."""
    command = [python, "-m", "pip", "list", "--format=freeze"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    wheels = [line for line in listed if normalised(line).startswith("ros-")]
    if wheels:
        raise SetupError(f"wheels of ROS got into {FOLDER}, remove it: {', '.join(wheels)}")


def set_up() -> None:
    """Create or update the environment and say what to do next."""
    distribution, prefix = find_ros(os.environ)
    check_python()
    print(f"[1/3] ROS 2 {distribution} in {prefix}, Python {sys.version.split()[0]} ({sys.executable})", flush=True)
    folder = ROOT / FOLDER
    print(f"[2/3] {folder}, which sees the ROS's packages", flush=True)
    python = create_venv(folder, system_site_packages=True)
    wanted, limits = plan(system_version, lambda module: importlib.util.find_spec(module) is not None)
    print(f"[3/3] packages (some 3 GB the first time); kept: {ABI} {system_version(ABI)}", flush=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(limits))
        file.flush()
        run(python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "-c", file.name, *wanted)
    refuse_wheels(python)
    print(NEXT.format(activate=folder / "bin/activate"), flush=True)


if __name__ == "__main__":
    main(set_up)
