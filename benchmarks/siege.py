"""A siege of `raylift serve`: attacks and failures by the hundred, and what came of them.

python benchmarks/siege.py [NAME ...]

Starts real servers on this machine's own address, with the embedded weights, and prints of each kind of attack how many
were tried and how many held, the slowest answer meanwhile and the memory of the server's processes at the most. Ends
with 1 unless all held. Full disks and lists that cannot be written need root (a small file system, an immutable file)
and are left out, and named, without it. Takes some fifteen minutes.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import SimpleITK as sitk
from PIL import Image

from raylift.cli.console import print_table

TOKEN = "0123456789abcdef0123456789abcdef"
MARKER = "the-secret-of-another-patient"
SLOWEST = 5.0  # seconds that an answer may take
MOST_MEMORY = 8000.0  # MB of all processes of a server
OPTIONS = {"options": json.dumps({"xrays": [{"view": "pa"}, {"view": "lateral-left"}]})}


@dataclass
class Outcome:
    """Of one kind of attack: how many were tried and held, and what did not."""

    tried: int = 0
    held: int = 0
    failed: list[str] = field(default_factory=list)
    note: str = ""

    def count(self, held: bool, what: str = "") -> None:
        self.tried += 1
        self.held += held
        if not held:
            self.failed.append(what)


class Server:
    """`raylift serve` as a user starts it, watched four times a second."""

    def __init__(self, folder: Path, *arguments: str, token: str | None = None) -> None:
        self.folder, self.arguments, self.token = folder, arguments, token
        self.slowest, self.memory = 0.0, 0.0
        self.down = threading.Event()
        self.ended = threading.Event()
        self.start()
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()

    def start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "raylift", "serve", "--folder", self.folder, "--port", self.port]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"} | ({"RAYLIFT_TOKEN": self.token} if self.token else {})
        self.log = (self.folder.parent / "log.txt").open("ab")
        self.process = subprocess.Popen(
            [*map(str, command), *self.arguments], env=environment, stdout=subprocess.DEVNULL, stderr=self.log
        )
        until(lambda: httpx.get(f"{self.url}/api/health", timeout=5).status_code == 200, 90)
        self.down.clear()

    def stop(self, how: int = signal.SIGTERM) -> None:
        self.down.set()
        self.process.send_signal(how)
        self.process.wait(60)
        self.log.close()

    def family(self) -> list[tuple[int, int, float]]:
        """Process, parent and resident megabytes of the server's processes."""
        listed = subprocess.run(["ps", "-eo", "pid=,ppid=,rss="], capture_output=True, text=True, check=True).stdout
        rows = [tuple(map(int, line.split())) for line in listed.splitlines()]
        found = {self.process.pid}
        for _ in range(5):
            found |= {pid for pid, parent, _ in rows if parent in found}
        return [(pid, parent, size / 1024) for pid, parent, size in rows if pid in found]

    def _watch(self) -> None:
        while not self.ended.wait(0.25):
            if self.down.is_set():
                continue
            begun = time.monotonic()
            with suppress(httpx.TransportError):
                httpx.get(f"{self.url}/api/health", timeout=30)
            if not self.down.is_set():
                self.slowest = max(self.slowest, time.monotonic() - begun)
                self.memory = max(self.memory, sum(size for _, _, size in self.family()))

    def close(self) -> None:
        self.ended.set()
        self.watcher.join()
        if self.process.poll() is None:
            self.stop()

    def submit(self, options: dict[str, str] = OPTIONS) -> httpx.Response:
        files = [("xrays", (f"{name}.png", content)) for name, content in zip("ab", PICTURES, strict=True)]
        return httpx.post(f"{self.url}/api/jobs", files=files, data=options, timeout=120)

    def states(self) -> dict[str, str]:
        answer = httpx.get(f"{self.url}/api/jobs", timeout=30)
        answer.raise_for_status()
        return {job["id"]: job["state"] for job in answer.json()}

    def wait_for(self, job_id: str) -> None:
        """Wait until a job has ended; raises TimeoutError."""
        until(lambda: self.states()[job_id] in ("done", "failed"), 60)

    def works(self) -> bool:
        """Hand a job in, and wait for it."""
        end = time.monotonic() + 180
        while time.monotonic() < end:
            with suppress(httpx.HTTPError, TimeoutError):
                answer = self.submit()
                if answer.status_code == 201:
                    self.wait_for(answer.json()["id"])
                    httpx.delete(f"{self.url}/api/jobs/{answer.json()['id']}", timeout=30)
                    return True
            time.sleep(0.5)
        return False


def until(happened: Callable[[], object], seconds: float) -> None:
    """Wait for something; raises TimeoutError."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(httpx.HTTPError, KeyError):
            if happened():
                return
        time.sleep(0.1)
    raise TimeoutError("it did not happen in time")


def pictures() -> list[bytes]:
    """A smooth frontal and lateral picture of enough grey levels."""
    files = []
    for seed in range(2):
        noise = sitk.GetImageFromArray(np.random.default_rng(seed).random((96, 96)).astype(np.float32))
        smooth = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(noise, 8.0))
        low, high = smooth.min(), smooth.max()
        file = io.BytesIO()
        Image.fromarray(np.rint(255 * (smooth - low) / (high - low)).astype(np.uint8)).save(file, "PNG")
        files.append(file.getvalue())
    return files


PICTURES = pictures()


def hostile_uploads(folder: Path, count: int) -> list[tuple[str, bytes]]:
    """Name and content of uploads that name another file: of this machine, of another job, of the server itself."""
    chance = random.Random(0)
    raw = folder / "another" / "secret.raw"
    text = folder / "another" / "secret.txt"
    targets = [str(raw), str(text), "/etc/passwd", "/proc/self/environ", f"../../another/{raw.name}",
               f"../another/{raw.name}", str(folder / "server" / "jobs.sqlite"), "/dev/zero", "/dev/stdin"]  # fmt: skip
    start = "ObjectType = Image\nNDims = 2\nDimSize = 64 64\nElementType = MET_FLOAT\n"
    headers = [
        start + "ElementDataFile = {}\n",
        "Comment = ElementDataFile = LOCAL\n" + start + "ElementDataFile = {}\n",
        start + "Color =\nElementDataFile = LOCAL\nElementDataFile = {}\n",
        start + "ElementDataFile: {}\nElementDataFile = LOCAL\n",
        start + "ElementDataFile = {}\nElementDataFile = LOCAL\n",
        start + "  ElementDataFile  =  {}\n",
        start + "HeaderSize = 4\nElementDataFile = {}\n",
        start + "HeaderSize = -1\nElementDataFile = {}\n",
        start + "ElementDataFile = LIST\n{}\n",
        start + "ElementDataFile = {}%d 0 1 1\n",
        start + "Comment = x\rElementDataFile = {}\nElementDataFile = LOCAL\n",
        start + "ID =\nElementDataFile = LOCAL\nElementDataFile = {}\n",
        start + "elementdatafile = {}\nElementDataFile = LOCAL\n",
        start.replace("MET_FLOAT", "MET_FLOAT\nElementNumberOfChannels =")
        + "ElementDataFile = LOCAL\nElementDataFile = {}\n",
    ]
    nrrd = "NRRD0004\ntype: float\ndimension: 2\nsizes: 64 64\nencoding: raw\nendian: little\ndata file: {}\n"
    nifti = (
        "<nifti_image\n nifti_type = 'NIFTI-1A'\n image_filename = '{}'\n image_offset = '0'\n ndim = '2'\n nx = '64'\n"
    )
    made: list[tuple[str, bytes]] = []
    while len(made) < count:
        target = targets[len(made) % len(targets)]
        kind = chance.randrange(8)
        if kind < 5:
            made.append((chance.choice(("a.mha", "A.MHA")), chance.choice(headers).format(target).encode()))
        elif kind == 5:
            made.append((chance.choice(("a.nii", "a.mha", "a.nrrd", "a.mhd")), nrrd.format(target).encode()))
        elif kind == 6:
            made.append((chance.choice(("a.nii", "a.nii.gz", "a.dcm")), nifti.format(target).encode()))
        else:
            name = chance.choice(("a.npy", "a.mhd", "a.hdr", "a.json", target, f"{target}.png", f"a.png\0{target}"))
            made.append((name, chance.choice(headers).format(target).encode()))
    return made


def uploads(folder: Path) -> Iterator[tuple[Outcome, Server]]:
    """Uploads that name other files: nothing of those may come back."""
    outcome = Outcome()
    (folder / "another").mkdir()
    secret = np.random.default_rng(0).uniform(0.5, 5, (64, 64)).astype(np.float32)
    secret.tofile(folder / "another" / "secret.raw")
    (folder / "another" / "secret.txt").write_text(f"{MARKER}\n" * 100)
    with served(folder) as server:

        def attack(upload: tuple[str, bytes]) -> tuple[bool, str]:
            name, content = upload
            options = {"options": json.dumps({"xrays": [{"view": "pa"}]})}
            told = []
            for path in ("inspect", "jobs"):
                answer = httpx.post(
                    f"{server.url}/api/{path}", files=[("xrays", (name, content))], data=options, timeout=60
                )
                told.append(answer.status_code)
                if MARKER in answer.text or "root:" in answer.text:
                    return False, f"{name}: {answer.text[:200]}"
                if answer.status_code == 200:
                    encoded = answer.json()["xrays"][0]["picture"].split(",", 1)[1]
                    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))), float)
                    if seen.shape == secret.shape and abs(np.corrcoef(seen.ravel(), secret.ravel())[0, 1]) > 0.5:
                        return False, f"{name}: another patient's X-ray"
            return all(code in (400, 413, 422) for code in told), f"{name}: {told}"

        with ThreadPoolExecutor(4) as pool:
            for held, what in pool.map(attack, hostile_uploads(folder, 300)):
                outcome.count(held, what)
        outcome.count(server.works(), "the server works no more")
        yield outcome, server


def slow_connections(folder: Path) -> Iterator[tuple[Outcome, Server]]:
    """Requests that do not come to an end."""
    outcome = Outcome()
    with served(folder) as server:
        part = b'--x\r\nContent-Disposition: form-data; name="xrays"; filename="a.png"\r\n\r\n'
        post = b"POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        form = b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000000\r\n\r\n" + part
        starts = [b"", b"GET / HTTP/1.1\r\nHo", post, post + form]
        clients = []
        for number in range(200):
            client = socket.create_connection(("127.0.0.1", server.port))
            client.sendall(starts[number % len(starts)])
            clients.append(client)
        outcome.count(server.works(), "jobs are not done meanwhile")
        end, open_ = time.monotonic() + 40, list(clients)
        while open_ and time.monotonic() < end:
            for client in list(open_):
                client.settimeout(0.01)
                try:
                    if not client.recv(4096):
                        open_.remove(client)
                except TimeoutError:
                    with suppress(OSError):
                        client.sendall(b"x")
                except OSError:
                    open_.remove(client)
        for client in clients:
            outcome.count(client not in open_, "stays open")
            client.close()
        yield outcome, server


def wrong_tokens(folder: Path) -> Iterator[tuple[Outcome, Server]]:
    """Guesses at the token, and bodies without one."""
    outcome, chance = Outcome(), random.Random(0)
    with served(folder, token=TOKEN) as server:

        def guess(number: int) -> int:
            wrong = TOKEN[:-1] + chance.choice("ghijkl")
            headers = {"Authorization": f"Bearer {wrong}"} if number % 3 else {"Cookie": f"raylift_session={wrong}"}
            return httpx.get(f"{server.url}/api/jobs", headers=headers, timeout=30).status_code

        with ThreadPoolExecutor(8) as pool:
            codes = list(pool.map(guess, range(2000)))
        for code in codes:
            outcome.count(code in (401, 429), str(code))
        outcome.note = ", ".join(f"{count} × {code}" for code, count in sorted(Counter(codes).items()))
        outcome.count(codes.count(401) < 100, "guesses are not slowed down")
        before = shutil.disk_usage(folder).free
        with suppress(httpx.TransportError):
            httpx.post(f"{server.url}/api/jobs", content=bytes(200 * 2**20), timeout=60)
        outcome.count(before - shutil.disk_usage(folder).free < 20 * 2**20, "a body without a token was kept")
        yield outcome, server


def deletes(folder: Path) -> Iterator[tuple[Outcome, Server]]:
    """Jobs deleted by four clients at once, at any moment."""
    outcome, chance = Outcome(), random.Random(0)
    with served(folder, "--waiting", "200") as server:
        ids = [server.submit().json()["id"] for _ in range(3)]  # so that the worker has something to do throughout

        def delete(job_id: str, pause: float) -> int:
            time.sleep(pause)
            return httpx.delete(f"{server.url}/api/jobs/{job_id}", timeout=30).status_code

        with ThreadPoolExecutor(16) as pool:
            for _ in range(100):
                ids.append(server.submit().json()["id"])
                pauses = [chance.uniform(0, 3) for _ in range(4)]
                for pause in pauses:
                    pool.submit(delete, chance.choice(ids[-3:]), pause)
        for job_id in ids:
            for _ in range(2):
                httpx.delete(f"{server.url}/api/jobs/{job_id}", timeout=30)
        until(lambda: not list((server.folder / "work").iterdir()), 60)
        time.sleep(1)
        known = server.states()
        for job_id in ids:
            outcome.count(not (server.folder / "jobs" / job_id).exists() and job_id not in known, f"{job_id} is left")
        outcome.count(not list((server.folder / "uploads").iterdir()), "uploads are left")
        yield outcome, server


def list_faults(folder: Path) -> Iterator[tuple[Outcome, Server]]:
    """The list of jobs locked, cut short, not writable, and gone."""
    outcome = Outcome()
    left_out = []
    with served(folder) as server:
        database = server.folder / "jobs.sqlite"
        for number in range(20):
            kind = ("locked", "cut short", "not writable", "gone")[number % 4]
            kept = folder / "kept.sqlite"
            with sqlite3.connect(database) as source, sqlite3.connect(kept) as copy:
                source.backup(copy)
            if kind == "locked":
                other = sqlite3.connect(database, isolation_level=None)
                other.execute("BEGIN EXCLUSIVE")
            elif kind == "not writable":
                if subprocess.run(["chattr", "+i", database], capture_output=True, check=False).returncode:
                    left_out = ["lists that are not writable (needs root and chattr)"]
                    continue
            elif kind == "gone":
                database.unlink()
            else:
                with database.open("r+b") as file:
                    file.truncate(3000)
            code = server.submit().status_code
            time.sleep(3)
            if kind == "locked":
                other.execute("ROLLBACK")
                other.close()
            elif kind == "not writable":
                subprocess.run(["chattr", "-i", database], check=True)
            else:
                for path in server.folder.glob("jobs.sqlite*"):
                    path.unlink()
                shutil.copy(kept, database)
            outcome.count(code in (201, 503) and server.works(), f"{kind}: {code}")
        outcome.note = "; ".join(f"left out: {what}" for what in left_out)
        yield outcome, server


def full_disks(folder: Path) -> Iterator[tuple[Outcome, Server]]:
    """A small disk that is full at one moment or another."""
    outcome = Outcome()
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        outcome.note = "left out: full disks (needs root)"
        return
    try:
        (folder / "on").symlink_to(disk)
        with served(folder, at=disk / "server") as server:
            for number in range(20):
                room = (0, 16, 64, 256, 700, 1200)[number % 6] * 1024  # bytes that are left
                with (disk / "ballast").open("wb", buffering=0) as file:
                    with suppress(OSError):
                        while True:
                            file.write(bytes(2**16))
                    file.truncate(max(0, file.tell() - room))
                answer = server.submit()
                told = answer.text
                if answer.status_code == 201:
                    job_id = answer.json()["id"]
                    with suppress(TimeoutError):  # the list cannot be written either
                        server.wait_for(job_id)
                    (disk / "ballast").unlink()
                    server.wait_for(job_id)
                    job = httpx.get(f"{server.url}/api/jobs/{job_id}", timeout=30).json()
                    told = job["error"] or "done"
                    httpx.delete(f"{server.url}/api/jobs/{job_id}", timeout=30)
                (disk / "ballast").unlink(missing_ok=True)
                said = "disk is full" in told or told == "done" or answer.status_code == 503
                outcome.count(said and server.works(), f"{room} bytes left: {answer.status_code} {told[:100]}")
            left = [path for kind in ("uploads", "work", "jobs") for path in (server.folder / kind).iterdir()]
            outcome.count(not left, f"left: {left}")
            yield outcome, server
    finally:
        subprocess.run(["umount", "--lazy", disk], check=False)


def kills(folder: Path) -> Iterator[tuple[Outcome, Server]]:
    """SIGKILL of the server, its workers and its readers."""
    outcome, chance = Outcome(), random.Random(0)
    taken: list[str] = []
    with served(folder, "--waiting", "200") as server:
        stop = threading.Event()

        def hand_in() -> None:
            while not stop.is_set():
                with suppress(httpx.TransportError, TimeoutError):
                    answer = server.submit()
                    if answer.status_code == 201:
                        taken.append(answer.json()["id"])
                time.sleep(1.5)

        loader = threading.Thread(target=hand_in)
        loader.start()
        for number in range(50):
            time.sleep(chance.uniform(0.2, 3))
            if number % 5 == 0:
                server.stop(signal.SIGKILL)
                server.start()
                outcome.count(True)
            else:
                others = [pid for pid, _, _ in server.family() if pid != server.process.pid]
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(others), signal.SIGKILL)
                outcome.count(server.process.poll() is None, "the server ended")
        stop.set()
        loader.join()
        judge_taken(server, taken, outcome, 3)
        yield outcome, server


def restarts(folder: Path) -> Iterator[tuple[Outcome, Server]]:
    """Orderly restarts, ten in a row, with jobs at work."""
    outcome = Outcome()
    with served(folder, "--waiting", "200") as server:
        taken = [server.submit().json()["id"] for _ in range(10)]
        for _ in range(10):
            time.sleep(1.0)
            server.stop()
            server.start()
            outcome.count(True)
        judge_taken(server, taken, outcome, 0)
        yield outcome, server


def judge_taken(server: Server, taken: list[str], outcome: Outcome, deaths: int) -> None:
    """Count whether each job that was taken is done, once; those whose workers were killed `deaths` times may fail."""
    until(lambda: not {"queued", "running"} & set(server.states().values()), 300)
    for job_id in taken:
        job = httpx.get(f"{server.url}/api/jobs/{job_id}", timeout=30).json()
        state = job.get("state", "lost")
        died = deaths and "the worker died" in str(job.get("error"))
        results = list((server.folder / "jobs" / job_id).glob("*/volume.mha"))
        outcome.count(bool(died) or (state == "done" and len(results) == 1), f"{state}, {len(results)} results")
    left = [*(server.folder / "work").iterdir(), *(server.folder / "uploads").iterdir()]
    outcome.count(not left, f"left: {left}")
    outcome.note = f"{len(taken)} jobs taken"


@contextmanager
def served(folder: Path, *arguments: str, token: str | None = None, at: Path | None = None) -> Iterator[Server]:
    server = Server(at or folder / "server", *arguments, token=token)
    try:
        yield server
    finally:
        server.close()


SIEGE: dict[str, Callable[[Path], Iterator[tuple[Outcome, Server]]]] = {
    "uploads that name files": uploads,
    "slow connections": slow_connections,
    "wrong tokens": wrong_tokens,
    "races of DELETE": deletes,
    "faults of the list": list_faults,
    "full disks": full_disks,
    "SIGKILL": kills,
    "restarts": restarts,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="A siege of `raylift serve`.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of attacks: {', '.join(SIEGE)}; all by default")
    chosen = parser.parse_args().names or list(SIEGE)
    rows, held = [], True
    for name in chosen:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as place:
            for outcome, server in SIEGE[name](Path(place)):
                quick, small = server.slowest < SLOWEST, server.memory < MOST_MEMORY
                held &= outcome.held == outcome.tried and quick and small
                for what, count in Counter(outcome.failed).most_common(5):
                    print(f"{name}: {count} × {what}", file=sys.stderr)
                rows.append(
                    {
                        "attack": name,
                        "tried": outcome.tried,
                        "held": outcome.held,
                        "slowest answer": f"{server.slowest:.2f} s",
                        "memory": f"{server.memory:.0f} MB",
                        "took": f"{time.monotonic() - begun:.0f} s",
                        "": outcome.note,
                    }
                )
    print_table(rows)
    sys.exit(not held)


if __name__ == "__main__":
    main()
