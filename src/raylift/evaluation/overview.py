"""A prepared dataset at a glance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raylift.data.dataset import PreparedDataset
from raylift.evaluation.figures import SheetEntry, contact_sheet


def write_contact_sheet(folder: Path, records: dict[str, dict[str, Any]]) -> list[Path]:
    """A picture of every case, rejected ones with their reason, as `contact-sheet.png` in the dataset folder.

    Returns:
        The pages' paths.
    """
    dataset = PreparedDataset(folder)
    entries = []
    for name, record in records.items():
        if record["status"] != "ok":
            entries.append(SheetEntry(name, record["reason"], rejected=True))
            continue
        case = dataset.case(name)
        xrays = [(view.name, image) for view, image in zip(dataset.views, case.xrays, strict=True)]
        entries.append(SheetEntry(name, "; ".join(record["warnings"]), xrays, case.truth))
    return contact_sheet(entries, folder / "contact-sheet.png")
