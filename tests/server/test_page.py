"""The web page in a real browser: from a radiograph to a visible volume and a saved file, with the keyboard too."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from live_server import Server
from radiograph_files import grey
from raylift.io.volumes import read_volume
from raylift.server.app import PAGE
from repository import SHARED

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    pytest.mark.skipif(not (PAGE / "app.js").exists(), reason="needs `make web`"),
]
# WebGL without a graphics card, and no talk with the browser's maker.
FLAGS = [
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.fromarray(grey(8)).save(tmp_path / "chest.png")
    return tmp_path / "chest.png"


def shades(page: Any, selector: str, path: Path) -> np.ndarray:
    """What is seen of an element, (rows, columns) in [0, 255]."""
    page.locator(selector).screenshot(path=path)
    return np.asarray(Image.open(path).convert("L"), float)


@pytest.mark.parametrize(
    ("width", "real"),
    [
        (1100, None),
        (390, None),
        (1100, "00027426_000.png"),
    ],
)
def test_from_a_radiograph_to_a_volume(
    tmp_path: Path, server: Server, browser: Any, picture: Path, width: int, real: str | None
) -> None:
    if real is not None:
        picture = SHARED / "radiographs" / real
        if not picture.exists():
            pytest.skip("no radiograph here")
    page = browser.new_page(viewport={"width": width, "height": 900})
    problems: list[str] = []
    page.on("pageerror", lambda problem: problems.append(str(problem)))
    page.on("request", lambda request: problems.append(request.url) if server.url not in request.url and
            not request.url.startswith(("data:", "blob:")) else None)  # fmt: skip
    page.goto(server.url)
    page.set_input_files("#files", picture)
    page.wait_for_selector("#cards li")
    page.select_option("#cards select", "ap")
    page.wait_for_selector("#cards:not([aria-busy]) option[value=ap]:checked", state="attached")
    page.wait_for_selector("#go:enabled")
    before = page.get_attribute("#cards img", "src")
    page.click("#cards button[aria-label^=Mirror]")
    page.wait_for_selector(f"#cards:not([aria-busy]) img:not([src='{before}'])")
    page.click("#cards button[aria-label^=Mirror]")
    page.wait_for_selector(f"#cards img[src='{before}']")
    page.click("#go")
    page.wait_for_selector("#job:not([hidden])")
    page.wait_for_selector("#viewer[data-ready]", timeout=90_000)
    page.wait_for_timeout(1500)
    planes = shades(page, "#viewer", tmp_path / "planes.png")
    assert planes.std() > 20, "nothing is seen of the volume"
    page.fill("#uncertainty", "0.8")
    page.wait_for_timeout(500)
    assert np.abs(shades(page, "#viewer", tmp_path / "uncertainty.png") - planes).mean() > 2
    page.fill("#uncertainty", "0")
    page.click("[data-show=rendering]")
    page.wait_for_timeout(2000)
    assert shades(page, "#viewer", tmp_path / "rendering.png").std() > 20
    assert page.locator("#agreement").evaluate("image => image.naturalWidth") > 300
    with page.expect_download() as download:
        page.click("text=Volume, MetaImage")
    download.value.save_as(tmp_path / "volume.mha")
    assert read_volume(tmp_path / "volume.mha").array.shape == (64, 64, 64)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.reload()
    page.wait_for_selector("#viewer[data-ready]", timeout=30_000)
    assert problems == []
    page.close()


def test_with_the_keyboard_alone(tmp_path: Path, server: Server, browser: Any, picture: Path) -> None:
    page = browser.new_page()
    page.goto(server.url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    page.set_input_files("#files", picture)
    page.wait_for_selector("#cards li")
    seen = []
    for _ in range(8):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.id"))
        if seen[-1] == "go":
            break
    assert seen[0].startswith("View of chest.png")
    assert "go" in seen
    page.close()


def test_what_is_no_radiograph_is_said(tmp_path: Path, server: Server, browser: Any) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    page = browser.new_page()
    page.goto(server.url)
    page.set_input_files("#files", tmp_path / "broken.png")
    page.wait_for_selector("#message:not([hidden])")
    assert "broken.png: cannot be read" in page.inner_text("#message")
    assert page.locator("#cards li").count() == 0
    page.close()


def test_a_token_is_asked_for(tmp_path: Path, serve: Callable[..., Any], browser: Any) -> None:
    token = "0123456789abcdef+/"
    (tmp_path / "token").write_text(token)
    with serve(tmp_path / "server", "--token-file", tmp_path / "token") as server:
        page = browser.new_page()
        page.goto(server.url)
        page.wait_for_selector("#login:not([hidden])")
        page.fill("#token", token)
        page.keyboard.press("Enter")
        page.wait_for_selector("#about:has-text('Raylift')")
        assert page.locator("#login").is_hidden()
        page.close()


def test_file_names_are_text(tmp_path: Path, server: Server, browser: Any) -> None:
    name = "<img src=x onerror=document.title='got' >.png"
    Image.fromarray(grey(8)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    page = browser.new_page()
    page.goto(server.url)
    page.set_input_files("#files", {"name": name, "mimeType": "image/png", "buffer": content})
    page.wait_for_selector("#cards li")
    assert name in page.inner_text("#cards .name")
    assert page.title() == "Raylift"
    page.close()
