"""Errors as a user reads them, also those that come from another process."""

import copy
import pickle
from pathlib import Path

import pytest

from raylift.errors import BadInput, DiskFull, Failed, WrongUsage, named


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (BadInput("a", "b"), "a: b"),
        (BadInput(Path("scans") / "x.mha", "cut\n  short", "copy it again"), "scans/x.mha: cut short; copy it again"),
    ],
)
def test_bad_input_is_one_line_and_survives_pickling(error: BadInput, line: str) -> None:
    assert str(error) == line
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is BadInput
        assert str(other) == line


@pytest.mark.parametrize(
    "error",
    [
        DiskFull(Path("full") / "x.mha"),
        DiskFull("full"),
        DiskFull("full", "set TMPDIR"),
        WrongUsage("no"),
        Failed("no"),
    ],
)
def test_every_error_survives_the_way_from_a_worker(error: Exception) -> None:
    sent = pickle.loads(pickle.dumps(error))
    assert (type(sent), str(sent)) == (type(error), str(error))
    assert getattr(sent, "errno", None) == getattr(error, "errno", None)


def test_a_full_disk_names_the_place_and_the_remedy() -> None:
    assert str(DiskFull("/full")) == "/full: the disk is full; make room or choose another folder, then try again"
    assert str(DiskFull("/full", "set TMPDIR")) == "/full: the disk is full; set TMPDIR, then try again"


def test_named_puts_the_file_for_the_scan() -> None:
    with pytest.raises(BadInput, match=r"^ct.mha: no lungs found; give a chest CT$"), named("ct.mha"):
        raise BadInput("scan", "no lungs found", "give a chest CT")
