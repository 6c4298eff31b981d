import json
from pathlib import Path

import pytest
import SimpleITK as sitk

from raylift.evaluation import overview
from raylift.evaluation.figures import SheetEntry
from raylift.evaluation.overview import write_contact_sheet


def records(prepared: Path) -> dict[str, dict[str, object]]:
    good = json.loads((prepared / "cases" / "phantom-0" / "case.json").read_text())
    return {
        "phantom-0": {**good, "warnings": ["a", "b"]},
        "x": {"status": "rejected", "reason": "no lungs found"},
    }


def test_shows_each_case_and_each_reason(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[SheetEntry] = []
    monkeypatch.setattr(overview, "contact_sheet", lambda entries, path: shown.extend(entries) or [path])
    write_contact_sheet(prepared, records(prepared))
    good, rejected = shown
    assert (good.name, good.note, good.rejected) == ("phantom-0", "a; b", False)
    assert good.volume is not None
    assert good.volume.array.shape == (64, 64, 64)
    assert (rejected.name, rejected.note, rejected.rejected) == ("x", "no lungs found", True)


def test_writes_a_picture_into_the_dataset(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "cases").symlink_to(prepared / "cases")
    pages = write_contact_sheet(tmp_path, records(prepared))
    assert pages == [tmp_path / "contact-sheet.png"]
    assert min(sitk.ReadImage(str(pages[0])).GetSize()) > 100
