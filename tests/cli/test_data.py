"""`raylift data list` and `raylift data fetch`: what they print, when they ask, and their exit codes."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from object_store import Store, index_of
from raylift.cli import main
from raylift.data import collections, fetch

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def raylift(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command, in this process, without a terminal: exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["raylift", "data", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return run


@pytest.fixture
def lctsc(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with two patients of one collection, and a third with a scout only."""
    monkeypatch.setattr(collections, "FEWEST_SLICES", 5)
    rows: list[dict[str, Any]] = [store.add(name, slices=5) for name in ("P-1", "P-2")]
    rows.append(store.add("P-3", slices=2) | {"SeriesDescription": "Scout"})
    monkeypatch.setattr(collections, "read_index", lambda: index_of(*rows))
    monkeypatch.setenv("S3_ENDPOINT_URL", store.url)
    return store


def test_list_all(raylift: Run, index: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collections, "read_index", lambda: index)
    code, out, _ = raylift("list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(collections.COLLECTIONS)
    assert out.splitlines()[1].split()[1:4] == ["1010", "1018", "128.4"]


def test_list_one_as_json(raylift: Run, lctsc: Store) -> None:
    code, out, err = raylift("list", "lctsc", "--json")
    assert (code, err) == (0, "")
    (row,) = json.loads(out)
    assert (row["patients"], row["ct_series"], row["selected"], row["licence"]) == (3, 3, 2, "CC BY 3.0")


def test_list_patients(raylift: Run, lctsc: Store) -> None:
    code, out, _ = raylift("list", "lctsc", "--patient", "P-1", "--patient", "P-3")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["P-1", "P-3"]
    assert "a localizer" in out


def test_list_real_patient_as_json(raylift: Run, index: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collections, "read_index", lambda: index)
    rows = json.loads(raylift("list", "lidc_idri", "--patient", "LIDC-IDRI-0442", "--json")[1])
    assert [(row["slices"], row["thickness_mm"], row["verdict"]) for row in rows] == [
        (116, 3.0, "selected"),
        (107, 3.0, "passed over"),
    ]


def test_fetch(raylift: Run, lctsc: Store, tmp_path: Path) -> None:
    code, out, err = raylift("fetch", "lctsc", "-o", tmp_path, "--yes")
    assert (code, out) == (0, "")
    assert "2 scans" in err
    assert "CC BY 3.0, https://doi.org/10.7937/example" in err
    assert "1 patients of the collection have no series that serves" in err
    assert {path.name for path in tmp_path.iterdir()} == {"P-1", "P-2", "sources.json"}


def test_fetch_some(raylift: Run, lctsc: Store, tmp_path: Path) -> None:
    assert raylift("fetch", "lctsc", "-o", tmp_path / "a", "--yes", "--patients", 1)[0] == 0
    assert raylift("fetch", "lctsc", "-o", tmp_path / "b", "--yes", "--patient", "P-2")[0] == 0
    assert sorted(path.name for path in tmp_path.rglob("P-*")) == ["P-1", "P-2"]


def test_dry_run_downloads_nothing(raylift: Run, lctsc: Store, tmp_path: Path) -> None:
    code, _, err = raylift("fetch", "lctsc", "-o", tmp_path / "scans", "--dry-run")
    assert code == 0
    assert "to download: 2 scans, 0.00 GB" in err
    assert lctsc.downloads == []
    assert not (tmp_path / "scans").exists()


def test_asks_on_a_terminal(raylift: Run, lctsc: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer, code in ((False, 1), (True, 0)):
        asked: list[str] = []
        monkeypatch.setattr("typer.confirm", lambda text, a=answer, q=asked, **_: q.append(text) or confirm(a))
        assert raylift("fetch", "lctsc", "-o", tmp_path / "scans")[0] == code
        assert asked == ["Download?"]
        assert (tmp_path / "scans").exists() == answer


def confirm(answer: bool) -> None:
    import typer

    if not answer:
        raise typer.Abort


def test_does_not_ask_without_a_terminal(raylift: Run, lctsc: Store, tmp_path: Path) -> None:
    code, _, err = raylift("fetch", "lctsc", "-o", tmp_path / "scans")
    assert code == 2
    assert "give --yes" in err.splitlines()[-1]
    assert not (tmp_path / "scans").exists()


def test_what_failed_is_said(raylift: Run, lctsc: Store, tmp_path: Path) -> None:
    for item in lctsc.s3.list_objects_v2(Bucket="idc-open-data")["Contents"]:
        lctsc.put(item["Key"], b"damaged")
    code, _, err = raylift("fetch", "lctsc", "-o", tmp_path, "--yes")
    assert code == 1
    assert "P-1: failed: 5 files with 35 bytes arrived of 5 with" in err
    assert "0 of 2 scans are in" in err


def test_a_full_disk(raylift: Run, lctsc: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: usage._replace(free=100))
    code, _, err = raylift("fetch", "lctsc", "-o", tmp_path / "scans", "--yes")
    assert code == 3
    assert "do not fit" in err
    assert not (tmp_path / "scans").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("list", "lidc-idri"), "'lidc-idri' is no collection; the nearest is 'lidc_idri'"),
        (("list", "lctsc", "--patient", "P-11"), "'P-11' is no patient of lctsc with a CT; the nearest is 'P-1'"),
        (("list", "--patient", "P-1"), "--patient: name its collection too"),
        (("fetch", "lctcs", "-o", "OUT"), "'lctcs' is no collection; the nearest is 'lctsc'"),
        (("fetch", "lctsc", "-o", "OUT", "--patient", "P1"), "'P1' is no patient of lctsc with a CT"),
        (("fetch", "lctsc", "-o", "OUT", "--patient", "P-3"), "none of the series serves as a chest CT"),
        (("fetch", "lctsc", "-o", "OUT", "--patient", "P-1", "--patients", 2), "give one of them"),
    ],
)
def test_wrong_usage(raylift: Run, lctsc: Store, tmp_path: Path, arguments: tuple[object, ...], words: str) -> None:
    code, out, err = raylift(*(tmp_path / "scans" if a == "OUT" else a for a in arguments))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert list(tmp_path.iterdir()) == []


def test_without_idc_index(raylift: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "idc_index_data", None)
    assert raylift("list") == (2, "", "raylift: idc-index is not installed: pip install 'raylift[collections]'\n")
