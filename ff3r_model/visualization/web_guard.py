"""Host and Origin checks of the web viewer, so that no other web page in the user's browser reads it.

A page of another site can open a websocket to any address (cross-site websocket hijacking), and a site whose name is
made to point to this machine (DNS rebinding) even counts as the same site. Browsers say in `Origin` whose page asks,
and in `Host` by which name; neither can be forged by a page.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from ff3r_model.visualization.web_address import AddressError

AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(:(?P<port>[0-9]{1,5}))?")
"""Of RFC 3986, without a user."""
FOREIGN_CONTENT = {"websocket", "playbackPath"}
"""Parameters by which the page would show, as its own, what another server sends."""
SHOWN = 100
"""Letters of a foreign header that a refusal repeats."""


@dataclass(frozen=True)
class Guard:
    """Decides which requests are answered."""

    names: frozenset[str]
    """Host names, lower case, beside localhost and literal addresses, which nobody can make point elsewhere."""
    allowed: frozenset[str]
    """Those of them that the user has named: their pages may connect though they come through another server."""

    def refusal(self, hosts: Sequence[str], origins: Sequence[str], target: str) -> str | None:
        """Why a request is refused, or None: its Host and Origin headers, and its target (path and query)."""
        host = _host(hosts[0]) if len(hosts) == 1 else None
        if host is None:
            return f"the Host header {_shown(hosts)} is none"
        if not self._known(host):
            return (
                f"this viewer does not go by the name {host}: where it is one of its names, "
                f"say so with --allowed-hosts {host} (of the node: the parameter allowed_hosts)"
            )
        if origins and not self._same_site(origins, hosts[0]):
            return f"a page of {_shown(origins)} may not use this viewer"
        if foreign := FOREIGN_CONTENT & _parameters(target):
            return f"this viewer shows its own map alone: {', '.join(sorted(foreign))} is not for it"
        return None

    def _known(self, host: str) -> bool:
        return host == "localhost" or host.endswith(".localhost") or _is_address(host) or host in self.names

    def _same_site(self, origins: Sequence[str], host: str) -> bool:
        """Whether the page that asks came from here, or from a server in front of this one."""
        scheme, _, authority = origins[0].partition("://")
        if len(origins) != 1 or scheme not in ("http", "https"):
            return False
        return authority.lower() == host.lower() or _host(authority) in self.allowed


def guard(host: str, allowed_hosts: Iterable[str] = ()) -> Guard:
    """For a viewer that serves on `host`. Raises AddressError for an allowed host that is no name or address."""
    allowed = set()
    for name in allowed_hosts:
        found = _host(name)
        if found is None or AUTHORITY.fullmatch(name)["port"]:  # type: ignore[index]  # it has matched
            raise AddressError(
                f"the allowed host {name!r} is no name: give it as in a browser, without http:// and port"
            )
        allowed.add(found)
    own = set() if host.startswith("127.") or host in ("localhost", "::1") else {host.lower(), *_machine_names()}
    return Guard(frozenset(own | allowed), frozenset(allowed))


def _machine_names() -> set[str]:
    """By which others on the network may know this machine."""
    name = socket.gethostname().lower()
    return {name, name.partition(".")[0], f"{name.partition('.')[0]}.local"} - {""}


def _host(authority: str) -> str | None:
    """The host of "host:port", lower case, without brackets and the root's dot; None where it is none."""
    match = AUTHORITY.fullmatch(authority)
    return match["host"].lower().strip("[]").removesuffix(".") or None if match else None


def _parameters(target: str) -> set[str]:
    """Names of the parameters in a request's target."""
    return {key for key, _ in parse_qsl(target.partition("?")[2], keep_blank_values=True)}


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _shown(headers: Sequence[str]) -> str:
    return repr(", ".join(headers)[:SHOWN])
