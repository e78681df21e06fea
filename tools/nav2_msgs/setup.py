"""nav2_msgs/CostmapFilterInfo for environments with ROS from wheels, which lack it. Never beside a native ROS."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT.parent))
import rosidl_build  # noqa: E402

setup(**rosidl_build.stand_in("nav2_msgs", ROOT, ["builtin_interfaces", "std_msgs"]))
