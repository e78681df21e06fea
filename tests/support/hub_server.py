"""A local server that speaks the Hugging Face hub's protocol, serves what it is given, and can go wrong.

As the hub does, it answers for a large file with a redirect to another host, and says in headers what the file is.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CHUNK = 2**14


@dataclass
class Hub:
    """What is served, what goes wrong, and what was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    """By address, owner/name/file."""
    commit: str = "1" * 40
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Status and X-Error-Code by address."""
    cut_after: int | None = None
    """Bytes of a body after which the connection breaks, once."""
    pause: float = 0.0
    """Seconds between pieces of a body."""
    damage: bool = False
    """Bodies are not what the headers say."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, address and Range of every request for a body or a head."""
    tokens: list[str] = field(default_factory=list)
    """Authorization of each request to the hub itself, and of each to the other host, marked."""
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bodies(self) -> list[tuple[str, str]]:
        """Address and Range of every body that was asked for, at the host that has them."""
        return [(address, sent) for method, address, sent in self.asked if method == "BODY"]


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve `hub` until the end of the body."""

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_GET(self) -> None:
        self._answer("GET")

    def _answer(self, method: str) -> None:
        if self.path.startswith("/blob/"):
            self.served.tokens.append(f"blob {self.headers.get('Authorization', '')}")
            self._body(self.path.removeprefix("/blob/"))
            return
        self.served.tokens.append(self.headers.get("Authorization", ""))
        owner, _, rest = self.path.strip("/").partition("/resolve/")
        address = f"{owner}/{rest.partition('/')[2]}"
        self.served.asked.append((method, address, self.headers.get("Range", "")))
        if address in self.served.refuse or address not in self.served.files:
            self._refuse(*self.served.refuse.get(address, (404, "EntryNotFound")))
            return
        content = self.served.files[address]
        self.send_response(302)
        self.send_header("X-Repo-Commit", self.served.commit)
        self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Location", f"http://localhost:{self.served.port}/blob/{address}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Repo-Commit", self.served.commit)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", "refused")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _body(self, address: str) -> None:
        hub, content, sent = self.served, self.served.files[address], self.headers.get("Range", "")
        hub.asked.append(("BODY", address, sent))
        start = int(sent.removeprefix("bytes=").removesuffix("-")) if sent else 0
        self.send_response(206 if sent else 200)
        if sent:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if hub.damage:
            content = content[:-1] + bytes([content[-1] ^ 1])
        end, hub.cut_after = hub.cut_after, None
        for place in range(start, len(content) if end is None else end, CHUNK):
            try:
                self.wfile.write(content[place : place + CHUNK])
                self.wfile.flush()
            except OSError:
                return
            time.sleep(hub.pause)
        if end is not None:
            self.close_connection = True
