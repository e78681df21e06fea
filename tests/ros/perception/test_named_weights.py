"""Weights by name, from the hub to a map: fetched by the command, then used by `ff3r reconstruct` and by the node.

With tiny networks under the published names always; with Depth Anything 3 Small at its size in the long tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import Image, PointCloud2

from benchmarks.network.standin import tiny_da3, write_da3
from ff3r_model.cli import main
from ff3r_model.network import FF3RConfig
from ff3r_model.network.public_weights import da3
from ff3r_ros.lifecycle import LifecycleClient
from ff3r_ros.perception.node import PerceptionNode
from ff3r_ros.qos import LATCHED
from tests.network.named_weights.conftest import point_to
from tests.support.hub_server import Hub, serving
from tests.support.robot import image_message
from tests.support.ros import Ros, wait_until
from tests.support.standin_hub import GEOMETRY, install_standin, published_files

PICTURES = np.load(Path(__file__).parents[2] / "reference" / "vggt_2x56x84.npz")["images"][0]
SMALL = GEOMETRY.replace("BASE", "SMALL")


@pytest.fixture
def ros() -> Iterator[Ros]:
    ros = Ros()
    yield ros
    ros.close()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("size", [tiny_da3, pytest.param(FF3RConfig.da3_small, marks=pytest.mark.long)])
def test_from_the_hub_to_a_map(size, ros: Ros, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    install_standin(monkeypatch, quick=False)
    monkeypatch.setattr(da3, "SIZES", (size,))
    monkeypatch.setenv("FF3R_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = published_files(tmp_path / "published")
    files[SMALL] = write_da3(tmp_path, size()).read_bytes()
    with serving(Hub(files)) as hub:
        point_to(hub.url, monkeypatch, tmp_path)
        assert main(["weights", "get", "apache-small", "--channels", "48"]) == 0
    # The command
    frames = tmp_path / "frames"
    frames.mkdir()
    pictures = [(picture.transpose(1, 2, 0) * 255).astype(np.uint8) for picture in PICTURES]
    for index, picture in enumerate(pictures):
        cv2.imwrite(str(frames / f"{index}.png"), picture[..., ::-1])
    command = ["reconstruct", str(frames), "-o", str(tmp_path / "out"), "--weights", "apache-small", "--views", "2"]
    assert main([*command, "--config", str(_settings(tmp_path))]) == 0
    assert (tmp_path / "out" / "map.ff3r.safetensors").stat().st_size > 0
    # The node
    options = {"weights": "apache-small", "device": "cpu", "views": 2, "overlap": 1, "queries": ["chair"]}
    node = ros.run(PerceptionNode(**ros.options(**options, long_side=84)))
    clouds = ros.collect(PointCloud2, "/ff3r/semantic_cloud", LATCHED)
    LifecycleClient("/ff3r", ros.context).drive("active", timeout=300)
    camera = ros.publisher(Image, "image", 10)
    for index, picture in enumerate(pictures):
        camera.publish(image_message(index, picture))
        wait_until(lambda count=index + 1: node.session.camera.received >= count, "the node to get an image")
    wait_until(lambda: clouds and clouds[-1].width, "a cloud", 300)


def _settings(folder: Path) -> Path:
    path = folder / "settings.yaml"
    path.write_text("window:\n  long_side: 84\n")
    return path
