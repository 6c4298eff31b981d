"""Who is let in: requests are judged by their headers, before anything of their body is read."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raylift.server.settings import LOOPBACK, Settings

COOKIE = "raylift_session"
API = "/api/"
OPEN = ("/api/health", "/api/login")  # what asks for no token
WRONG_TOKENS = 10  # that an address may bring before it has to wait
WAIT_SECONDS = 60.0
ADDRESSES = 10_000  # that are remembered
DRAINED = 2**20  # bytes of a refused request's body that are read, so that it hears the answer
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self' data: blob:; "
    "frame-ancestors 'none'"
)


class Refusal(Exception):
    """A request that is not let in: status, one sentence, and headers of the answer."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers or {}


class Tokens:
    """Knows the server's token, and who tries to guess it.

    An address that brought `WRONG_TOKENS` wrong ones waits for `WAIT_SECONDS` after the last, whatever it brings then.
    """

    def __init__(self, token: str | None) -> None:
        self.token = token
        self.wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()  # count and time, by address

    @property
    def cookie(self) -> str:
        """Return what a browser keeps in place of the token."""
        return hmac.digest((self.token or "").encode(), b"raylift session", "sha256").hex()

    def check(self, address: str, brought: str | None, session: str | None = None) -> None:
        """Raise Refusal unless a request brings the token or a session's cookie, or the server has none."""
        if self.token is None:
            return
        count, last = self.wrong.get(address, (0, 0.0))
        left = last + WAIT_SECONDS - time.monotonic()
        if count and left <= 0:
            del self.wrong[address]
            count = 0
        if count >= WRONG_TOKENS:
            raise Refusal(429, "too many wrong tokens; try again later", {"Retry-After": str(int(left) + 1)})
        if brought is not None and hmac.compare_digest(brought.encode(), self.token.encode()):
            return
        if brought is None and session is not None and hmac.compare_digest(session.encode(), self.cookie.encode()):
            return
        if brought is not None or session is not None:
            self.wrong[address] = count + 1, time.monotonic()
            self.wrong.move_to_end(address)
            if len(self.wrong) > ADDRESSES:
                self.wrong.popitem(last=False)
        raise Refusal(401, "bring the server's token", {"WWW-Authenticate": "Bearer"})


class Guard:
    """Lets in requests for this server, of its own page, with its token; and says how browsers may use the answers."""

    def __init__(self, app: ASGIApp, settings: Settings, tokens: Tokens) -> None:
        self.app, self.tokens = app, tokens
        # A name that a stranger points to this machine is refused; where others may come, the token keeps them out.
        self.hosts = {*LOOPBACK, "[::1]"} if settings.host in LOOPBACK else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_headers(scope["path"])]
            await send(message)

        try:
            self._check(scope)
        except Refusal as refusal:
            answer = JSONResponse(
                {"detail": refusal.detail}, refusal.status, {**refusal.headers, "Connection": "close"}
            )
            await _drain(receive)
            await answer(scope, receive, with_headers)
        else:
            await self.app(scope, receive, with_headers)

    def _check(self, scope: Scope) -> None:
        """Raise Refusal for a request that is not let in."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.hosts is not None and _without_port(host) not in self.hosts:
            raise Refusal(400, "this server does not go by that name")
        origin = headers.get("origin")
        if origin and origin.split("://", 1)[-1] != host:
            raise Refusal(403, "a request of another page")
        if scope["path"].startswith(API) and scope["path"] not in OPEN:
            self.tokens.check(address_of(scope), _bearer(headers), _session(headers))


def address_of(scope: Scope) -> str:
    """Return where a request comes from."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _bearer(headers: Headers) -> str | None:
    scheme, _, brought = headers.get("authorization", "").partition(" ")
    return brought.strip() if scheme.lower() == "bearer" else None


def _session(headers: Headers) -> str | None:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return None if morsel is None else morsel.value


def _headers(path: str) -> list[tuple[bytes, bytes]]:
    """Return the headers that every answer has."""
    told = {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Content-Security-Policy": POLICY,
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    if path.startswith(API):
        told["Cache-Control"] = "no-store"
    return [(name.lower().encode(), value.encode()) for name, value in told.items()]


async def _drain(receive: Receive) -> None:
    """Read a little of a body that nobody wants: who still sends does not listen to the answer."""
    size = 0
    while size < DRAINED:
        message = await receive()
        size += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return
