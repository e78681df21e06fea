"""Messages that the web viewer takes from browsers: which count, which are left out, which end the connection."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff3r_model.visualization.web_messages import MAX_TEXT, MessageRejected, acceptable

CAMERA = {
    "type": "ViewerCameraMessage", "wxyz": [1.0, 0, 0, 0], "position": [0.0, 1, 2], "look_at": [0, 0, 0],
    "up_direction": [0, 0, 1], "fov": 1.2, "near": 0.1, "far": 1000, "image_height": 600, "image_width": 800,
}  # fmt: skip


def value(new: Any, **others: Any) -> dict[str, Any]:
    return {"type": "GuiUpdateMessage", "uuid": "abc", "updates": {"value": new, **others}}


def taken(message: Any) -> bool:
    return acceptable(msgspec.msgpack.encode(message))


@pytest.mark.parametrize("message", [CAMERA, value("chair"), value(True), value(0.4), value(1), value("é" * MAX_TEXT)])
def test_what_the_page_sends_is_taken(message: dict[str, Any]) -> None:
    assert taken(message)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "ShareUrlRequest"},  # publishes the page on the internet
        {"type": "ShareUrlDisconnect"},
        {"type": "FileTransferStartUpload", "source_component_uuid": "a", "transfer_uuid": "b", "filename": "c"},
        {"type": "ScenePointerMessage"},
        {"type": "GuiHtmlMessage", "uuid": "a", "container_uuid": "root", "props": {"content": "<script>"}},
        value("x", content="<script>"),
        {"type": "GuiUpdateMessage", "uuid": "abc", "updates": {"sync_cb": 1}},
        {"type": "GuiUpdateMessage", "uuid": "abc", "updates": {}},
        {"type": "GuiUpdateMessage", "uuid": 5, "updates": {"value": 1}},
        value("é" * (MAX_TEXT + 1)), value(float("nan")), value(float("inf")), value(1e300), value(10**18), value(None),
        value([1, 2]), value(b"bytes"),
        CAMERA | {"wxyz": [1, 0, 0]}, CAMERA | {"position": [0, 0, float("nan")]}, CAMERA | {"fov": "1"},
        CAMERA | {"fov": True}, CAMERA | {"image_height": -1}, CAMERA | {"image_height": 1.5}, CAMERA | {"extra": 1},
        {"type": "ViewerCameraMessage"}, {"type": "Nonsense"}, {"type": ""},
    ],
)  # fmt: skip
def test_all_else_is_left_out(message: dict[str, Any]) -> None:
    assert not taken(message)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x81",
        b"\x91" * 5000 + b"\x90",
        b"\xa1\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x2a",
        b"\x80",
        b"\x81\xa4type\x05",
    ],
)
def test_what_is_no_message_is_rejected(data: bytes) -> None:
    with pytest.raises(MessageRejected):
        acceptable(data)


@pytest.mark.fuzz
@given(st.binary(max_size=200))
def test_any_bytes_are_decided(data: bytes) -> None:
    with contextlib.suppress(MessageRejected):
        assert acceptable(data) in (True, False)


PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=20)
ANY = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@pytest.mark.fuzz
@given(
    kind=st.sampled_from(["ViewerCameraMessage", "GuiUpdateMessage", "Other"]),
    changed=st.sampled_from([*CAMERA, "uuid", "updates"]),
    new=ANY,
)
def test_any_field_is_decided(kind: str, changed: str, new: Any) -> None:
    base = CAMERA if kind == "ViewerCameraMessage" else value(1)
    assert taken(base | {changed: new} | {"type": kind}) in (True, False)
