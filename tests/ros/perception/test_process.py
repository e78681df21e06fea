"""The perception node as its users run it: a process of its own, with weights from a file."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from sensor_msgs.msg import Image, PointCloud2
from std_srvs.srv import Trigger

from ff3r_model.network.checkpoint import NANO_WEIGHTS
from ff3r_ros.lifecycle import LifecycleClient, LifecycleError
from ff3r_ros.qos import LATCHED
from tests.support.robot import image_message
from tests.support.ros import Ros, wait_until


def start(*ros_arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ff3r_ros.perception.node", "--ros-args", *ros_arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def set_text(ros: Ros, name: str, value: str) -> Any:
    parameter = ParameterMessage(name=name)
    parameter.value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)
    request = SetParameters.Request(parameters=[parameter])
    return ros.call(SetParameters, "/ff3r/set_parameters", request).results[0]


def test_an_impossible_parameter_ends_the_process_with_a_reason() -> None:
    process = start("-p", "views:=65")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2 and "views = 65: allowed is 2 to 64" in output


@pytest.mark.skipif(not NANO_WEIGHTS.exists(), reason="the nano weights are not there")
def test_bad_weights_then_good_ones_then_a_map_then_a_clean_end(ros: Ros, tmp_path: Path) -> None:
    truncated, foreign = tmp_path / "truncated.safetensors", tmp_path / "foreign.safetensors"
    truncated.write_bytes(NANO_WEIGHTS.read_bytes()[:100_000])
    foreign.write_bytes(b"PK\x03\x04 not safetensors at all" * 100)
    process = start(
        "-p", f"weights:={tmp_path / 'missing.safetensors'}", "-p", "long_side:=56", "-p", f"map_folder:={tmp_path}"
    )
    try:
        client = LifecycleClient("/ff3r", ros.context)
        wait_until(lambda: process.poll() is None and client.state(timeout=120) == "unconfigured", "the node", 120)
        for path in (None, truncated, foreign):
            if path is not None:
                assert set_text(ros, "weights", str(path)).successful
            with pytest.raises(LifecycleError, match="stays unconfigured"):
                client.drive("active")
        assert set_text(ros, "weights", "").successful
        client.drive("active")
        assert not set_text(ros, "weights", "other").successful
        clouds = ros.collect(PointCloud2, "/ff3r/semantic_cloud", LATCHED)
        camera = ros.publisher(Image, "image", 100)
        for index in range(400):
            camera.publish(image_message(index))
            if clouds:
                break
            time.sleep(0.1)
        wait_until(lambda: clouds and clouds[-1].width, "a cloud", 60)
        set_text(ros, "map_file", str(tmp_path / "no such folder" / "map.ff3r"))
        assert not ros.call(Trigger, "/ff3r/save_map").success
        set_text(ros, "map_file", str(tmp_path / "map.ff3r"))
        assert ros.call(Trigger, "/ff3r/save_map").success and ros.call(Trigger, "/ff3r/load_map").success
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in output
    assert all(name in output for name in ("missing.safetensors", "truncated.safetensors", "foreign.safetensors"))
