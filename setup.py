"""What pyproject.toml cannot say: the messages, and the files that `ros2 run` and `ros2 launch` look for.

pip installs by this file; `colcon build` on a native ROS uses CMakeLists.txt instead.
"""

from __future__ import annotations

import functools
import shutil
import sys
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools"))
import rosidl_build  # noqa: E402

PACKAGE = "ff3r_ros"
DEPENDENCIES = ["builtin_interfaces", "std_msgs", "geometry_msgs"]
EXECUTABLES = {"perception_node": "perception.node", "camera_node": "camera.node", "viewer_node": "viewer.node"}
"""Name for `ros2 run ff3r_ros NAME`, and the module of ff3r_ros whose main() it calls."""
BUILD = Path("build/pip")


def have_rosidl() -> bool:
    """Whether the messages can be built here; says why not."""
    try:
        rosidl_build.check(DEPENDENCIES)
    except rosidl_build.RosidlMissing as error:
        print(f"{PACKAGE}: built without its ROS messages: {error}", file=sys.stderr)
        return False
    return True


MESSAGES = have_rosidl()


@functools.cache
def generated() -> Path:
    """The folder of the messages' sources, generated once per run."""
    out = ROOT / BUILD / "rosidl"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    rosidl_build.generate(PACKAGE, ROOT, DEPENDENCIES, out)
    return out


class BuildPy(build_py):
    """Adds the messages' Python modules: in the source tree for an editable install."""

    def run(self) -> None:
        super().run()
        if MESSAGES:
            target = ROOT if self.editable_mode else Path(self.build_lib)
            shutil.copytree(generated() / "py" / PACKAGE / "msg", target / PACKAGE / "msg", dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns("*.c"))  # fmt: skip


class BuildExt(build_ext):
    """Replaces the placeholder by the messages' extension module, whose sources have to be generated first."""

    def finalize_options(self) -> None:
        if MESSAGES:
            self.distribution.ext_modules = [rosidl_build.extension(PACKAGE, DEPENDENCIES, generated())]
        super().finalize_options()


class DataDistribution(Distribution):
    """Lets editable installs have data files: setuptools asks for has_data(), which it does not define."""

    def has_data(self) -> bool:
        return bool(self.data_files)


def wrapper(name: str, module: str) -> str:
    """Write the executable `name` for a pip prefix, where the interpreter lies two folders up; returns its path."""
    text = (ROOT / "tools/executable.in").read_text()
    interpreter = '$(dirname "$(readlink -f "$0")")/../../bin/python3'
    path = BUILD / "executables" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("@PYTHON@", interpreter).replace("@MODULE@", module))
    path.chmod(0o755)
    return str(path)


def interface_marker() -> str:
    """Write the list of interfaces that `ros2 interface` reads; returns its path."""
    path = BUILD / "rosidl_interfaces" / PACKAGE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"msg/{message.name}\n" for message in sorted((ROOT / "msg").glob("*.msg"))))
    return str(path)


def files(folder: str) -> list[str]:
    """Every file in `folder`, relative to the repository."""
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(f"{folder}/*") if path.is_file())


def data_files() -> list[tuple[str, list[str]]]:
    """(folder in the prefix, files) for everything ROS finds through its index rather than through Python."""
    index = "share/ament_index/resource_index"
    found = [
        (f"{index}/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        *((f"share/{PACKAGE}/{folder}", files(folder)) for folder in ("launch", "config", "rviz", "msg")),
        (f"lib/{PACKAGE}", [wrapper(name, module) for name, module in EXECUTABLES.items()]),
    ]
    return [*found, (f"{index}/rosidl_interfaces", [interface_marker()])] if MESSAGES else found


setup(
    data_files=data_files(),
    ext_modules=[Extension(f"{PACKAGE}.messages", [])] if MESSAGES else [],
    distclass=DataDistribution,
    cmdclass={"build_py": BuildPy, "build_ext": BuildExt},
)
