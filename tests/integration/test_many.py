"""The commands on many cases: folders here and in an object store, bad ones among them, and again."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import random_weights
from object_store import BUCKET, Store
from raylift.cli import main

Command = Callable[..., tuple[int, str, str]]
URL = f"s3://{BUCKET}"


@pytest.fixture
def raylift(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, in this process: exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["raylift", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def remote(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """The object store, with the environment of somebody who may write there."""
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "RAYLIFT_CACHE")
    for name, value in zip(names, (store.url, "test", "test", tmp_path / "cache"), strict=True):
        monkeypatch.setenv(name, str(value))
    return store


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(tmp_path_factory.mktemp("weights"))


def records(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/case.json")}


def content(store: Store, key: str) -> Any:
    return json.loads(store.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())


def test_folders_of_scans_and_of_xrays(raylift: Command, phantom_scans: Path, weights: Path, tmp_path: Path) -> None:
    scans, xrays, volumes = tmp_path / "scans", tmp_path / "xrays", tmp_path / "volumes"
    scans.mkdir()
    for name in ("phantom-0.nii.gz", "phantom-1.nii.gz"):
        (scans / name).symlink_to(phantom_scans / name)
    (scans / "cut.nii.gz").write_bytes((phantom_scans / "phantom-2.nii.gz").read_bytes()[:1000])
    project = ("drr", scans, "-o", xrays, "--pixels", 64, "--processes", 1)
    code, out, err = raylift(*project)
    assert (code, out) == (3, "")
    assert "cut: rejected: cut.nii.gz: cannot be read" in err
    assert f"2 of 3 scans projected in {xrays}" in err
    first = records(xrays)
    assert {name: record["status"] for name, record in first.items()} == {
        "phantom-0": "ok", "phantom-1": "ok", "cut": "rejected",
    }  # fmt: skip
    times = {path: path.stat().st_mtime_ns for path in xrays.rglob("*.mha")}
    assert raylift(*project)[0] == 3
    assert {path: path.stat().st_mtime_ns for path in xrays.rglob("*.mha")} == times

    (xrays / "phantom-1" / "ap.mha").write_bytes(b"damaged")
    lift = ("reconstruct", xrays, "-o", volumes, "--weights", weights, "--format", "nii.gz")
    code, out, err = raylift(*lift, "--json")
    assert code == 3
    found = json.loads(out)["cases"]
    assert {name: case["status"] for name, case in found.items()} == {"phantom-0": "ok", "phantom-1": "rejected"}
    assert "phantom-1: rejected: phantom-1/ap.mha" in err
    assert f"1 of 2 volumes in {volumes}" in err
    # What one at a time gives.
    assert raylift("reconstruct", xrays / "phantom-0", "-o", tmp_path / "one.nii.gz", "--weights", weights)[0] == 0
    assert (volumes / "phantom-0" / "volume.nii.gz").read_bytes() == (tmp_path / "one.nii.gz").read_bytes()
    assert sorted(found["phantom-0"]["files"]) == [
        "volume-preview.png", "volume-report.html", "volume-report.json", "volume.nii.gz",
    ]  # fmt: skip


def test_none_that_serves(raylift: Command, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for name in ("a.mha", "b.mha"):
        (tmp_path / "scans" / name).write_bytes(b"no scan")
    code, out, err = raylift("drr", tmp_path / "scans", "-o", tmp_path / "xrays", "--processes", 1)
    assert (code, out) == (3, "")
    assert err.splitlines()[-2:] == [
        f"0 of 2 scans projected in {tmp_path / 'xrays'}",
        f"raylift: {tmp_path / 'xrays'}: none could be done; see the lines above",
    ]
    code, _, err = raylift("reconstruct", tmp_path / "scans", "-o", tmp_path / "volumes", "--weights", weights)
    assert (code, "no xrays.json in it" in err) == (3, True)


def test_a_case_that_cannot_be_scored(raylift: Command, prepared: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").symlink_to(prepared / "dataset.json")
    (tmp_path / "cases").mkdir()
    for name in ("phantom-0", "phantom-2"):  # the third is lost
        (tmp_path / "cases" / name).symlink_to(prepared / "cases" / name)
    (tmp_path / "splits.json").write_text(
        json.dumps({"train": ["phantom-0"], "validation": ["phantom-1", "phantom-2"]})
    )
    code, out, err = raylift("evaluate", weights, "--data", tmp_path, "-o", tmp_path / "report", "--processes", 1)
    assert code == 3
    assert "Left out: phantom-1" in out
    assert f"raylift: {tmp_path}: phantom-1 could not be scored; {tmp_path}/report/report.md says why" in err


def test_from_a_store_to_a_store(
    raylift: Command, remote: Store, phantom_scans: Path, prepared: Path, weights: Path, tmp_path: Path
) -> None:
    for name in ("phantom-0", "phantom-1", "phantom-2"):
        remote.put(f"scans/{name}.nii.gz", (phantom_scans / f"{name}.nii.gz").read_bytes())
    options = ("--pixels", 64, "--validation", "phantom-2", "--processes", 1)
    prepare = ("data", "prepare", f"{URL}/scans", "-o", f"{URL}/prepared", *options)
    code, _, err = raylift(*prepare)
    assert (code, f"3 of 3 cases prepared in {URL}/prepared" in err) == (0, True), err
    for name, record in records(prepared / "cases").items():
        assert content(remote, f"prepared/cases/{name}/case.json")["sha256"] == record["sha256"]
    assert content(remote, "prepared/splits.json") == json.loads((prepared / "splits.json").read_text())

    remote.s3.delete_object(Bucket=BUCKET, Key="prepared/cases/phantom-1/xrays.mha")
    remote.uploads.clear()
    assert raylift(*prepare)[0] == 0
    assert {key.split("/")[2] for key in remote.uploads if key.startswith("prepared/cases/")} == {"phantom-1"}

    code, out, err = raylift("evaluate", weights, "--data", f"{URL}/prepared", "-o", f"{URL}/report", "--json")
    assert (code, json.loads(out)["cases"][0]["name"]) == (0, "phantom-2"), err
    assert content(remote, "report/cases/phantom-2/case.json")["status"] == "ok"
    here = json.loads(raylift("evaluate", weights, "--data", prepared, "-o", tmp_path / "report", "--json")[1])
    assert json.loads(out) == here

    assert raylift("drr", f"{URL}/scans/phantom-0.nii.gz", "-o", f"{URL}/xrays", "--pixels", 64)[0] == 0
    code, _, err = raylift("reconstruct", f"{URL}/xrays", "-o", f"{URL}/volume.mha", "--weights", weights)
    assert code == 0, err
    assert content(remote, "volume-report.json")["volume"] == "volume.mha"


def test_stores_that_cannot_be_reached(raylift: Command, remote: Store, tmp_path: Path) -> None:
    for scans, output, words in (
        (f"{URL}/nothing", tmp_path / "out", f"{URL}/nothing: cannot be read"),
        (tmp_path, "s3://nobody/prepared", "s3://nobody/prepared: nothing can be written there"),
    ):
        code, _, err = raylift("data", "prepare", scans, "-o", output)
        assert code == 3
        assert words in err
        assert len(err.splitlines()) == 1
