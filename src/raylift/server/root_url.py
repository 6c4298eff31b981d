"""The address at which users see a server that is behind a proxy."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import AnyHttpUrl, ValidationError

from raylift.errors import WrongUsage

HOST = r"[a-z0-9._-]+|\[[0-9a-f:.]+\]"
FORM = re.compile(rf"(?P<origin>https?://(?P<host>{HOST})(:[0-9]+)?)(?P<path>(/[A-Za-z0-9._~-]+)*)/?")
REMEDY = (
    "give http:// or https://, a name, a port and a prefix if there are any, as in https://xray.example.org/raylift"
)


@dataclass(frozen=True)
class RootUrl:
    """The address of the server's page in users' browsers, where that of the proxy in front of it is another one.

    Args:
        origin: scheme, host name and port, as browsers send it in the header Origin: without a default port.
        host: the host name, or the address, an IPv6 one in brackets.
        path: the prefix of all paths, like "/raylift"; empty if there is none.
    """

    origin: str
    host: str
    path: str

    @classmethod
    def parse(cls, text: str) -> RootUrl:
        """Return the address that --root-url names, normalised as browsers do it.

        Raises:
            WrongUsage: it is no address of HTTP, or one with a user, a query or a fragment.
        """
        try:
            url = AnyHttpUrl(text)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Input should be a valid URL, ")
            raise WrongUsage(f"--root-url {text}: no address ({reason}); {REMEDY}") from None
        form = FORM.fullmatch(str(url))
        if form is None:
            # A user's password is not repeated.
            raise WrongUsage(f"--root-url: an address with a user, a query or other special characters; {REMEDY}")
        return cls(form["origin"], form["host"], form["path"])

    @property
    def encrypted(self) -> bool:
        """Whether browsers reach the proxy through TLS."""
        return self.origin.startswith("https:")

    def __str__(self) -> str:
        return f"{self.origin}{self.path}/"
