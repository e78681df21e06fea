"""The sample SROS2 policy allows what real nodes have on the ROS graph, and nothing else."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from ff3r_ros.camera.node import CameraNode
from ff3r_ros.viewer.node import ViewerNode
from tests.support.robot import Robot
from tests.support.ros import Ros, wait_until

ROOT = Path(__file__).resolve().parents[2]
Permissions = dict[str, set[str]]
ACTS = ("publish", "subscribe", "reply", "request")
UNUSED = {"/clock"}
"""Allowed and used only with use_sim_time."""


def allowed(profile: ElementTree.Element) -> Permissions:
    """Full names by what may be done with them."""
    found: Permissions = {act: set() for act in ACTS}
    node, namespace = profile.get("node"), profile.get("ns", "/").rstrip("/")
    for group in profile:
        act = next(act for act in ACTS if group.get(act) == "ALLOW")
        for entry in group:
            name = str(entry.text)
            full = (
                f"{namespace}/{node}{name[1:]}" if name[0] == "~" else name if name[0] == "/" else f"{namespace}/{name}"
            )
            assert full not in found[act], f"{full} stands twice"
            found[act].add(full)
    return found


def policy() -> dict[str, Permissions]:
    """By node."""
    profiles = ElementTree.parse(ROOT / "config/sros2_policy.xml").getroot().iter("profile")
    return {str(profile.get("node")): allowed(profile) for profile in profiles}


def graph(ros: Ros, node: str) -> Permissions:
    """What a running node has."""
    probe = ros.probe
    queries: dict[str, Any] = {
        "publish": probe.get_publisher_names_and_types_by_node,
        "subscribe": probe.get_subscriber_names_and_types_by_node,
        "reply": probe.get_service_names_and_types_by_node,
        "request": probe.get_client_names_and_types_by_node,
    }
    return {act: {name for name, _ in query(node, "/")} for act, query in queries.items()}


@pytest.fixture
def nodes(ros: Ros) -> Iterator[Ros]:
    """All three, with all that parameters can switch on, and a mask of one query."""
    everything = {"use_depth": True, "use_imu": True, "camera_height": 1.0, "queries": ["red"]}
    Robot(ros, **everything).activate().film(0, 8)
    ros.run(CameraNode(**ros.options(width=32, height=24, image_transport="both")))
    ros.run(ViewerNode(**ros.options(port=0)))
    yield ros


def differences(ros: Ros) -> list[str]:
    found = []
    for node, rights in policy().items():
        for act, has in graph(ros, node).items():
            found += [
                f"{node} may not {act} {name}"
                for name in has
                if not any(fnmatchcase(name, right) for right in rights[act])
            ]
            unused = {right for right in rights[act] if not any(fnmatchcase(name, right) for name in has)} - UNUSED
            found += [f"{node} need not {act} {right}" for right in unused]
    return found


def test_the_policy_is_exactly_what_the_nodes_have(nodes: Ros) -> None:
    assert policy().keys() == {"ff3r", "camera", "ff3r_viewer"}
    try:
        wait_until(lambda: not differences(nodes), "the graph of the policy", 90)
    except AssertionError as error:
        raise AssertionError(f"{error}: {differences(nodes)}") from None
