"""Behind nginx and Caddy, with the lines of the how-to: everything works by the outer name, and by no other."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from uploads import TWO_VIEWS, picture, uploads

from live_server import Server
from radiograph_files import grey
from raylift.io.volumes import read_volume
from raylift.server.app import PAGE
from raylift.server.guard import COOKIE, MAX_WRONG_TOKENS
from repository import ROOT

NAME = "xray.example.org"
TOKEN = "0123456789abcdef"
PREFIXES = ("", "/raylift")
BLOCKS = re.findall(r"^```(nginx|caddy)\n(.*?)^```$", (ROOT / "docs" / "how-to.md").read_text(), re.M | re.S)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def program(name: str) -> str:
    """The path of a proxy's program; Debian's nginx is not on every user's PATH."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    return found or pytest.skip(f"needs {name}")


def nginx(folder: Path, port: int, server: Server, prefix: str) -> list[str]:
    """The how-to's lines as they are, but for TLS, in a configuration that needs no file of the system."""
    (lines,) = (text for name, text in BLOCKS if name == "nginx")
    lines = re.sub(r"^ *ssl_.*\n", "", lines.replace("listen 443 ssl", f"listen 127.0.0.1:{port}"), flags=re.M)
    lines = lines.replace(":8000/", f":{server.port}/").replace("location /", f"location {prefix}/")
    user = "user root;" if os.geteuid() == 0 else ""  # otherwise its workers could not enter this folder
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{ worker_connections 64; }}\nhttp {{\naccess_log off;\n{places}{lines}}}\n"
    )
    return [program("nginx"), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]


def nginx_without_host(folder: Path, port: int, server: Server, prefix: str) -> list[str]:
    """As above, but the proxy puts the server's own address into the header Host, as nginx does by default."""
    command = nginx(folder, port, server, prefix)
    text = (folder / "nginx.conf").read_text()
    (folder / "nginx.conf").write_text(text.replace("proxy_set_header Host $host;", ""))
    assert (folder / "nginx.conf").read_text() != text
    return command


def caddy(folder: Path, port: int, server: Server, prefix: str) -> list[str]:
    """The how-to's lines as they are, but for TLS."""
    plain, prefixed = (text for name, text in BLOCKS if name == "caddy")
    lines = (prefixed if prefix else plain).replace(":8000", f":{server.port}")
    lines = lines.replace(f"{NAME} {{", f"http://{NAME}:{port} {{\n    bind 127.0.0.1", 1)
    (folder / "Caddyfile").write_text("{\n    admin off\n    auto_https off\n}\n" + lines)
    return [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


@contextmanager
def running(command: list[str], folder: Path, port: int) -> Iterator[None]:
    """Start a proxy, and stop it after the block."""
    environment = {name: str(folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            for _ in range(100):
                assert process.poll() is None, (folder / "log").read_text()
                with suppress(OSError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Callable[[str], tuple[Server, int]]]:
    """For each prefix a server and the port of its proxy; started when they are first used."""
    started: dict[str, tuple[Server, int]] = {}
    folder = tmp_path_factory.mktemp("behind")
    (folder / "token").write_text(TOKEN)

    def start(prefix: str) -> tuple[Server, int]:
        if prefix not in started:
            port = free_port()
            arguments = ["--token-file", str(folder / "token"), "--root-url", f"http://{NAME}:{port}{prefix}"]
            started[prefix] = Server(folder / f"server{len(started)}", weights, *arguments), port
        return started[prefix]

    yield start
    for server, _ in started.values():
        server.stop()


@contextmanager
def behind(
    proxy: Callable[[Path, int, Server, str], list[str]],
    prefix: str,
    folder: Path,
    servers: Callable[[str], tuple[Server, int]],
) -> Iterator[httpx.Client]:
    """A client that knows the outer address only, and begins like a browser there."""
    program(proxy.__name__.partition("_")[0])
    server, port = servers(prefix)
    with running(proxy(folder, port, server, prefix), folder, port):
        origin = f"http://{NAME}:{port}"
        headers = {"Host": f"{NAME}:{port}", "Origin": origin}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}{prefix}/", headers=headers, timeout=60) as client:
            yield client


ALL = (nginx, nginx_without_host, caddy)
PROXIES = pytest.mark.parametrize("proxy", ALL)


@pytest.mark.parametrize("prefix", PREFIXES)
@PROXIES
def test_from_the_page_to_a_volume(
    proxy: Callable[..., Any], prefix: str, servers: Callable[..., Any], tmp_path: Path
) -> None:
    with behind(proxy, prefix, tmp_path, servers) as client:
        page = client.get("")
        if (PAGE / "index.html").exists():
            assert page.status_code == 200
            for name in re.findall(r'(?:href|src)="(?!data:)([^"]+)"', page.text):
                assert client.get(name).status_code == 200
        else:
            assert page.status_code == 404
        assert client.get("api/health").status_code == 200
        assert client.get("api/about").status_code == 401
        answer = client.post("api/login", json={"token": TOKEN})
        assert answer.status_code == 204
        assert f"Path={prefix or '/'}" in answer.headers["set-cookie"].split("; ")
        client.headers["Cookie"] = f"{COOKIE}={answer.cookies[COOKIE]}"
        assert client.get("api/about").status_code == 200

        noise = np.random.default_rng(0).integers(0, 20, (1500, 1500), np.uint8)
        large = picture(np.asarray(Image.fromarray(grey(8)).resize((1500, 1500))) // 2 + noise)
        assert len(large) > 2**20  # nginx takes no more by itself
        options = {"options": json.dumps(TWO_VIEWS)}
        files = [("xrays", ("a.png", large)), *uploads("b.png")]
        inspected = client.post("api/inspect", files=files, data=options)
        assert inspected.status_code == 200, inspected.text
        assert [xray["view"] for xray in inspected.json()["xrays"]] == ["pa", "lateral-left"]

        job = client.post("api/jobs", files=files, data=options)
        assert job.status_code == 201, job.text
        address = f"{prefix}/api/jobs/{job.json()['id']}"
        assert job.headers["location"] == address
        with client.stream("GET", f"http://127.0.0.1:{client.base_url.port}{address}/events") as events:
            assert events.headers["content-type"].startswith("text/event-stream")
            times, states = [], []
            for line in events.iter_lines():
                if line.startswith("data: "):
                    times.append(time.monotonic())
                    states.append(json.loads(line.removeprefix("data: "))["state"])
        assert (states[0] in ("queued", "running"), states[-1]) == (True, "done")
        assert times[-1] - times[0] > 0.2  # sent when it happens, not all at the end

        volume = client.get(f"api/jobs/{job.json()['id']}/files/volume.mha", params={"download": True})
        assert "attachment" in volume.headers["content-disposition"]
        (tmp_path / "volume.mha").write_bytes(volume.content)
        assert read_volume(tmp_path / "volume.mha").array.shape == (64, 64, 64)
        described = client.get("api/openapi.json").json()
        assert described.get("servers") == ([{"url": prefix}] if prefix else None)
        assert client.delete(f"api/jobs/{job.json()['id']}").status_code == 204


@pytest.mark.parametrize("prefix", PREFIXES)
@PROXIES
def test_other_names_and_pages_are_refused(
    proxy: Callable[..., Any], prefix: str, servers: Callable[..., Any], tmp_path: Path
) -> None:
    with behind(proxy, prefix, tmp_path, servers) as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        assert client.get("api/about").status_code == 200
        for origin in ("http://evil.example", f"http://{NAME}.evil.example", f"http://{NAME}:1", "null"):
            answer = client.post("api/jobs", files=uploads("a.png"), headers={"Origin": origin})
            assert (answer.status_code, "another web page" in answer.text) == (403, True), origin
        del client.headers["Origin"]
        for host in ("evil.example", f"{NAME}.evil.example", "example.org"):
            headers = {"Host": host, "X-Forwarded-Host": NAME, "Forwarded": f"host={NAME}"}
            if proxy is nginx:
                answer = client.get("api/about", headers=headers)
                assert (answer.status_code, "--root-url" in answer.text) == (400, True)
            # Where a proxy does not tell the name, a page of that name has no cookie of this one's all the same.
            if proxy is nginx_without_host:
                assert client.get("api/about", headers=headers | {"Authorization": ""}).status_code == 401
            if proxy is caddy:  # knows its sites
                assert "version" not in client.get("api/about", headers=headers).text


@PROXIES
def test_wrong_tokens_count_against_the_user(
    proxy: Callable[..., Any], servers: Callable[..., Any], tmp_path: Path
) -> None:
    with (
        behind(proxy, "", tmp_path, servers) as client,
        httpx.Client(
            base_url=client.base_url,
            headers=client.headers,
            transport=httpx.HTTPTransport(local_address=f"127.0.0.{2 + ALL.index(proxy)}"),
        ) as other,
    ):
        wrong = {"Authorization": "Bearer wrong", "X-Forwarded-For": "127.0.0.1"}
        for _ in range(MAX_WRONG_TOKENS):
            assert other.get("api/about", headers=wrong).status_code == 401
        right = {"Authorization": f"Bearer {TOKEN}", "X-Forwarded-For": "127.0.0.1"}
        assert other.get("api/about", headers=right).status_code == 429
        assert client.get("api/about", headers=right).status_code == 200


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.skipif(not (PAGE / "app.js").exists(), reason="needs `make web`")
@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_page_in_a_browser(prefix: str, servers: Callable[..., Any], tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    flags = ["--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    with (
        behind(nginx_without_host, prefix, tmp_path, servers) as client,
        sync_api.sync_playwright() as playwright,
    ):
        flags.append(f"--host-resolver-rules=MAP {NAME} 127.0.0.1")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page()
        failed: list[str] = []
        page.on("response", lambda answer: failed.append(answer.url) if answer.status not in (200, 201, 204) else None)
        page.goto(f"http://{NAME}:{client.base_url.port}{prefix}/")
        page.wait_for_selector("#login:not([hidden])")
        failed.clear()  # what needed the token
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector("#about:has-text('Raylift')")
        file = {"mimeType": "image/png", "buffer": picture()}
        page.set_input_files("#files", [{"name": name, **file} for name in ("a.png", "b.png")])
        for place, view in enumerate(("pa", "lateral-left"), 1):
            card = f"#cards li:nth-child({place})"
            page.wait_for_selector(card)
            page.select_option(f"{card} select", view)
            page.wait_for_selector(
                f"#cards:not([aria-busy]) li:nth-child({place}) option[value={view}]:checked", state="attached"
            )
        page.click("#go:enabled")
        page.wait_for_selector("#agreement[src]", timeout=60_000)
        page.wait_for_function("document.getElementById('agreement').naturalWidth > 300")
        assert failed == []
        browser.close()
