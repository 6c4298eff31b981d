"""`raylift serve` as a process of its own, for tests."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx


class Server:
    """`raylift serve` as a user starts it."""

    def __init__(self, folder: Path, weights: Path | None, *arguments: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "raylift", "serve", "--folder", folder, "--port", self.port]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.log = (folder.parent / f"{folder.name}-{self.port}.log").open("w+")
        self.process = subprocess.Popen(
            [*map(str, command), *(() if weights is None else ("--weights", str(weights))), *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=self.log,
        )
        self.until(lambda: httpx.get(f"{self.url}/api/about").status_code in (200, 401))

    def until(self, happened: Callable[[], object], seconds: float = 90) -> None:
        """Wait for something to happen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if happened():
                    return
            except httpx.TransportError:
                pass
            assert self.process.poll() is None, "the server ended"
            time.sleep(0.2)
        raise AssertionError("it did not happen in time")

    def children(self) -> list[str]:
        """The processes that it started."""
        command = ["ps", "-o", "pid=", "--ppid", str(self.process.pid)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    def kill(self) -> None:
        """As `kill -9` does; what it started has to end by itself."""
        children = self.children()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for _ in range(50):
            command = ["ps", "-o", "stat=", "-p", ",".join(children)]
            stats = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
            if all(stat.startswith("Z") for stat in stats):
                return
            time.sleep(0.2)
        raise AssertionError("processes outlive their server")

    def stop(self, number: int = signal.SIGINT) -> None:
        """As Ctrl+C does, or with another signal."""
        self.process.send_signal(number)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
