"""tf2_msgs/TFMessage for Python environments whose ROS comes from wheels, which lack it. Never beside a native ROS."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT.parent))
import rosidl_build  # noqa: E402

PACKAGE = "tf2_msgs"
DEPENDENCIES = ["builtin_interfaces", "std_msgs", "geometry_msgs"]
OUT = ROOT / "build/rosidl"

try:
    raise SystemExit(f"not building {PACKAGE}, there is one: {rosidl_build.share(PACKAGE)}")
except rosidl_build.RosidlMissing:
    rosidl_build.check(DEPENDENCIES)

shutil.rmtree(OUT, ignore_errors=True)
OUT.mkdir(parents=True)
rosidl_build.generate(PACKAGE, ROOT, DEPENDENCIES, OUT)

setup(
    name="ff3r_tf2_msgs",
    version="0.1.0",
    packages=[PACKAGE, f"{PACKAGE}.msg"],
    package_dir={PACKAGE: f"build/rosidl/py/{PACKAGE}"},
    ext_modules=[rosidl_build.extension(PACKAGE, DEPENDENCIES, OUT)],
)
