"""Whatever messages hold: the node's own callbacks survive it, count it, and a good robot goes on mapping afterwards.

The callbacks are called as the executor does, without DDS. `-m long` tries as many messages as docs state.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu
from std_msgs.msg import Header, String
from tf2_msgs.msg import TFMessage

from ff3r_model.frames.image_messages import ImageRejected, decode, decode_depth
from ff3r_ros.conversions.messages import transform_message
from ff3r_ros.perception.node import PerceptionNode
from ff3r_ros.perception.session import Session
from ff3r_ros.qos import TF_STATIC_QOS
from tests.support import crafted_messages as crafted
from tests.support.fake_engine import FakeEngine, noise
from tests.support.robot import SECOND, Robot, image_message
from tests.support.ros import Ros, wait_until
from tests.support.ros_fakes import fake_pipeline

MEGABYTE = 2**20


class Callbacks:
    """A node's callbacks by topic, called as its executor would."""

    def __init__(self, ros: Ros, **parameters: Any) -> None:
        own = {"views": 4, "overlap": 2, "long_side": 56, "voxel_size": 0.1, "use_depth": True, "use_imu": True}
        options = ros.options(**own, odom_frame="odom", sync_wait=0.0, **parameters)
        self.node = PerceptionNode(lambda settings: fake_pipeline(FakeEngine(), settings), **options)
        self.node.trigger_configure()
        self.node.trigger_activate()
        self.by_topic = {subscription.topic_name: subscription.callback for subscription in self.node._inputs}
        self.image = next(topic for topic in self.by_topic if topic.endswith("image"))

    def send(self, topic: str, message: Any) -> None:
        """One message; nothing may come of it but a count."""
        self.by_topic[topic](message)
        self.node.session.tick()
        assert not self.node.guard.failed, self.node.guard.recent

    def notes(self) -> dict[str, str]:
        return self.node.session.notes()

    def map_something(self) -> None:
        """Four good images make a window."""
        start = int(self.node.session.worker.status.windows)
        session = self.node.session
        self.send("/camera_info", CameraInfo())
        for index in range(self.next, self.next + 6):
            self.send(self.image, image_message(index, noise(index)))
        self.next += 6
        wait_until(lambda: session.worker.status.windows > start, f"a window; {session.worker.status}")

    next = 0


@pytest.fixture(scope="module")
def raw() -> Iterator[Callbacks]:
    ros = Ros()
    callbacks = Callbacks(ros)
    yield callbacks
    callbacks.node.destroy_node()
    ros.close()


@pytest.fixture(scope="module")
def compressed() -> Iterator[Callbacks]:
    ros = Ros()
    callbacks = Callbacks(ros, image_transport="compressed")
    yield callbacks
    callbacks.node.destroy_node()
    ros.close()


def wide_info(**fields: Any) -> CameraInfo:
    """A camera_info that says what no camera is."""
    matrix = [100.0, 0.0, 32.0, 0.0, 100.0, 24.0, 0.0, 0.0, 1.0]
    return CameraInfo(**{"width": 64, "height": 48, "k": matrix, "distortion_model": "plumb_bob", **fields})


def turned(w: float) -> TFMessage:
    message = transform_message(SECOND, "odom", "base_link", torch.eye(4))
    message.transform.rotation = Quaternion(x=0.0, y=0.0, z=0.0, w=w)
    return TFMessage(transforms=[message])


@pytest.mark.fuzz
@given(crafted.camera_infos())
@example(wide_info(width=2**32 - 1, height=2**32 - 1))
@example(wide_info(width=20_000, height=20_000, d=[-0.3, 0.1, 0.0, 0.0, 0.0]))
@example(wide_info(d=[1e300] * 5))
@example(wide_info(d=[-1e3, 1e5, 1e3, 0.0, 1e6]))
@example(wide_info(distortion_model="fisheye", d=[1e200, -1e200, 1e100, 0.0]))
def test_any_camera_info(raw: Callbacks, info: CameraInfo) -> None:
    raw.send("/camera_info", info)
    raw.send(raw.image, image_message(0))


@pytest.mark.fuzz
@given(crafted.transforms())
@example(turned(1e200))
@example(turned(1e308))
@example(turned(1e-170))
@example(turned(float("nan")))
def test_any_transform(raw: Callbacks, message: TFMessage) -> None:
    raw.send("/tf", message)
    raw.send("/tf_static", message)
    raw.send(raw.image, image_message(0))


@pytest.mark.fuzz
@given(crafted.images())
@example(Image(width=33_000, height=1, encoding="mono8", step=33_000, data=bytes(33_000)))
@example(Image(width=2**32 - 1, height=2**32 - 1, encoding="rgb8", step=2**32 - 1, data=bytes(9)))
def test_any_image(raw: Callbacks, message: Image) -> None:
    raw.send(raw.image, message)
    raw.send("/depth", message)


@pytest.mark.fuzz
@given(crafted.compressed_images())
@example(CompressedImage(format="png", data=crafted.png(50_000, 50_000)))
def test_any_compressed_image(compressed: Callbacks, message: CompressedImage) -> None:
    compressed.send(compressed.image, message)
    with suppress(ImageRejected):
        decode_depth(message)


@pytest.mark.fuzz
@given(crafted.imu_messages(), crafted.texts())
def test_any_imu_and_any_text(raw: Callbacks, imu: Any, text: String) -> None:
    raw.send("/imu", imu)
    raw.send("/ff3r/query", text)
    raw.send("/ff3r/query/remove", text)


def test_mapping_goes_on_afterwards(raw: Callbacks) -> None:
    """After all of the above in this process, images of one second apart become windows."""
    raw.map_something()
    assert raw.node.session.worker.status.failures == 0, raw.node.session.worker.status.last_error
    frames = raw.notes()
    accounted = sum(raw.node.session.camera.dropped.values()) + raw.node.session.worker._received
    assert int(frames["frames received"]) == accounted


@pytest.mark.parametrize("size", [(50_000, 50_000), (16_385, 1), (9000, 9000), (2**31 - 1, 2**31 - 1)])
def test_a_header_that_promises_too_much_costs_nothing(size: tuple[int, int]) -> None:
    data = crafted.png(*size)
    assert len(data) < 80
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageRejected, match="too large image"):
        decode(CompressedImage(format="png", data=data))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


def test_large_calibrations_cost_nothing_before_an_image_comes(raw: Callbacks) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bent = [-0.3, 0.1, 0.0, 0.0, 0.0]
    matrix = [4000.0, 0.0, 4000.0, 0.0, 4000.0, 4000.0, 0.0, 0.0, 1.0]
    raw.send("/camera_info", wide_info(width=8000, height=8000, k=matrix, d=bent))
    assert raw.node.session.camera._calibration is not None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024
    raw.send("/camera_info", wide_info(width=20_000, height=20_000, d=bent))
    assert raw.node.session.camera._calibration is None
    assert int(raw.notes()["camera_info refused: impossible size"]) >= 1


def test_a_stamp_of_2038_does_not_end_odometry(raw: Callbacks) -> None:
    """Of forty images after one transform of the year 2038 all are joined with their odometry."""
    second = 10_000
    raw.send("/tf_static", TFMessage(transforms=[transform_message(0, "base_link", "optical", torch.eye(4))]))
    raw.send("/tf", TFMessage(transforms=[transform_message(second * SECOND, "odom", "base_link", torch.eye(4))]))
    raw.send("/tf", TFMessage(transforms=[transform_message((2**31 - 1) * SECOND, "odom", "base_link", torch.eye(4))]))
    refused = raw.node.session.transforms.rejected["stamp far from those before"]
    assert refused >= 1
    before = raw.node.session.sync.missing["no odometry"]
    for index in range(second + 1, second + 41):
        raw.send("/tf", TFMessage(transforms=[transform_message(index * SECOND, "odom", "base_link", torch.eye(4))]))
        head = Header(stamp=Time(sec=index), frame_id="optical")
        picture = image_message(0)
        picture.header = head
        raw.send(raw.image, picture)
    assert raw.node.session.sync.missing["no odometry"] == before
    assert raw.notes()["frames lack"].startswith("frames without a depth")


@dataclass
class Kind:
    """Random messages of one kind, for the full count."""

    count: int
    messages: Callable[[], st.SearchStrategy[Any]]
    topics: tuple[str, ...]
    taken: Callable[[Session], int]
    """How many a session has taken so far."""


KINDS = {
    "camera_info": Kind(
        2000, crafted.camera_infos, ("/camera_info",), lambda s: int(s.camera._calibration is not None)
    ),
    "TF": Kind(3000, crafted.transforms, ("/tf", "/tf_static"), lambda session: len(session.transforms.frames)),
    "images": Kind(4000, crafted.images, ("/image", "/depth"), lambda session: session.worker._received),
    "IMU": Kind(500, crafted.imu_messages, ("/imu",), lambda session: int(session.sync._up is not None)),
    "queries": Kind(500, crafted.texts, ("/ff3r/query", "/ff3r/query/remove"), lambda s: s.queries["received"]),
}


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_the_full_count(raw: Callbacks, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints a row for docs: how many were tried and taken, the longest time on a processor and the memory."""
    kind, session, seconds = KINDS[name], raw.node.session, list[float]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken = set[int]()

    @settings(max_examples=kind.count, database=None, deadline=None)
    @given(kind.messages())
    def send(message: Any) -> None:
        start = time.thread_time()
        for topic in kind.topics:
            raw.send(topic, message)
        seconds.append(time.thread_time() - start)
        taken.add(kind.taken(session))

    send()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    with capsys.disabled():
        slowest = f"at most {1000 * max(seconds):.0f} ms"
        print(f"\n| {name}, random | {len(seconds)} | none uncaught, {slowest}, +{grown:.0f} MB |")
    assert len(seconds) >= 0.9 * kind.count and session.worker.status.failures == 0
    assert len(taken) > 1, "the generator makes nothing but rubbish"


@pytest.mark.long
def test_a_thousand_damaged_byte_strings_over_dds(ros: Ros, capsys: pytest.CaptureFixture[str]) -> None:
    """Messages cut short, with wrong bytes and too long, on each topic; good images still become a window."""
    robot = Robot(ros, use_depth=True, use_imu=True, sync_wait=0.0).activate()
    pose = transform_message(SECOND, "odom", "base_link", torch.eye(4))
    good = [
        ("image", image_message(0)), ("depth", image_message(0)), ("camera_info", wide_info()), ("imu", Imu()),
        ("/tf", TFMessage(transforms=[pose])), ("/tf_static", TFMessage(transforms=[pose])),
        ("/ff3r/query", String(data="chair")), ("/ff3r/query/remove", String(data="chair")),
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    publishers = [ros.publisher(type(message), topic, TF_STATIC_QOS) for topic, message in good]
    for number in range(1000):
        index = number % len(good)
        publishers[index].publish(damaged(serialize_message(good[index][1]), rng))
        time.sleep(0.002)
    robot.film(1000, 1008)
    wait_until(lambda: int(robot.values["windows"]) >= 1, "a window")
    with capsys.disabled():
        print(f"\n| damaged byte strings | 1000 | none uncaught | {robot.values}")
    assert robot.values["failures"] == "0" and not robot.node.guard.failed


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes of a message, cut, lengthened or with some of them replaced."""
    values = bytearray(data)
    for place in rng.integers(0, min(len(values), 200), rng.integers(0, 6)):
        values[place] = rng.integers(0, 256)
    return bytes(values[: rng.integers(0, len(values))] if rng.random() < 0.5 else values + bytes(rng.integers(0, 9)))
