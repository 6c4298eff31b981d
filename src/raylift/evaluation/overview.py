"""A prepared dataset at a glance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import SimpleITK as sitk

from raylift.evaluation.figures import SheetEntry, contact_sheet
from raylift.volumes import read_volume


def write_contact_sheet(folder: Path, records: dict[str, dict[str, Any]]) -> list[Path]:
    """A picture of every case, rejected ones with their reason, as `contact-sheet.png` in the dataset folder.

    Returns:
        The pages' paths.
    """
    entries = []
    for name, record in records.items():
        case = folder / "cases" / name
        if record["status"] != "ok":
            entries.append(SheetEntry(name, record["reason"], rejected=True))
            continue
        xrays = sitk.GetArrayFromImage(sitk.ReadImage(str(case / "xrays.mha")))
        entries.append(SheetEntry(name, "; ".join(record["warnings"]), xrays, read_volume(case / "ct.nii.gz")))
    return contact_sheet(entries, folder / "contact-sheet.png")
