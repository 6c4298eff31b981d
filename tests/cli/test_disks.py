"""Commands on real disks without room, for outputs and for temporary files: small ones, mounted for one process."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import random_weights
from raylift.cli import main
from raylift.data.phantom import thorax_phantom
from raylift.drr.projector import project_volume
from raylift.geometry import Geometry, View
from raylift.images.xray_set import XraySet
from raylift.io.volumes import write_volume
from raylift.radiographs.sets import write_xrays

# The command has a view of the file system of its own; there, the test's folder is at /media, and can be written even
# where /tmp cannot.
SETUP = """
set -e
mount --make-rprivate /
mount --bind "$1" /media
shift
disk() { mkdir -p "$1"; mount -t tmpfs -o "size=$2" tmpfs "$1"; }
fill() { cat /dev/zero > "$1/ballast" 2>/dev/null || true; }
"""
RUN = """
code=0
"$@" || code=$?
ls -A /media/out 2>/dev/null || true
exit $code
"""
NO_TEMPORARY_FILES = """
for place in /tmp /var/tmp; do mount --bind $place $place; mount -o remount,bind,ro $place; done
disk /media/full 64k; fill /media/full
unset TMPDIR
export HOME=/media/full
cd /media/full
"""
# What is done to TMPDIR; Python then takes another folder, unless it can write some bytes.
TMPDIRS = {
    "missing": "export TMPDIR=/media/missing",
    "read-only": "disk /media/small 64k; mount -o remount,ro /media/small; export TMPDIR=/media/small",
    "full": "disk /media/small 64k; fill /media/small; export TMPDIR=/media/small",
    "some bytes": "disk /media/small 64k; head -c 57344 /dev/zero > /media/small/ballast; export TMPDIR=/media/small",
    "nowhere": NO_TEMPORARY_FILES,
}
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan, X-rays and weights."""
    folder = tmp_path_factory.mktemp("disks")
    scan, geometry, views = thorax_phantom(0, 5.0), Geometry.preset("chest-stand", 64), (View(0.0), View(90.0))
    write_volume(scan, folder / "scan.nii.gz")
    write_xrays(XraySet(project_volume(scan, geometry, views, (0, 0, 0)), views, geometry), folder / "xrays", "torch")
    random_weights(folder / "weights")
    return folder


@pytest.fixture
def run(given: Path) -> Run:
    """Runs a command after a script has mounted disks; skips where none can be mounted."""
    unshare = shutil.which("unshare")
    trial = [unshare or "", "--mount", "sh", "-c", SETUP + "disk /media/trial 64k", "sh", str(given)]
    if unshare is None or subprocess.run(trial, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted")

    def started(script: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [unshare, "--mount", "sh", "-c", f"{SETUP}\n{script}\n{RUN}", "sh", str(given)]
        command += [sys.executable, "-m", "raylift", *words]
        environment = {name: value for name, value in os.environ.items() if name != "MPLCONFIGDIR"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    return started


def line_of(done: subprocess.CompletedProcess[str]) -> str:
    """The error, which is one line and no more."""
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("raylift: "))
    assert "Errno" not in done.stderr
    assert "Traceback" not in done.stderr
    return line.removeprefix("raylift: ")


@pytest.mark.parametrize("tmpdir", TMPDIRS)
def test_outputs_need_no_tmpdir(run: Run, given: Path, tmpdir: str) -> None:
    """Refinement and reports do not: their libraries write temporary files even while they are imported."""
    output = given / "outputs" / tmpdir.replace(" ", "-")
    output.mkdir(parents=True)
    words = ["/media/xrays", "-o", f"/media/outputs/{output.name}/volume.mha", "--weights", "/media/weights"]
    done = run(TMPDIRS[tmpdir], "reconstruct", *words, "--refine", "--refine-seconds", "0.1")
    assert done.returncode == 0, done.stderr
    assert {"volume.mha", "volume-report.html"} <= {path.name for path in output.iterdir()}
    assert [path.name for path in output.iterdir() if path.name.startswith(".")] == []


def test_what_needs_tmpdir_names_it(run: Run) -> None:
    words = ["drr", "/media/scan.nii.gz", "--pixels", "64", "-o"]
    done = run(TMPDIRS["some bytes"], *words, "memory://bucket/xrays")
    assert done.returncode == 1
    assert line_of(done) == "/media/small: the disk is full; set TMPDIR to a folder with room, then try again"
    done = run(TMPDIRS["nowhere"], *words, "memory://bucket/xrays")
    assert done.returncode == 3
    assert line_of(done).startswith("temporary files: they cannot be written (No usable temporary directory found in ")
    assert line_of(done).endswith("; set TMPDIR to a folder with room")


def test_plastimatch_needs_tmpdir(run: Run) -> None:
    words = ["drr", "/media/scan.nii.gz", "--pixels", "64", "--drr-engine", "plastimatch", "-o"]
    done = run(TMPDIRS["some bytes"], *words, "/media/by-plastimatch")
    if "plastimatch is not installed" in done.stderr:
        pytest.skip("needs plastimatch")
    assert done.returncode == 1
    assert line_of(done) == "/media/small: the disk is full; set TMPDIR to a folder with room, then try again"
    assert run(TMPDIRS["nowhere"], *words, "/media/by-plastimatch").returncode == 0


@pytest.mark.parametrize("room", [0, 100, 300])
def test_a_full_output_is_named(run: Run, room: int) -> None:
    """With so many kilobytes left."""
    words = ["/media/xrays", "-o", "/media/out/volume.mha", "--weights", "/media/weights"]
    script = f"disk /media/out 1m; head -c {2**20 - room * 2**10} /dev/zero > /media/out/ballast"
    done = run(script, "reconstruct", *words)
    assert done.stdout.split() == ["ballast"]  # nothing half-written
    assert done.returncode == 1
    assert line_of(done).startswith("/media/out/")
    assert line_of(done).endswith(": the disk is full; make room or choose another folder, then try again")


@pytest.mark.parametrize("command", ["drr scan.nii.gz", "data prepare scans", "evaluate weights --data prepared"])
def test_in_a_store_nothing_is_begun(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is asked for is missing too, and would be told if the work had begun."""
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: ["/proc"])
    monkeypatch.setattr(sys, "argv", ["raylift", *command.split(), "-o", "memory://bucket/output"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    assert "set TMPDIR to a folder with room" in capsys.readouterr().err
