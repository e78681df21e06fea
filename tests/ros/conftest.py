"""Real nodes over real DDS, with executors in threads of this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = str(ROOT / "config" / "fastdds_localhost.xml")

pytest.importorskip("rclpy", reason="needs a ROS: native, or its wheels")

from tests.support.ros import Ros  # noqa: E402


@pytest.fixture
def ros() -> Iterator[Ros]:
    """A fresh context."""
    ros = Ros()
    yield ros
    ros.close()
