"""The web viewer, from messages on real DDS to pixels and clicks in a headless browser."""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import viser

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue  # noqa: E402
from geometry_msgs.msg import Point, PoseStamped  # noqa: E402
from nav_msgs.msg import Path as PathMessage  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402
from sensor_msgs.msg import Image, PointCloud2  # noqa: E402
from std_msgs.msg import Header, String  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

from ff3r_model.core.types import SH_C0, Gaussians  # noqa: E402
from ff3r_model.visualization.web_viewer import PALETTE, ShownQuery, Viewer  # noqa: E402
from ff3r_ros.conversions.messages import pose_message  # noqa: E402
from ff3r_ros.conversions.point_cloud import semantic_cloud  # noqa: E402
from ff3r_ros.conversions.reading import cloud_arrays, pose_matrix, voxel_centres  # noqa: E402
from ff3r_ros.msg import OccupancyMask, Query, QueryList  # noqa: E402
from ff3r_ros.qos import LATCHED, LATCHED_MANY  # noqa: E402
from ff3r_ros.viewer.node import ViewerNode  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The condition's first true value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {condition}")


class Browser:
    """A page in headless Chromium, driven through the DevTools protocol."""

    def __init__(self, folder: Path) -> None:
        flags = ["--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        sizes = ["--window-size=900,600", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
        assert CHROMIUM is not None
        self.process = subprocess.Popen(
            [CHROMIUM, *flags, *sizes], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        port_file = folder / "DevToolsActivePort"
        port = wait_for(lambda: port_file.exists() and port_file.read_text().split("\n")[0])
        pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))
        page = next(page for page in pages if page["type"] == "page")
        self.socket = connect(page["webSocketDebuggerUrl"], max_size=None)
        self.count = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv(timeout=30))
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def text(self) -> str:
        return self.run("document.body ? document.body.innerText : ''") or ""

    def click(self, label: str) -> None:
        found = f"[...document.querySelectorAll('button')].find(b => b.innerText.includes({json.dumps(label)}))"
        wait_for(lambda: self.run(f"!!{found}"))
        self.run(f"{found}.click()")

    def type(self, label: str, text: str) -> None:
        place = f"//label[text()='{label}']/following::input[1]"
        self.run(f'document.evaluate("{place}", document, null, 9, null).singleNodeValue.focus()')
        self.call("Input.insertText", text=text)

    def pixels(self) -> np.ndarray:
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(timeout=20)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    page = Browser(tmp_path / "chromium")
    yield page
    page.close()


def near(pixels: np.ndarray, color: tuple[int, int, int]) -> int:
    """How many pixels of the scene (left of the panel) have about this colour."""
    return int((np.abs(pixels[:, :560].astype(int) - color).max(axis=-1) < 25).sum())


# The page alone


@needs_browser
def test_page_shows_the_map_and_sends_what_is_typed_and_clicked(browser: Browser) -> None:
    asked: list[str] = []
    removed: list[int] = []
    viewer = Viewer(0, on_query=asked.append, on_remove=removed.append)
    try:
        grid = np.stack(np.meshgrid(np.linspace(-2, 2, 60), np.linspace(-2, 2, 60)), -1).reshape(-1, 2)
        floor = np.concatenate([grid, np.full((3600, 1), -1.0)], axis=1).astype(np.float32)
        viewer.show_cloud(floor, np.full((3600, 3), (40, 200, 40), dtype=np.uint8), 0.08)
        viewer.show_path(np.array([[-1.0, 0, 0], [1, 0, 0]]))
        viewer.show_camera(np.eye(4), np.zeros((30, 40, 3), dtype=np.uint8), 1.0, 0.2)
        viewer.show_image(np.full((30, 40, 3), 99, dtype=np.uint8))
        viewer.show_status("mapping <b>now</b>")
        mask = ShownQuery(0, "red <i>chair</i>", floor[:600] + np.array([0, 0, 0.2]))
        viewer.show_queries([mask, ShownQuery(1, "sofa")])
        browser.call("Page.navigate", url=viewer.url)
        wait_for(lambda: "Search the map" in browser.text(), 60)
        text = browser.text()
        assert "mapping <b>now</b>" in text and "red <i>chair</i> · 600 voxels" in text and "sofa · 0 voxels" in text
        assert viewer.browsers == 1
        wait_for(lambda: near(browser.pixels(), PALETTE[0]) > 500)
        assert near(browser.pixels(), (40, 200, 40)) > 3000

        browser.type("Find", "  blue table ")
        browser.click("Search the map")
        wait_for(lambda: asked)
        assert asked == ["blue table"]
        browser.click("Remove red")
        wait_for(lambda: removed)
        assert removed == [0]
        viewer.show_queries([ShownQuery(1, "sofa")])
        wait_for(lambda: "chair" not in browser.text())
        wait_for(lambda: near(browser.pixels(), PALETTE[0]) == 0)
        viewer.show_queries([])
        wait_for(lambda: "none yet" in browser.text())
    finally:
        viewer.close()


@needs_browser
def test_a_page_of_another_server_cannot_read_the_map(browser: Browser) -> None:
    """Both on this machine; the viewer's own page opens the very same websocket."""
    script = f"""window.seen = ''
        const socket = new WebSocket('ws://' + location.hash.slice(1), 'viser-v{viser.__version__}')
        socket.onmessage = () => {{ window.seen = 'read' }}
        socket.onerror = () => {{ window.seen = 'refused' }}"""
    viewer, other = Viewer(0), ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    try:
        for page, outcome in ((f"http://127.0.0.1:{other.server_port}/none", "refused"), (viewer.url, "read")):
            browser.call("Page.navigate", url=f"{page}#127.0.0.1:{viewer.port}")
            wait_for(lambda page=page: browser.run("document.readyState + location.href").startswith(f"complete{page}"))
            browser.run(script)
            wait_for(lambda: browser.run("window.seen"))
            assert browser.run("window.seen") == outcome
    finally:
        other.shutdown()
        viewer.close()


def test_taken_port_says_so_and_takes_the_next(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with caplog.at_level(logging.WARNING):
            viewer = Viewer(port)
        try:
            assert viewer.port > port
            assert f"port {port} is in use: the viewer is on port {viewer.port} instead" in caplog.text
            assert urllib.request.urlopen(viewer.url).status == 200
        finally:
            viewer.close()


def test_serves_this_machine_only(capsys: pytest.CaptureFixture[str]) -> None:
    viewer = Viewer(0)
    try:
        assert viewer.url == f"http://127.0.0.1:{viewer.port}"
        listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        addresses = {row[1].split(":")[0] for row in listening if int(row[1].split(":")[1], 16) == viewer.port}
        assert "0100007F" in addresses and "00000000" not in addresses
    finally:
        viewer.close()
    assert capsys.readouterr().out == ""


# Messages → arrays


def gaussians(means: torch.Tensor, colors: torch.Tensor) -> Gaussians:
    count = len(means)
    return Gaussians(
        means=means,
        scales=torch.ones(count, 3),
        quaternions=torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        harmonics=((colors - 0.5) / SH_C0)[:, None],
        opacities=torch.ones(count),
        confidences=torch.ones(count),
        features=torch.zeros(count, 2),
    )


def test_reads_the_clouds_that_the_perception_node_writes() -> None:
    means, colors = torch.randn(100, 3), torch.randint(0, 256, (100, 3))
    points, read = cloud_arrays(semantic_cloud(Header(), gaussians(means, colors / 255)))
    assert np.array_equal(points, means.numpy())
    assert np.array_equal(read, colors.numpy().astype(np.uint8))
    empty = cloud_arrays(semantic_cloud(Header(), gaussians(torch.zeros(0, 3), torch.zeros(0, 3))))
    assert empty[0].shape == (0, 3) and empty[1].shape == (0, 3)


def test_poses_against_scipy() -> None:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = torch.from_numpy(Rotation.from_euler("xyz", [0.4, -1.1, 2.5]).as_matrix())
    matrix[:3, 3] = torch.tensor([1.0, -2.0, 3.0])
    message = pose_message(matrix.float())
    q = message.orientation
    expected = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    np.testing.assert_allclose(pose_matrix(message)[:3, :3], expected, atol=1e-9)
    np.testing.assert_allclose(pose_matrix(message), matrix.numpy(), atol=1e-6)


def test_voxel_centres_follow_the_message_definition() -> None:
    mask = OccupancyMask(voxel_size=0.5, origin=Point(x=1.0, y=2.0, z=3.0), indices=[0, 0, 0, -1, 2, 4])
    assert voxel_centres(mask).tolist() == [[1.25, 2.25, 3.25], [0.75, 3.25, 5.25]]


# The node, over DDS


class Perception(Node):
    """Publishes what the perception node would."""

    def __init__(self, context: Context) -> None:
        super().__init__("ff3r", context=context)
        self.asked: list[str] = []
        self.removed: list[str] = []
        self.create_subscription(String, "~/query", lambda text: self.asked.append(text.data), 10)
        self.create_subscription(String, "~/query/remove", lambda text: self.removed.append(text.data), 10)
        self.cloud = self.create_publisher(PointCloud2, "~/semantic_cloud", LATCHED)
        self.path = self.create_publisher(PathMessage, "~/path", LATCHED)
        self.masks = self.create_publisher(OccupancyMask, "~/occupancy_masks", LATCHED_MANY)
        self.queries = self.create_publisher(QueryList, "~/queries", LATCHED)
        self.status = self.create_publisher(DiagnosticArray, "/diagnostics", LATCHED)
        self.image = self.create_publisher(Image, "image", 1)

    def say_all(self) -> None:
        means = torch.rand(2000, 3) * torch.tensor([4.0, 4.0, 0.05]) - torch.tensor([2.0, 2.0, 1.0])
        colors = torch.tensor([[0.5, 0.5, 0.5]]).repeat(2000, 1)
        self.cloud.publish(semantic_cloud(Header(frame_id="map"), gaussians(means, colors)))
        poses = [PoseStamped(), PoseStamped()]
        poses[1].pose.position.x = 1.0
        self.path.publish(PathMessage(poses=poses))
        indices = np.stack(np.meshgrid(range(20), range(20), [0]), -1).ravel().astype(np.int32).tolist()
        self.masks.publish(OccupancyMask(query_id=3, query="chair", voxel_size=0.1, indices=indices))
        self.queries.publish(QueryList(queries=[Query(id=3, text="chair", voxels=400), Query(id=4, text="lamp")]))
        self.say_what_is_not_latched()

    def say_what_is_not_latched(self) -> None:
        values = [KeyValue(key="voxels", value="4000"), KeyValue(key="map bytes", value="1500000")]
        entry = DiagnosticStatus(name="ff3r: semantic map", message="mapping, 4000 voxels", values=values)
        self.status.publish(DiagnosticArray(status=[entry]))
        data = np.full((6, 8, 3), (200, 10, 10), dtype=np.uint8)
        self.image.publish(Image(height=6, width=8, encoding="rgb8", step=24, data=data.tobytes()))


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Perception, ViewerNode]]:
    """Both nodes spinning in a thread, on a domain of their own."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = Context()
    rclpy.init(context=context, domain_id=100 + os.getpid() % 100)
    perception = Perception(context)
    perception.say_all()  # before the viewer is there: the topics are latched
    viewer = ViewerNode(context=context, parameter_overrides=[Parameter("port", value=0)])
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(perception)
    executor.add_node(viewer)
    thread = threading.Thread(target=executor.spin)
    thread.start()
    yield perception, viewer
    executor.shutdown()
    thread.join()
    viewer.destroy_node()
    perception.destroy_node()
    rclpy.shutdown(context=context)


@needs_browser
def test_node_shows_what_is_published_and_sends_queries(nodes: tuple[Perception, ViewerNode], browser: Browser) -> None:
    perception, node = nodes
    browser.call("Page.navigate", url=node.viewer.url)
    wait_for(lambda: "chair · 400 voxels" in browser.text(), 60)
    wait_for(lambda: (perception.say_what_is_not_latched(), "map bytes: 1.5 MB" in browser.text())[1])
    assert "mapping, 4000 voxels" in browser.text() and "lamp · 0 voxels" in browser.text()
    wait_for(lambda: near(browser.pixels(), PALETTE[3]) > 300)
    wait_for(lambda: "Camera" in browser.text())
    browser.type("Find", "red chair")
    browser.click("Search the map")
    wait_for(lambda: perception.asked == ["red chair"])
    browser.click("Remove lamp")
    wait_for(lambda: perception.removed == ["lamp"])
    perception.masks.publish(OccupancyMask(query_id=3, query="chair"))
    perception.queries.publish(QueryList(queries=[Query(id=4, text="lamp")]))
    wait_for(lambda: "chair" not in browser.text())
    wait_for(lambda: near(browser.pixels(), PALETTE[3]) == 0)


def test_node_keeps_a_mask_that_is_ahead_of_its_list(nodes: tuple[Perception, ViewerNode]) -> None:
    perception, node = nodes
    shown: list[Any] = []
    node.viewer.show_queries = shown.append  # type: ignore[method-assign]
    perception.masks.publish(OccupancyMask(query_id=9, query="door", voxel_size=0.1, indices=[1, 2, 3]))
    perception.queries.publish(QueryList(queries=[Query(id=4, text="lamp")]))
    wait_for(lambda: shown and [query.id for query in shown[-1]] == [4])
    perception.queries.publish(QueryList(queries=[Query(id=4, text="lamp"), Query(id=9, text="door")]))
    wait_for(lambda: [(query.id, len(query.voxels)) for query in shown[-1]] == [(4, 0), (9, 1)])
