"""The web viewer against browsers and others: raw sockets, floods, slow and silent clients, random bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from ff3r_model.visualization import web_server
from ff3r_model.visualization.web_messages import MAX_MESSAGE_BYTES
from ff3r_model.visualization.web_server import PROTOCOL
from ff3r_model.visualization.web_viewer import Viewer

CAMERA = {
    "type": "ViewerCameraMessage", "wxyz": [1.0, 0, 0, 0], "position": [0.0, 1, 2], "look_at": [0.0, 0, 0],
    "up_direction": [0.0, 0, 1], "fov": 1.2, "near": 0.1, "far": 1000.0, "image_height": 600, "image_width": 800,
}  # fmt: skip


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    viewer = Viewer(0, allowed_hosts=["viewer.example"], on_query=lambda _: None)
    yield viewer
    viewer.close()


@pytest.fixture(autouse=True)
def nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Whatever strangers send, no traceback reaches the terminal."""
    yield
    printed = capfd.readouterr()
    assert printed.out.replace("(viser) Server stopped\n", "") == printed.err == ""


def browser(viewer: Viewer, **options: Any) -> ClientConnection:
    """A websocket as the page opens one."""
    given = {"origin": viewer.url, "subprotocols": [PROTOCOL], "max_size": None, "compression": None} | options
    return connect(viewer.url.replace("http", "ws", 1), **given)


def looks(viewer: Viewer) -> bool:
    """Whether a browser that comes now gets the page and its content."""
    with urllib.request.urlopen(viewer.url, timeout=20) as answer, browser(viewer) as page:
        return answer.status == 200 and len(page.recv(timeout=20)) > 100


def send_raw(viewer: Viewer, data: bytes, wait: float = 5.0) -> bytes:
    """The answer to bytes on a bare connection, up to 64 kB; what came within `wait` seconds where it is kept open."""
    with socket.create_connection(("127.0.0.1", viewer.port), timeout=wait) as bare:
        answer = b""
        with contextlib.suppress(OSError):
            bare.sendall(data)
            while len(answer) < 2**16 and (piece := bare.recv(2**16)):
                answer += piece
    return answer


def get(host: str, target: str = "/", *headers: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode("latin-1")


def status(answer: bytes) -> int:
    return int(answer.split()[1])


def upgrade(host: str, *headers: str, protocol: str = PROTOCOL) -> bytes:
    own = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    return get(host, "/", *own, key, f"Sec-WebSocket-Protocol: {protocol}", *headers)


# Who may look


def test_a_page_by_another_name_gets_nothing(viewer: Viewer) -> None:
    """DNS rebinding: the browser believes that evil.example is this machine."""
    port = viewer.port
    for request in (get, upgrade):
        assert status(send_raw(viewer, request(f"evil.example:{port}"))) == 403
    assert status(send_raw(viewer, upgrade(f"evil.example:{port}", f"Origin: http://evil.example:{port}"))) == 403
    assert b"--allowed-hosts evil.example" in send_raw(viewer, get("evil.example"))


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost"])
def test_a_page_of_another_site_cannot_connect(viewer: Viewer, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        browser(viewer, origin=origin)
    assert refused.value.response.status_code == 403


def test_the_viewers_own_page_and_programs_can(viewer: Viewer) -> None:
    for origin in (viewer.url, "https://viewer.example", None):
        with browser(viewer, origin=origin) as page:
            assert page.recv(timeout=20)
    assert status(send_raw(viewer, get("viewer.example"))) == 200


def test_every_answer_keeps_other_sites_from_framing_the_page(viewer: Viewer) -> None:
    for request in (get("localhost"), get("evil.example"), get("localhost", "/none")):
        answer = send_raw(viewer, request)
        assert b"Content-Security-Policy: frame-ancestors 'self'" in answer and b"nosniff" in answer


@pytest.mark.parametrize(
    "target",
    ["/../web_viewer.py", "/%2e%2e/%2e%2e/a.py", "/..\\..\\__init__.py", "//etc/passwd", "/a%00b", "/" + "a" * 5000],
)
def test_only_files_of_the_page_are_served(viewer: Viewer, target: str) -> None:
    assert status(send_raw(viewer, get("localhost", target))) in (400, 404)


def test_a_version_of_viser_that_serves_otherwise_is_no_viewer() -> None:
    """Rather none than one without checks."""
    unseen = patch.object(web_server, "_serving", lambda _: contextlib.nullcontext([]))
    with unseen, pytest.raises(RuntimeError, match="checks would be passed by"):
        Viewer(0)


# What may be sent


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\r\n\r\n", b"\x16\x03\x01" + bytes(200), b"GET / HTTP/1.0\r\n\r\n", b"GET /" + b"a" * 2**16,
        b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * 2**16,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1000, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        get("localhost", "/", "Accept-Encoding: gzip", "Accept-Encoding: br"), upgrade("localhost", "Origin: a"),
        get("localhost", "/", "Upgrade: h2c", "Upgrade: x"), upgrade("localhost", protocol="viser-v0"),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n", b"\x00" * 2**20,
    ],
)  # fmt: skip
def test_what_no_browser_asks_is_refused(viewer: Viewer, data: bytes) -> None:
    answer = send_raw(viewer, data, wait=0.5)
    assert answer == b"" or 400 <= status(answer) < 600


def test_large_and_malformed_messages_end_their_connection_alone(viewer: Viewer) -> None:
    with browser(viewer) as good:
        for data in (bytes(MAX_MESSAGE_BYTES + 1), b"\xc1", b"", "text", msgspec.msgpack.encode([1])):
            with browser(viewer) as page, pytest.raises(ConnectionClosed):
                page.send(data)
                while True:
                    page.recv(timeout=20)
        good.send(msgspec.msgpack.encode(CAMERA))
        assert good.recv(timeout=20)
    assert looks(viewer)


def test_nobody_publishes_the_page_on_the_internet(viewer: Viewer) -> None:
    with patch.object(viewer._server, "request_share_url") as share, browser(viewer) as page:
        page.send(msgspec.msgpack.encode({"type": "ShareUrlRequest"}))
        page.send(msgspec.msgpack.encode(CAMERA))
        wait_until(lambda: viewer.browsers == 1)
        share.assert_not_called()


def test_a_value_of_the_wrong_kind_harms_nobody(viewer: Viewer) -> None:
    viewer.show_cloud(
        np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32), np.zeros((50, 3), np.uint8), 0.1
    )
    with browser(viewer) as page:
        page.send(msgspec.msgpack.encode(CAMERA))
        for new in ("nan", "x", 1e11, -5, True):
            for control in (viewer._size, viewer._ceiling, viewer._text):
                message = {"type": "GuiUpdateMessage", "uuid": control._impl.uuid, "updates": {"value": new}}
                page.send(msgspec.msgpack.encode(message))
        wait_until(lambda: viewer._text.value == "True")
    assert 0.2 <= viewer._point_scale() <= 2.0
    assert looks(viewer)


def test_a_flood_of_messages_waits() -> None:
    """The network slows the sender down; the server's memory does not grow."""
    viewer = Viewer(0)
    try:
        with browser(viewer) as page:
            message, sent = msgspec.msgpack.encode({"type": "Other", "filling": bytes(15_000)}), []

            def flood() -> None:
                with contextlib.suppress(ConnectionClosed, OSError):
                    while True:
                        page.send(message)
                        sent.append(1)

            threading.Thread(target=flood, daemon=True).start()
            wait_until(lambda: _stands_still(sent))
            assert looks(viewer)
            page.socket.shutdown(socket.SHUT_RDWR)
    finally:
        viewer.close()


def _stands_still(sent: list[int]) -> bool:
    before = len(sent)
    time.sleep(0.2)
    return before > 0 and len(sent) - before < 50


def test_queries_that_wait_are_few() -> None:
    release, asked = threading.Event(), []

    def slow(text: str) -> None:
        asked.append(text)
        release.wait(20)

    viewer = Viewer(0, on_query=slow)
    try:
        viewer._text.value = "chair"
        threads = [threading.Thread(target=viewer._submit) for _ in range(50)]
        for thread in threads:
            thread.start()
        wait_until(lambda: sum(thread.is_alive() for thread in threads) == 8)
        release.set()
        for thread in threads:
            thread.join(20)
        assert asked == ["chair"] * 8
    finally:
        viewer.close()


# How many, how slow


def test_more_browsers_than_allowed_are_told_so(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "MAX_BROWSERS", 2)
    with browser(viewer), browser(viewer), pytest.raises(InvalidStatus) as refused:
        browser(viewer)
    assert refused.value.response.status_code == 503
    wait_until(lambda: looks(viewer))


def test_connections_that_ask_nothing_are_bounded_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "MAX_CONNECTIONS", 5)
    monkeypatch.setattr(web_server, "OPEN_SECONDS", 1.0)
    viewer = Viewer(0)
    try:
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(socket.create_connection(("127.0.0.1", viewer.port))) for _ in range(20)]
            for bare in silent:
                bare.settimeout(10)
                with contextlib.suppress(ConnectionResetError):
                    assert bare.recv(1) == b""
        assert looks(viewer)
    finally:
        viewer.close()


def test_a_browser_that_reads_nothing_holds_up_nobody_and_loses_its_place(
    viewer: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "SEND_SECONDS", 1.0)
    points, colors = np.zeros((100_000, 3), np.float32), np.zeros((100_000, 3), np.uint8)
    with socket.create_connection(("127.0.0.1", viewer.port)) as silent:
        silent.sendall(upgrade("localhost"))
        for step in range(30):  # 45 MB in all, of which the silent one takes nothing
            viewer.show_cloud(points + step, colors, 0.1)
        started = time.monotonic()
        assert looks(viewer)
        assert time.monotonic() - started < 10
        wait_until(lambda: not viewer._server._websock_server._client_state_from_id)


@pytest.mark.fuzz
@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from([get("localhost"), upgrade("localhost"), b"\r\n", b"\x82\x85abcd"])).map(b"".join)
)
def test_random_bytes_harm_nobody(viewer: Viewer, data: bytes) -> None:
    send_raw(viewer, data, wait=0.05)
    assert viewer._server._websock_server._server_thread.is_alive()


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
