"""Time-outs for clients that send slowly, so that they cannot hold the server's connections."""

from __future__ import annotations

import asyncio
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0  # for a request's line and headers
BODY_SECONDS = 20.0  # for a body; every byte received adds the time that it takes at MIN_BYTES_PER_SECOND
MIN_BYTES_PER_SECOND = 50_000
MAX_CONNECTIONS = 500


class HeaderTimeoutProtocol(H11Protocol):
    """HTTP/1.1 that closes connections whose request headers take longer than `HEADER_SECONDS`."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first request's headers."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer of a connection that is closed."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Handle received bytes; the first ones of a further request start the timer for its headers."""
        if self._timer is None and self.cycle is not None and self.cycle.response_complete:
            self._start_timer()
        super().data_received(data)

    def handle_events(self) -> None:
        """Handle parsed events, and stop the timer when a request's headers are complete."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._stop_timer()

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class BodyTimeout:
    """ASGI middleware that answers 408 to requests whose body comes too slowly."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, and raise HTTPException 408 in the application when its body is late."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, size, complete = time.monotonic(), 0, False

        async def receive_in_time() -> Message:
            nonlocal size, complete
            if complete:  # the next message is the end of the connection, for which there is no time limit
                return await receive()
            left = start + BODY_SECONDS + size / MIN_BYTES_PER_SECOND - time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), max(left, 0))
            except TimeoutError:
                raise HTTPException(408, "the request came too slowly", {"Connection": "close"}) from None
            size += len(message.get("body", b""))
            complete = message["type"] != "http.request" or not message.get("more_body")
            return message

        await self.app(scope, receive_in_time, send)
