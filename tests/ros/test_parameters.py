"""Parameters given at start and set later: ranges, types, names, and when each may change."""

from __future__ import annotations

from typing import Any

import pytest
from rcl_interfaces.msg import ParameterType
from rclpy.node import Node
from rclpy.parameter import Parameter

from ff3r_ros.camera.playback import CameraParameters
from ff3r_ros.parameters import ParameterError, declare, on_set
from ff3r_ros.perception.parameters import NodeParameters


def node_with(ros: Any, **values: Any) -> Node:
    return Node("some_node", **ros.options(**values))


@pytest.mark.parametrize("kind", [NodeParameters, CameraParameters])
def test_defaults_are_declared_with_descriptions(ros: Any, kind: type) -> None:
    node = node_with(ros)
    assert declare(node, kind) == kind()
    for name in kind.__dataclass_fields__:
        assert len(node.describe_parameter(name).description) > 10


def test_given_values(ros: Any) -> None:
    values = declare(node_with(ros, views=16, camera_height=2, queries=["door", "red chair"]), NodeParameters)
    assert (values.views, values.camera_height, values.queries) == (16, 2.0, ["door", "red chair"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"views": 65}, "views = 65: allowed is 2 to 64"),
        ({"threshold": 1.5}, r"threshold = 1.5: allowed is 0 to 1"),
        ({"threshold": float("nan")}, "threshold = nan"),
        ({"views": "many"}, "views = 'many': expected int"),
        ({"views": True}, "views = True: expected int"),
        ({"image_transport": "theora"}, "image_transport = 'theora': allowed are raw, compressed"),
        ({"treshold": 0.5}, "treshold does not exist; did you mean threshold"),
        ({"xyzzy": 0.5}, "xyzzy does not exist; known are"),
    ],
)
def test_unusable_values_are_named(ros: Any, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        declare(node_with(ros, **given), NodeParameters)


def test_use_sim_time_is_no_stranger(ros: Any) -> None:
    declare(node_with(ros, use_sim_time=True), NodeParameters)


def test_setting_later(ros: Any) -> None:
    node, applied, configured = node_with(ros), {}, []
    declare(node, NodeParameters)
    node.add_on_set_parameters_callback(on_set(NodeParameters, lambda: bool(configured), applied.update))

    def set_to(name: str, value: Any) -> str:
        return node.set_parameters([Parameter(name, value=value)])[0].reason

    assert set_to("views", 4) == "" and set_to("threshold", 0.7) == "" and applied == {"views": 4, "threshold": 0.7}
    configured.append(True)
    assert "unconfigured" in set_to("views", 8)
    assert set_to("threshold", 0.6) == "" and applied == {"views": 4, "threshold": 0.6}
    assert "threshold" in set_to("threshold", 2.0) and set_to("diagnostics_period", 2.0)
    assert applied == {"views": 4, "threshold": 0.6}
    assert node.describe_parameter("views").type == ParameterType.PARAMETER_INTEGER
