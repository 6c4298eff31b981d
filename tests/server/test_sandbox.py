"""The process that reads uploads sees its own folder, and nothing else of the machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raylift.server import reader_pool
from raylift.server.options import XrayOptions
from raylift.server.reader_pool import Unreadable
from raylift.server.upload_reader import ReadRequest

PROBE = """
import json, os, socket, sys
from pathlib import Path
from raylift.server.sandbox import confine

own, other = map(Path, sys.argv[1:])
confined = confine(own)

def tried(what):
    try:
        what()
        return "done"
    except PermissionError:
        return "closed"
    except OSError as error:
        return type(error).__name__

found = {
    "confined": confined,
    "own": tried(lambda: (own / "a").write_text((own / "given").read_text())),
    "another's file": tried(lambda: other.read_text()),
    "by a link": tried(lambda: (own / "link").read_text()),
    "a list of files": tried(lambda: os.listdir(other.parent)),
    "a new file elsewhere": tried(lambda: (other.parent / "new").write_text("x")),
    "users": tried(lambda: Path("/etc/passwd").read_text()),
    "environment": tried(lambda: Path("/proc/self/environ").read_text()),
    "network": tried(lambda: socket.create_connection(("127.0.0.1", 9), 1)),
}
import skimage.metrics  # libraries can be had
print(json.dumps(found))
"""


def test_what_it_sees(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other" / "file"
    for folder in (own, other.parent):
        folder.mkdir()
    (own / "given").write_text("x")
    other.write_text("secret")
    (own / "link").symlink_to(other)
    done = subprocess.run([sys.executable, "-c", PROBE, own, other], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    if not found.pop("confined"):
        pytest.skip("this system has no Landlock")
    assert found.pop("own") == "done"
    assert set(found.values()) == {"closed"}, found


def _request(folder: Path) -> ReadRequest:
    (folder / "xray-0.png").write_bytes(b"")
    return ReadRequest(None, folder, ("xray-0.png",), ("a.png",), (XrayOptions(view="pa"),), False)


def _first_time_killed(request: ReadRequest) -> None:
    import os
    import signal

    if not (request.folder / "tried").exists():
        (request.folder / "tried").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (request.folder / "result.json").write_text('{"xrays": []}')


def _crashed(request: ReadRequest) -> None:
    import os

    with (request.folder / "tries").open("a") as file:
        file.write("x")
    os.abort()


def _endless(request: ReadRequest) -> None:
    while True:
        pass


def test_a_reader_that_was_killed_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_pool, "read_confined", _first_time_killed)
    assert reader_pool._read(_request(tmp_path)) == {"xrays": []}


def test_what_crashes_a_reader_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_pool, "read_confined", _crashed)
    with pytest.raises(Unreadable):
        reader_pool._read(_request(tmp_path))
    assert (tmp_path / "tries").read_text() == "x"


def test_what_is_read_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_pool, "read_confined", _endless)
    monkeypatch.setattr(reader_pool, "READ_SECONDS", 1.0)
    with pytest.raises(Unreadable):
        reader_pool._read(_request(tmp_path))
