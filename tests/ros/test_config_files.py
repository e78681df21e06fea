"""The files that ship beside the code name what exists."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import yaml

from ff3r_ros.perception.parameters import NodeParameters

PUBLISHED = {"/ff3r/semantic_cloud", "/ff3r/path", "/ff3r/pose", "/ff3r/masks/q1", "/ff3r/masks/q2", "/image"}


def test_the_parameter_file_holds_the_defaults(repository: Path) -> None:
    given = yaml.safe_load((repository / "config/ff3r.yaml").read_text())["/**"]["ros__parameters"]
    assert given == dataclasses.asdict(NodeParameters())


def test_rviz_shows_our_topics(repository: Path) -> None:
    config = yaml.safe_load((repository / "rviz/ff3r.rviz").read_text())["Visualization Manager"]
    topics = {display["Topic"]["Value"] for display in config["Displays"] if "Topic" in display}
    assert topics == PUBLISHED and config["Global Options"]["Fixed Frame"] == "map"


def test_foxglove_shows_our_topics(repository: Path) -> None:
    text = (repository / "config/foxglove_layout.json").read_text()
    layout = json.loads(text)
    assert set(re.findall(r'"(/(?:ff3r|image)[a-z0-9_/]*)"', text)) >= PUBLISHED
    shown = set(re.findall(r'"([A-Za-z0-9]+![a-z]+)"', json.dumps(layout["layout"])))
    assert shown == set(layout["configById"])
