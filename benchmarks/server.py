"""A server under load: 200 jobs from 20 clients at once, with room for 50.

python benchmarks/server.py

Prints how many were taken, done, and refused with which status, the memory of the server's processes before and at the
most, and how long the page takes meanwhile.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from raylift.cli.console import print_table
from raylift.data.phantom import thorax_phantom
from raylift.data.thorax import find_thorax
from raylift.drr.registry import load_projector
from raylift.geometry import Geometry, View

PORT, CLIENTS, JOBS = 8377, 20, 200
URL = f"http://127.0.0.1:{PORT}"


def pictures() -> list[bytes]:
    """A phantom's frontal and lateral radiograph as PNG."""
    phantom = thorax_phantom(0)
    views = [View.parse("pa"), View.parse("lateral-left")]
    images = load_projector("torch")(phantom, Geometry.preset("chest-stand", 512), views, find_thorax(phantom).centre)
    files = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(np.rint(255 * image / image.max()).astype(np.uint8)).save(file, "PNG")
        files.append(file.getvalue())
    return files


def memory(process: int) -> float:
    """Resident megabytes of a process and those it started."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,rss="], capture_output=True, text=True, check=True).stdout
    rows = [tuple(map(int, line.split())) for line in listed.splitlines()]
    family = {process}
    for _ in range(4):
        family |= {pid for pid, parent, _ in rows if parent in family}
    return sum(size for pid, _, size in rows if pid in family) / 1024


def watch(pid: int, boss: Connection) -> None:
    """Look at the page and the memory four times a second, until told that it is enough; then say what was seen."""
    pages, sizes = list[float](), [memory(pid)]
    with httpx.Client(timeout=30) as client:
        client.get(URL)
        boss.send("ready")
        while not boss.poll(0.25):
            begun = time.perf_counter()
            client.get(URL)
            pages.append(time.perf_counter() - begun)
            sizes.append(memory(pid))
    boss.send((pages, sizes))


def main() -> None:
    files = [("xrays", (f"{k}.png", content)) for k, content in enumerate(pictures())]
    options = {"options": json.dumps({"xrays": [{"view": "pa"}, {"view": "lateral-left"}]})}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "raylift", "serve", "--folder", folder, "--port", str(PORT)]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            measure(server.pid, files, options, Path(folder))
        finally:
            server.terminate()
            server.wait()


def measure(pid: int, files: list[tuple[str, tuple[str, bytes]]], options: dict[str, str], folder: Path) -> None:
    """Hand in, watch, and print."""
    while True:
        try:
            httpx.get(f"{URL}/api/about")
            break
        except httpx.TransportError:
            time.sleep(0.2)
    first = httpx.post(f"{URL}/api/jobs", files=files, data=options, timeout=120).json()
    while httpx.get(f"{URL}/api/jobs/{first['id']}", timeout=30).json()["state"] != "done":
        time.sleep(0.2)
    # A process of its own, so that the page does not wait for the clients' Python.
    ours, theirs = multiprocessing.Pipe()
    watcher = multiprocessing.get_context("spawn").Process(target=watch, args=(pid, theirs))
    watcher.start()
    ours.recv()

    def hand_in(_: int) -> tuple[int, float]:
        begun = time.perf_counter()
        answer = httpx.post(f"{URL}/api/jobs", files=files, data=options, timeout=300)
        return answer.status_code, time.perf_counter() - begun

    begun = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(hand_in, range(JOBS)))
    handed_in = time.perf_counter() - begun
    while any(job["state"] in ("queued", "running") for job in httpx.get(f"{URL}/api/jobs", timeout=30).json()):
        time.sleep(1)
    ours.send("enough")
    pages, sizes = ours.recv()
    watcher.join()
    codes = Counter(code for code, _ in answers)
    states = Counter(job["state"] for job in httpx.get(f"{URL}/api/jobs", timeout=30).json())
    rows = [
        ("jobs handed in", f"{JOBS} from {CLIENTS} clients in {handed_in:.0f} s"),
        *((f"answered {code}", str(count)) for code, count in sorted(codes.items())),
        ("slowest answer", f"{max(seconds for _, seconds in answers):.1f} s"),
        ("in the end", ", ".join(f"{count} {state}" for state, count in states.items())),
        ("all done after", f"{time.perf_counter() - begun:.0f} s"),
        ("memory before, at most", f"{sizes[0]:.0f} MB, {max(sizes):.0f} MB"),
        ("the page meanwhile", f"median {1000 * np.median(pages):.0f} ms, slowest {1000 * max(pages):.0f} ms"),
    ]
    print_table([{"": name, "measured": value} for name, value in rows])


if __name__ == "__main__":
    main()
