"""ROS from PyPI wheels: the settings its middleware needs, and a stop when a native ROS is there too."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, MutableMapping
from pathlib import Path

PROFILE = "share/ff3r_ros/config/fastdds_large_data.xml"
"""FastDDS' own shared-memory segment (512 KiB) is smaller than a camera image, and loses nearly all of them."""


class MixedRosError(RuntimeError):
    """Two installations of ROS in one process: the wheels in the virtual environment and a native one."""


def have_wheels() -> bool:
    """Whether this interpreter has ROS from wheels."""
    return importlib.util.find_spec("ros_wheels_bootstrapper") is not None


def native_ros(environ: Mapping[str, str], own: Path) -> Path | None:
    """The prefix of a sourced ROS other than the wheels in the prefix `own`, or None. Overlays do not count."""
    for entry in environ.get("AMENT_PREFIX_PATH", "").split(":"):
        prefix = Path(entry)
        if entry and prefix != own and (prefix / "share/ament_index/resource_index/packages/rcutils").exists():
            return prefix
    return None


def refuse_native_ros(environ: Mapping[str, str], own: Path) -> None:
    """Raise MixedRosError if the shell has sourced a native ROS."""
    native = native_ros(environ, own)
    if native:
        raise MixedRosError(
            f"this shell has sourced the ROS in {native}, and {own} brings a ROS of its own from wheels: "
            "the two do not mix. On a robot use `make robot-env`; for the demo open a shell that sources no ROS."
        )


def prepare(environ: MutableMapping[str, str], prefix: Path) -> None:
    """Set what rclpy.init reads from the environment, where it is not set; does nothing on a native ROS."""
    if not have_wheels():
        return
    refuse_native_ros(environ, prefix)
    environ.setdefault("AMENT_PREFIX_PATH", str(prefix))
    if (prefix / PROFILE).is_file():
        environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(prefix / PROFILE))
