"""Listening address of the web viewer: what it binds, which URLs it names, and what it refuses in one line."""

from __future__ import annotations

import errno
import socket
import struct
from pathlib import Path

import pytest

from ff3r_model.visualization import web_address
from ff3r_model.visualization.web_address import AddressError, listen, urls

HAS_IPV6 = Path("/proc/net/if_inet6").exists() and bool(Path("/proc/net/if_inet6").read_text())


def refusal(host: str, port: int) -> str:
    with pytest.raises(AddressError) as caught:
        listen(host, port).close()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("port", [70000, 65536, -1])
def test_a_port_out_of_range_is_named(port: int) -> None:
    assert f"port {port}: allowed is 0 to 65535" in refusal("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
def test_an_address_of_another_machine_is_named(host: str) -> None:
    text = refusal(host, 8102)
    assert f"the host {host!r} is no address of this machine" in text and "0.0.0.0" in text


@pytest.mark.parametrize("host", ["nosuchhost.invalid", "a..b", "x" * 300, "1.2.3.4.5", "", "http://localhost", "::g"])
def test_an_unknown_name_is_named(host: str) -> None:
    text = refusal(host, 8102)
    assert "unknown" in text or "empty" in text


def test_a_port_for_root_alone_is_told_apart_from_one_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(web_address, "_bound", denied)
    assert "port 80 is not for ordinary users: give one from 1024" in refusal("127.0.0.1", 80)


def test_a_port_in_use_gives_the_next() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with listen("127.0.0.1", port) as second:
            assert port < second.getsockname()[1] <= port + web_address.PORTS_TRIED


def test_the_last_port_in_use_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_: object) -> socket.socket:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(web_address, "_bound", taken)
    assert "port 65530 and those after it are in use" in refusal("127.0.0.1", 65530)


def test_a_name_of_this_machine_is_the_url() -> None:
    with listen("localhost", 0) as bound:
        assert urls(bound, "localhost") == [f"http://localhost:{bound.getsockname()[1]}"]


@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 on this machine")
def test_an_ipv6_address_stands_in_brackets() -> None:
    with listen("::1", 0) as bound:
        assert urls(bound, "::1") == [f"http://[::1]:{bound.getsockname()[1]}"]


def test_every_address_of_the_machine_is_a_url_that_answers() -> None:
    with listen("0.0.0.0", 0) as bound:
        named = urls(bound, "0.0.0.0")
        assert named[0] == f"http://127.0.0.1:{bound.getsockname()[1]}" and len(set(named)) == len(named)
        for url in named:
            host, port = url.removeprefix("http://").rsplit(":", 1)
            socket.create_connection((host, int(port)), timeout=5).close()


@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 on this machine")
def test_the_unspecified_ipv6_address_serves_ipv4_too() -> None:
    with listen("::", 0) as bound:
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, bound.getsockname()[1]), timeout=5).close()
        assert urls(bound, "::")[0] == f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_addresses_of_the_network_are_among_the_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {"eth0": "10.1.2.3", "lo": "127.0.0.1", "wlan0": "192.168.7.8"}
    monkeypatch.setattr(web_address.socket, "if_nameindex", lambda: list(enumerate([*addresses, "down0"])))

    def ioctl(_: object, __: int, request: bytes) -> bytes:
        name = struct.unpack("256s", request)[0].rstrip(b"\0").decode()
        if name not in addresses:
            raise OSError(errno.EADDRNOTAVAIL, "no address")
        return bytes(20) + socket.inet_aton(addresses[name]) + bytes(232)

    monkeypatch.setattr(web_address.fcntl, "ioctl", ioctl)
    with listen("0.0.0.0", 0) as bound:
        port = bound.getsockname()[1]
        expected = [f"http://{host}:{port}" for host in ("127.0.0.1", "10.1.2.3", "192.168.7.8")]
        assert urls(bound, "0.0.0.0") == expected
