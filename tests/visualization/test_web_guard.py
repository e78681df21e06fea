"""Host and Origin checks of the web viewer: which pages may read it, by which names it goes."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff3r_model.visualization.web_address import AddressError
from ff3r_model.visualization.web_guard import Guard, guard

LOCAL = guard("127.0.0.1")


def refused(host: str, *origins: str, target: str = "/", guard: Guard = LOCAL) -> bool:
    return guard.refusal([host], origins, target) is not None


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8080",
        "127.0.0.1",
        "localhost:8080",
        "LOCALHOST",
        "localhost.:80",
        "[::1]:80",
        "10.0.0.4",
        "a.localhost",
    ],
)
def test_this_machine_and_addresses_are_known(host: str) -> None:
    assert not refused(host) and not refused(host, f"http://{host}")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example/1.2.3.4",
        "user@localhost", "localhost:8080@evil.example", "localhost:x", "localhost:123456", "[::1", "::1", "", " ",
        "a b", "127.0.0.1,evil.example", "127.0.0.1\tx", "2130706433", "0x7f.1", "notlocalhost", "[evil.example]",
    ],
)  # fmt: skip
def test_a_name_that_somebody_else_may_own_is_refused(host: str) -> None:
    """The name of a DNS rebinding among them."""
    assert refused(host)


def test_a_refusal_says_how_to_allow_the_name() -> None:
    text = LOCAL.refusal(["robot.example:8080"], [], "/")
    assert text is not None and "--allowed-hosts robot.example" in text and "allowed_hosts" in text
    assert not refused("robot.example:8080", "http://robot.example:8080", guard=guard("127.0.0.1", ["Robot.example"]))


def test_requests_without_one_host_are_refused() -> None:
    assert LOCAL.refusal([], [], "/") is not None
    assert LOCAL.refusal(["localhost", "localhost"], [], "/") is not None


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example", "https://evil.example:8080", "null", "", "file://", "http://localhost:3000", "http://localhost",
        "http://127.0.0.1:8080", "ftp://localhost:8080", "chrome-extension://abc", "http://localhost:8080.evil.example",
        "http://localhost:8080/", "http://evil.example#localhost:8080", "http://user@localhost:8080",
    ],
)  # fmt: skip
def test_pages_of_other_origins_may_not_connect(origin: str) -> None:
    """Other ports of this machine among them: what listens there may show anybody's pages."""
    assert refused("localhost:8080", origin)


def test_two_origins_are_refused() -> None:
    assert refused("localhost:8080", "http://localhost:8080", "http://localhost:8080")


def test_a_proxy_in_front_is_an_allowed_host() -> None:
    behind = guard("127.0.0.1", ["viewer.example"])
    assert not refused("127.0.0.1:8080", "https://viewer.example", guard=behind)
    assert refused("127.0.0.1:8080", "https://evil.example", guard=behind)


def test_names_of_the_machine_count_where_the_network_may_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Robot.lab.example")
    everybody = guard("0.0.0.0")
    for name in ("robot", "robot.local:8080", "robot.lab.example"):
        assert not refused(name, guard=everybody) and refused(name)
    assert refused("other.local", guard=everybody)
    assert not refused("mapper.lab.example", guard=guard("mapper.lab.example"))


@pytest.mark.parametrize("name", ["http://robot.example", "robot.example:80", "a b", "", "*", "robot/"])
def test_an_allowed_host_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(AddressError, match="the allowed host"):
        guard("127.0.0.1", [name])


@pytest.mark.parametrize("target", ["/?websocket=ws://evil.example", "/?a=1&playbackPath=//x", "/i.html?%77ebsocket"])
def test_the_page_shows_no_other_servers_content(target: str) -> None:
    assert refused("localhost:8080", target=target)
    assert not refused("localhost:8080", target="/?darkMode&showStats")


@pytest.mark.fuzz
@given(host=st.text(max_size=30), origin=st.text(max_size=30), target=st.text(max_size=30))
def test_any_text_is_decided(host: str, origin: str, target: str) -> None:
    """No error, and an origin that is accepted is the host's own."""
    if not refused(host, origin, target=target):
        assert origin.partition("://")[2].lower() == host.lower()
