"""Time-outs for clients that send slowly, so that they cannot hold the server's connections."""

from __future__ import annotations

import asyncio
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0  # for a request's line and headers
BODY_SECONDS = 20.0  # for a body, and as much more as it needs at the least pace
LEAST_PACE = 50_000  # bytes per second
MOST_CONNECTIONS = 500


class PromptProtocol(H11Protocol):
    """HTTP/1.1 that closes connections whose request takes longer than `HEADER_SECONDS` to begin."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Await the first request."""
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Await nothing more."""
        self._forget()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; where it begins a further request, its headers are awaited."""
        if self._deadline is None and self.cycle is not None and self.cycle.response_complete:
            self._await_headers()
        super().data_received(data)

    def handle_events(self) -> None:
        """Begin a request whose headers are there."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._forget()

    def _await_headers(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Pace:
    """Answers 408 to requests whose body comes too slowly."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request while its body keeps pace."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, size, complete = time.monotonic(), 0, False

        async def in_time() -> Message:
            nonlocal size, complete
            if complete:  # what comes now is the end of the connection, and may take its time
                return await receive()
            left = begun + BODY_SECONDS + size / LEAST_PACE - time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), max(left, 0))
            except TimeoutError:
                raise HTTPException(408, "the request came too slowly", {"Connection": "close"}) from None
            size += len(message.get("body", b""))
            complete = message["type"] != "http.request" or not message.get("more_body")
            return message

        await self.app(scope, in_time, send)
