"""Web server of the viewer: viser's, behind checks of who asks and bounds on what is sent."""

from __future__ import annotations

import asyncio
import http
import io
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from typing import Any

import viser
import websockets.asyncio.server as websockets_server
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from ff3r_model.visualization.web_guard import Guard
from ff3r_model.visualization.web_messages import MAX_MESSAGE_BYTES, MessageRejected, acceptable

log = logging.getLogger(__name__)

MAX_BROWSERS = 16
MAX_CONNECTIONS = 64
"""Of TCP, those included that have not asked for anything yet."""
OPEN_SECONDS = 20.0
"""Within which a request must be there, and its answer taken."""
CLOSE_SECONDS = 1.0
"""For a browser's goodbye."""
SEND_SECONDS = 60.0
"""Within which a browser must take a message; the largest, a whole cloud, has 5 MB."""
MESSAGES_PER_SECOND = 60.0
"""Of one browser; what is above waits, the network then slows the browser down."""
BURST = 120
HEADERS = {"Content-Security-Policy": "frame-ancestors 'self'", "X-Content-Type-Options": "nosniff"}
"""Of every answer: no other site shows the page inside its own."""

PROTOCOL = f"viser-v{viser.__version__}"
"""What the page's websocket asks for."""

_patching = threading.Lock()

Handler = Callable[[ServerConnection], Awaitable[None]]
Answer = Callable[[ServerConnection, Request], Response | None]


def open_server(listening: socket.socket, guard: Guard, label: str) -> viser.ViserServer:
    """viser's server on a socket that listens already."""
    host, port = listening.getsockname()[:2]
    with redirect_stdout(io.StringIO()):  # viser prints a banner whatever it is told
        with _serving(partial(_serve, listening, guard)) as served:
            server = viser.ViserServer(host=host, port=port, label=label, verbose=False)
        if not served:
            server.stop()
    if not served:
        raise RuntimeError("this version of viser serves in another way, and the viewer's checks would be passed by")
    return server


class BoundedConnection(ServerConnection):
    """A connection that gives viser only messages that it may have, and not too many at once."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._credit, self._counted = float(BURST), self.loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio. One too many is closed at once."""
        super().connection_made(transport)
        if len(self.server.handlers) > MAX_CONNECTIONS:
            self.transport.abort()

    async def recv(self, decode: bool | None = None) -> Any:
        """The next message that counts."""
        while True:
            message = await super().recv(decode)
            await self._pace()
            if not isinstance(message, bytes):
                raise MessageRejected("text instead of bytes")
            if acceptable(message):
                return message

    async def send(self, message: Any, text: bool | None = None) -> None:
        """Send, to a browser that takes it; one that does not would keep its place for ever."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await super().send(message, text)
        except TimeoutError:
            self.transport.abort()
            raise

    async def _pace(self) -> None:
        """Wait until one more message is due."""
        now = self.loop.time()
        self._credit = min(float(BURST), self._credit + (now - self._counted) * MESSAGES_PER_SECOND) - 1.0
        self._counted = now
        if self._credit < 0:
            await asyncio.sleep(-self._credit / MESSAGES_PER_SECOND)


@contextmanager
def _serving(replacement: Callable[..., serve]) -> Iterator[list[Any]]:
    """For as long as this lasts viser's call of `websockets.asyncio.server.serve` is one of `replacement`.

    viser has no way to hand it a socket or a check. Gives the list of what was served.
    """
    served: list[Any] = []

    def called(*arguments: Any, **options: Any) -> serve:
        served.append(replacement(*arguments, **options))
        return served[-1]

    with _patching:
        websockets_server.serve = called  # type: ignore[misc, assignment]
        try:
            yield served
        finally:
            websockets_server.serve = serve  # type: ignore[misc]


def _serve(listening: socket.socket, guard: Guard, handler: Handler, host: str, port: int, **options: Any) -> serve:
    """As viser serves, on the socket and with the checks; called in the server's own thread."""
    asyncio.get_running_loop().set_exception_handler(_note)
    answer: Answer = options.pop("process_request")
    bounds = {"max_size": MAX_MESSAGE_BYTES, "open_timeout": OPEN_SECONDS, "close_timeout": CLOSE_SECONDS}
    return serve(
        partial(_handle, handler),
        sock=listening,
        process_request=partial(_answer, guard, answer),
        process_response=_harden,
        logger=_quiet(),
        create_connection=BoundedConnection,
        **(options | bounds),
    )


async def _handle(handler: Handler, connection: ServerConnection) -> None:
    """A browser's connection, until it ends or sends what it may not."""
    try:
        await handler(connection)
    except (ConnectionClosed, TimeoutError):
        pass
    except MessageRejected as rejection:
        log.debug("a browser was disconnected: %s", rejection)
        await connection.close(CloseCode.POLICY_VIOLATION, "no message of this page")


def _answer(guard: Guard, answer: Answer, connection: ServerConnection, request: Request) -> Response | None:
    """The answer to a request; None goes on to the websocket."""
    headers = request.headers
    refused = guard.refusal(headers.get_all("Host"), headers.get_all("Origin"), request.path)
    if refused is not None:
        log.debug("request refused: %s", refused)
        return connection.respond(http.HTTPStatus.FORBIDDEN, f"{refused}\n")
    if any("websocket" in value.lower() for value in headers.get_all("Upgrade")):
        return _answer_upgrade(connection, headers.get_all("Sec-WebSocket-Protocol"))
    try:
        return answer(connection, request)
    except (LookupError, ValueError, OSError):  # a header given twice, a path that cannot be one
        return connection.respond(http.HTTPStatus.BAD_REQUEST, "no request that a browser makes\n")


def _answer_upgrade(connection: ServerConnection, protocols: Sequence[str]) -> Response | None:
    if PROTOCOL not in {name.strip() for value in protocols for name in value.split(",")}:
        return connection.respond(http.HTTPStatus.BAD_REQUEST, f"load the page again: this viewer speaks {PROTOCOL}\n")
    if len(connection.server.connections) >= MAX_BROWSERS:
        return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{MAX_BROWSERS} browsers look already\n")
    return None


def _harden(connection: ServerConnection, request: Request, response: Response) -> None:
    response.headers.update(HEADERS)


def _note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What failed in the server's thread: what a browser sent did not fit a control, or it went away meanwhile."""
    log.debug("web server: %s", context.get("exception") or context["message"])


def _quiet() -> logging.Logger:
    """websockets' own log shows a traceback for every request that is none."""
    logger = logging.getLogger(f"{__name__}.websockets")
    logger.setLevel(logging.CRITICAL + 1)
    return logger
