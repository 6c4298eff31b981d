"""Access control: requests are checked by their headers, before their body is read."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raylift.server.settings import LOOPBACK, LOOPBACK_HOSTS, ServerSettings

COOKIE = "raylift_session"
API_PREFIX = "/api/"
PUBLIC_PATHS = ("/api/health", "/api/login")  # need no token
MAX_WRONG_TOKENS = 10  # from one address, before it has to wait
REFUSED_SECONDS = 60.0
MAX_ADDRESSES = 10_000  # whose wrong tokens are counted at a time
REMEDY = "if users reach it by that name through a proxy, start it with --root-url and the address that they see"
MAX_DRAINED_BYTES = 2**20  # of a refused request's body, so that the client reads the answer
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self' data: blob:; "
    "frame-ancestors 'none'"
)


class Refusal(Exception):
    """Raised for a request that is refused.

    Args:
        status: HTTP status of the answer.
        detail: why it is refused, in one sentence.
        headers: headers of the answer.
    """

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers or {}


class Tokens:
    """Checks the token of requests, and refuses addresses that try to guess it.

    An address that sent `MAX_WRONG_TOKENS` wrong tokens is refused for `REFUSED_SECONDS` after the last one, even with
    the right token.

    Args:
        token: the server's token; None lets everybody in.
    """

    def __init__(self, token: str | None) -> None:
        self.token = token
        self.wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()  # count and time, by address

    @property
    def cookie(self) -> str:
        """The value of the cookie that browsers store in place of the token."""
        return hmac.digest((self.token or "").encode(), b"raylift session", "sha256").hex()

    def check(self, address: str, token: str | None, cookie: str | None = None) -> None:
        """Check that a request has the token or the cookie, if the server has a token.

        Args:
            address: the client's address.
            token: the token that the request sent.
            cookie: the cookie that the request sent.

        Raises:
            Refusal: neither is right, or the address sent too many wrong ones.
        """
        if self.token is None:
            return
        count, last = self.wrong.get(address, (0, 0.0))
        left = last + REFUSED_SECONDS - time.monotonic()
        if count and left <= 0:
            del self.wrong[address]
            count = 0
        if count >= MAX_WRONG_TOKENS:
            raise Refusal(429, "too many wrong tokens; try again later", {"Retry-After": str(int(left) + 1)})
        if token is not None and hmac.compare_digest(token.encode(), self.token.encode()):
            return
        if token is None and cookie is not None and hmac.compare_digest(cookie.encode(), self.cookie.encode()):
            return
        if token is not None or cookie is not None:
            self.wrong[address] = count + 1, time.monotonic()
            self.wrong.move_to_end(address)
            if len(self.wrong) > MAX_ADDRESSES:
                self.wrong.popitem(last=False)
        raise Refusal(401, "this server needs its token", {"WWW-Authenticate": "Bearer"})


class Guard:
    """ASGI middleware that refuses requests for another host, from another page or without the token.

    It also adds the headers that tell browsers how they may use the answers.

    Args:
        app: the application to protect.
        settings: the server's settings.
        tokens: checks the requests' tokens.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, tokens: Tokens) -> None:
        self.app, self.tokens = app, tokens
        # At a loopback address, refuse host names that somebody else points to it (DNS rebinding). At other addresses,
        # the token protects the server.
        self.hosts = {*LOOPBACK, *LOOPBACK_HOSTS} if settings.host in LOOPBACK else None
        self.root_url = settings.root_url
        if self.hosts is not None and self.root_url is not None:
            self.hosts.add(self.root_url.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or answer why it is refused."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return

        path = _route_path(scope)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_security_headers(path)]
            await send(message)

        try:
            self._check(scope, path)
        except Refusal as refusal:
            answer = JSONResponse(
                {"detail": refusal.detail}, refusal.status, {**refusal.headers, "Connection": "close"}
            )
            await _drain(receive)
            await answer(scope, receive, with_headers)
        else:
            await self.app(scope, receive, with_headers)

    def _check(self, scope: Scope, path: str) -> None:
        """Check a request's host, origin, path without prefix, and token.

        Raises:
            Refusal: the request is for another host name, from another page, without a path, or without the token.
        """
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.hosts is not None and _without_port(host) not in self.hosts:
            raise Refusal(400, f"this server has another host name; {REMEDY}")
        origin = headers.get("origin")
        if origin and not self._is_own_page(origin, host):
            raise Refusal(403, f"the request comes from another web page; {REMEDY}")
        if not path.startswith("/"):  # "GET pi/jobs" behind the prefix "/a" is no request for /api/jobs
            raise Refusal(404, "no such page")
        if path.startswith(API_PREFIX) and path not in PUBLIC_PATHS:
            self.tokens.check(address_of(scope), _bearer_token(headers), _session_cookie(headers))

    def _is_own_page(self, origin: str, host: str) -> bool:
        """Return whether a request comes from this server's page, by its headers Origin and Host.

        A proxy may keep the Host that the browser sent, or put the server's own in its place. So the page that users
        see is known by its origin, and it is the only one at its name; other names have to agree in both headers.
        """
        if self.root_url is not None:
            if origin == self.root_url.origin:
                return True
            if _without_port(host) == self.root_url.host not in LOOPBACK_HOSTS:
                return False
        return origin.split("://", 1)[-1] == host


def address_of(scope: Scope) -> str:
    """Return the address of a request's client."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _route_path(scope: Scope) -> str:
    """Return a request's path without the prefix under which users see the server."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _bearer_token(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _session_cookie(headers: Headers) -> str | None:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return None if morsel is None else morsel.value


def _security_headers(path: str) -> list[tuple[bytes, bytes]]:
    """Return the headers that are added to every answer."""
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    if path.startswith(API_PREFIX):
        headers["Cache-Control"] = "no-store"
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


async def _drain(receive: Receive) -> None:
    """Read the start of a refused request's body, since many clients read no answer while they still send."""
    size = 0
    while size < MAX_DRAINED_BYTES:
        message = await receive()
        size += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return
