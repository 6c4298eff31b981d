import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from raylift.data import overview
from raylift.data.overview import write_contact_sheet
from raylift.parallel.cases import TaskRecord
from raylift.plots.sheets import SheetEntry


def records(prepared: Path) -> dict[str, TaskRecord]:
    good = json.loads((prepared / "cases" / "phantom-0" / "case.json").read_text())
    return {
        "phantom-0": TaskRecord.model_validate({**good, "warnings": ["a", "b"]}),
        "x": TaskRecord(status="rejected", reason="no lungs found"),
    }


def test_shows_each_case_and_each_reason(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[SheetEntry] = []
    monkeypatch.setattr(overview, "contact_sheet", lambda entries, path: shown.extend(entries) or [path])
    write_contact_sheet(prepared, records(prepared))
    good, rejected = shown
    assert (good.name, good.note, good.rejected) == ("phantom-0", "a; b", False)
    assert good.volume is not None
    assert good.volume.array.shape == (64, 64, 64)
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(prepared / "cases" / "phantom-0" / "xrays.mha")))
    assert [name for name, _ in good.xrays] == ["ap", "lateral-right"]
    assert np.array_equal([image for _, image in good.xrays], stored)
    assert (rejected.name, rejected.note, rejected.rejected) == ("x", "no lungs found", True)


def test_xrays_bear_the_names_of_the_datasets_views(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cases", "splits.json"):
        (tmp_path / name).symlink_to(prepared / name)
    info = json.loads((prepared / "dataset.json").read_text())
    views = [{"angle": 180.0, "mirrored": False}, {"angle": 45.0, "mirrored": False}]
    (tmp_path / "dataset.json").write_text(json.dumps(info | {"views": views}))
    shown: list[SheetEntry] = []
    monkeypatch.setattr(overview, "contact_sheet", lambda entries, path: shown.extend(entries) or [path])
    write_contact_sheet(tmp_path, records(prepared))
    assert [name for name, _ in shown[0].xrays] == ["180", "45"]


def test_writes_a_picture_into_the_dataset(prepared: Path, tmp_path: Path) -> None:
    for name in ("cases", "dataset.json", "splits.json"):
        (tmp_path / name).symlink_to(prepared / name)
    pages = write_contact_sheet(tmp_path, records(prepared))
    assert pages == [tmp_path / "contact-sheet.png"]
    assert min(sitk.ReadImage(str(pages[0])).GetSize()) > 100
