"""Commands on a full disk: each says so in one line, leaves nothing half-written, and succeeds when there is room.

python benchmarks/siege_disk.py

Mounts small file systems (needs root), on which commands run with some room or none. Prints by command how often it
was tried, how often it called the disk full or managed, and what else happened; ends with 1 if anything else did. Takes
some minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from raylift.cli.console import print_table
from raylift.data.phantom import thorax_phantom
from raylift.io.volumes import write_volume

ROOM = (0, 20, 200, 1000)  # kilobytes that are left
RECIPE = {
    "name": "tiny",
    "data": {"pairs": "offline", "xray_pixels": 32},
    "network": {"name": "unet", "feature_size": 4},
    "objective": {"name": "paired"},
    "train": {"steps": 6, "batch_size": 1, "checkpoint_minutes": 0, "validate_every": 2, "log_every": 1},
}


@contextmanager
def small_disk(folder: Path, room: int) -> Iterator[tuple[Path, Path]]:
    """A disk with so many kilobytes left, and the file that fills it."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", folder], check=True)
    try:
        ballast = folder / "ballast"
        with ballast.open("wb", buffering=0) as file:
            with suppress(OSError):
                while True:
                    file.write(bytes(2**16))
            file.truncate(file.tell() - room * 1024)
        yield folder, ballast
    finally:
        subprocess.run(["umount", "--lazy", folder], check=False)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "raylift", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def commands(given: Path, disk: Path) -> dict[str, list[object]]:
    """Of each command, its words; it writes below `disk`."""
    scan, xrays, prepared = given / "scans" / "phantom-0.nii.gz", given / "xrays", given / "prepared"
    return {
        "drr": ["drr", scan, "--pixels", 128, "-o", disk / "xrays"],
        "reconstruct": ["reconstruct", xrays, "-o", disk / "volume.nii.gz"],
        "data prepare": ["data", "prepare", given / "scans", "--voxels", 32, "--pixels", 64, "-o", disk / "prepared"],
        "train": ["train", given / "recipe.yaml", "--data", prepared, "-o", disk / "run"],
        "evaluate": ["evaluate", "chest-64", "--data", given / "prepared-64", "-o", disk / "report"],
    }


def main() -> None:
    argparse.ArgumentParser(description="Commands on a full disk.").parse_args()
    rows, held = [], True
    with tempfile.TemporaryDirectory() as place:
        given = Path(place) / "given"
        for seed in range(2):
            write_volume(thorax_phantom(seed, 6.0), given / "scans" / f"phantom-{seed}.nii.gz")
        (given / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
        run("drr", given / "scans" / "phantom-0.nii.gz", "-o", given / "xrays")
        for voxels, name in ((32, "prepared"), (64, "prepared-64")):
            done = run("data", "prepare", given / "scans", "--voxels", voxels, "-o", given / name)
            assert done.returncode == 0, done.stderr
        for name in commands(given, given):
            outcomes = Counter[str]()
            for number, room in enumerate(ROOM):
                with small_disk(Path(place) / f"disk-{name.replace(' ', '-')}-{number}", room) as (disk, ballast):
                    words = commands(given, disk)[name]
                    done = run(*words)
                    lines = [line for line in done.stderr.splitlines() if line.startswith("raylift: ")]
                    partial = [path.name for path in disk.rglob("*") if "partial" in path.name]
                    if "Traceback" in done.stderr:
                        outcome = "traceback"
                    elif partial:
                        outcome = f"left {partial}"
                    elif done.returncode == 0:
                        outcome = "done"
                    elif done.returncode == 1 and len(lines) == 1 and "the disk is full" in lines[0]:
                        outcome = "called full"
                    else:
                        outcome = f"ended with {done.returncode}: {done.stderr.strip()[-200:]}"
                    ballast.unlink()
                    again = run(*words, *(["--resume"] if name == "train" else []))
                    outcomes[outcome] += 1
                    print(f"{name}, {room} kB left: {outcome}", file=sys.stderr)
                    if again.returncode:
                        outcomes[f"not done when there was room: {again.stderr.strip()[-200:]}"] += 1
            good = outcomes["called full"] + outcomes["done"]
            held &= good == outcomes.total() == len(ROOM)
            others = "; ".join(
                f"{count} × {what}" for what, count in outcomes.items() if what not in ("called full", "done")
            )
            rows.append({"command": name, "tried": len(ROOM), "called full": outcomes["called full"],
                         "done": outcomes["done"], "else": others})  # fmt: skip
    print_table(rows)
    sys.exit(not held)


if __name__ == "__main__":
    main()
