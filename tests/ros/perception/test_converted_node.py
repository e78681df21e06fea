"""The perception node with converted public weights (stand-ins of them): images in, a cloud and a pose out.

Always with a tiny network of the full one's classes; with the full size where FF3R_FULL_TESTS is set (minutes, 12 GB).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image, PointCloud2

from benchmarks.network.standin import tiny, write_published, write_tipsv2
from ff3r_model.network import FF3RConfig
from ff3r_model.network.public_weights import semantics
from ff3r_model.network.public_weights.convert import convert
from ff3r_model.network.public_weights.sources import Sources
from ff3r_ros.lifecycle import LifecycleClient
from ff3r_ros.perception.node import PerceptionNode
from ff3r_ros.qos import LATCHED
from tests.support import tiny_tipsv2
from tests.support.robot import image_message
from tests.support.ros import Ros, wait_until

FULL = pytest.mark.skipif("FF3R_FULL_TESTS" not in os.environ, reason="takes minutes and 12 GB: set FF3R_FULL_TESTS")
PICTURES = np.load(Path(__file__).parents[2] / "reference" / "vggt_2x56x84.npz")["images"][0]


@pytest.fixture
def ros() -> Iterator[Ros]:
    ros = Ros()
    yield ros
    ros.close()


def with_tipsv2(sources: Sources, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Sources:
    """The geometry of `sources` with a tiny TIPSv2, of 64 dimensions."""
    monkeypatch.setitem(semantics.TIPSV2_SIZES, "tipsv2-tiny", (tiny_tipsv2.IMAGE, tiny_tipsv2.text_config))
    (folder / "tipsv2").mkdir()
    tipsv2 = write_tipsv2(folder / "tipsv2", tiny_tipsv2.IMAGE, tiny_tipsv2.text_config())
    return Sources(vggt=sources.vggt, tipsv2=tipsv2, tokenizer=tiny_tipsv2.write_tokenizer(tipsv2.parent))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("config", "words"),
    [(tiny(), "lseg"), (tiny(), "tipsv2"), pytest.param(FF3RConfig.full(), "lseg", marks=FULL)],
    ids=["tiny", "tiny-tipsv2", "full"],
)
def test_converted_weights_run_in_the_node(
    config: FF3RConfig, words: str, ros: Ros, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vggt, lseg = write_published(tmp_path, config)
    weights, sources = tmp_path / "ff3r.safetensors", Sources(vggt=vggt, lseg=lseg)
    channels = 512 if (config.name, words) == ("tiny", "lseg") else 64  # to fit a basis takes seconds; others test that
    if words == "tipsv2":
        sources = with_tipsv2(sources, tmp_path, monkeypatch)
    convert(sources, weights, config=config, channels=channels)
    options = {"weights": str(weights), "device": "cpu", "views": 2, "overlap": 1, "queries": ["chair"]}
    node = ros.run(PerceptionNode(**ros.options(**options, long_side=0 if config.name == "tiny" else 84)))
    clouds = ros.collect(PointCloud2, "/ff3r/semantic_cloud", LATCHED)
    poses = ros.collect(PoseStamped, "/ff3r/pose", LATCHED)
    LifecycleClient("/ff3r", ros.context).drive("active", timeout=600)
    camera = ros.publisher(Image, "image", 10)
    for index, picture in enumerate(PICTURES):
        camera.publish(image_message(index, (picture.transpose(1, 2, 0) * 255).astype(np.uint8)))
        wait_until(lambda count=index + 1: node.session.camera.received >= count, "the node to get an image")
    wait_until(lambda: clouds and clouds[-1].width, "a cloud", 900)
    assert clouds[-1].header.frame_id == "map"
    wait_until(lambda: poses, "a pose")
