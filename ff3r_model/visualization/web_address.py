"""Listening address of the web viewer: a socket that is bound before anything is served, and the URLs it answers at."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import socket
import struct
from contextlib import suppress
from pathlib import Path

from ff3r_model.core.errors import UserError

LOCALHOST = "127.0.0.1"
PORTS = 65535
PORTS_TRIED = 100
"""Ports, from the wanted one, before the search for a free one is given up."""
SIOCGIFADDR = 0x8915
"""Linux's ioctl for the IPv4 address of a network interface."""
ADVICE = f"{LOCALHOST} serves this machine alone, 0.0.0.0 everybody on the network"


class AddressError(UserError):
    """An address that cannot be served on; the message shows it and says what can."""


def listen(host: str, port: int) -> socket.socket:
    """A TCP socket that listens on `host`, a name or an address of this machine, at `port` or the next free one.

    Port 0 takes any free one. Raises AddressError.
    """
    if not 0 <= port <= PORTS:
        raise AddressError(f"port {port}: allowed is 0 to {PORTS}, where 0 takes any free one")
    family, address = _resolve(host)
    for candidate in range(port, min(port + PORTS_TRIED, PORTS + 1)):
        try:
            return _bound(family, (address[0], candidate, *address[2:]))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise AddressError(_reason(error, host, candidate)) from error
    raise AddressError(f"port {port} and those after it are in use on {host}: give another one, or 0 for any free one")


def urls(listening: socket.socket, host: str) -> list[str]:
    """Where a browser finds the page; for 0.0.0.0 and :: one URL for each address of this machine."""
    address, port = listening.getsockname()[:2]
    if not ipaddress.ip_address(address.partition("%")[0]).is_unspecified:
        return [_url(host or address, port)]
    own = [LOCALHOST, *_own_addresses(with_ipv6=listening.family == socket.AF_INET6)]
    return [_url(found, port) for found in dict.fromkeys(own)]


def _resolve(host: str) -> tuple[socket.AddressFamily, tuple]:
    """Family and socket address; IPv4 where a name has both."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:  # a label that is empty or too long is a UnicodeError
        raise AddressError(f"the host {host!r} is unknown: {ADVICE}") from error
    if not host:
        raise AddressError(f"the host is empty: {ADVICE}")
    family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, address


def _bound(family: socket.AddressFamily, address: tuple) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # "::" alone serves IPv4 too
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != "::")
        listening.bind(address)
        listening.listen()
    except BaseException:
        listening.close()
        raise
    return listening


def _reason(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRNOTAVAIL:
        return f"the host {host!r} is no address of this machine: {ADVICE}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} is not for ordinary users: give one from 1024 to {PORTS}"
    return f"cannot serve on {host!r}, port {port}: {error.strerror}"


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _own_addresses(with_ipv6: bool) -> list[str]:
    """Of all network interfaces (Linux); without those that only this machine or link can use."""
    found = []
    for _, name in socket.if_nameindex():
        request = struct.pack("256s", name.encode()[:15])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
            found.append(socket.inet_ntoa(fcntl.ioctl(probe, SIOCGIFADDR, request)[20:24]))
    if with_ipv6:
        with suppress(OSError):
            lines = Path("/proc/net/if_inet6").read_text().splitlines()
            found += [str(ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))) for line in lines]
    addresses = map(ipaddress.ip_address, found)
    return [str(address) for address in addresses if not address.is_loopback and not address.is_link_local]
