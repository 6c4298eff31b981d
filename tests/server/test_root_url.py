"""The address that users see: as it is given, and as browsers name it."""

from pathlib import Path

import pytest

from raylift.errors import WrongUsage
from raylift.server.root_url import RootUrl
from raylift.server.settings import ServerSettings


@pytest.mark.parametrize(
    ("text", "origin", "host", "path"),
    [
        ("https://xray.example.org", "https://xray.example.org", "xray.example.org", ""),
        ("HTTPS://XRay.Example.org:443/", "https://xray.example.org", "xray.example.org", ""),
        ("http://xray.example.org:80/raylift", "http://xray.example.org", "xray.example.org", "/raylift"),
        ("http://xray.example.org:443/a/b-1/", "http://xray.example.org:443", "xray.example.org", "/a/b-1"),
        ("https://[2001:DB8::1]:8443/x", "https://[2001:db8::1]:8443", "[2001:db8::1]", "/x"),
        ("https://bücher.example/", "https://xn--bcher-kva.example", "xn--bcher-kva.example", ""),
    ],
)
def test_an_address_as_browsers_name_it(text: str, origin: str, host: str, path: str) -> None:
    assert RootUrl.parse(text) == RootUrl(origin, host, path)
    assert str(RootUrl.parse(text)) == f"{origin}{path}/"
    assert RootUrl.parse(text).encrypted == text.lower().startswith("https")


@pytest.mark.parametrize(
    "text",
    [
        "", "/raylift", "xray.example.org", "xray.example.org:8000", "ftp://xray.example.org", "file:///etc/passwd",
        "javascript:alert(1)", "https://", "https://anna@xray.example.org", "https://anna:secret@xray.example.org",
        "https://xray.example.org?", "https://xray.example.org/?a=b", "https://xray.example.org/#", "https://*.example.org",
        "https://xray.example.org:99999", "https://xray.example.org//raylift", "https://xray.example.org/a%2fb",
        "https://xray.example.org/a b", "https://xray.example.org/a;b", "https://xray.example.org, https://b.example",
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(WrongUsage, match=r"^--root-url.*give http:// or https://") as raised:
        RootUrl.parse(text)
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_an_address_of_others_needs_a_token(tmp_path: Path) -> None:
    seen = RootUrl.parse("https://xray.example.org/raylift")
    with pytest.raises(WrongUsage, match=r"--root-url https://xray.example.org/raylift/: others .* give --token-file"):
        ServerSettings(tmp_path, root_url=seen)
    assert ServerSettings(tmp_path, root_url=seen, token="0123456789abcdef").root_url == seen
    for own in ("http://localhost:8080", "http://127.0.0.1/raylift", "https://[::1]"):
        assert ServerSettings(tmp_path, root_url=RootUrl.parse(own)).token is None
