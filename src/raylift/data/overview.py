"""A prepared dataset at a glance."""

from __future__ import annotations

import math
from typing import Any

from raylift.data.dataset import PreparedDataset
from raylift.plots.sheets import SheetEntry, contact_sheet
from raylift.storage.atomic import atomic_write_folder
from raylift.storage.paths import StoragePath

MOST = 200


def write_contact_sheet(folder: StoragePath, records: dict[str, dict[str, Any]]) -> list[StoragePath]:
    """A picture of every case, rejected ones with their reason, as `contact-sheet.png` in the dataset folder.

    Of more than `MOST` cases every second, third or so is shown.

    Returns:
        The pages' paths.
    """
    dataset = PreparedDataset(folder)
    entries = []
    for name in list(records)[:: math.ceil(len(records) / MOST)]:
        record = records[name]
        if record["status"] != "ok":
            entries.append(SheetEntry(name, record["reason"], rejected=True))
            continue
        case = dataset.case(name)
        xrays = [(view.name, image) for view, image in zip(dataset.views, case.xrays, strict=True)]
        entries.append(SheetEntry(name, "; ".join(record["warnings"]), xrays, case.truth))
    with atomic_write_folder(folder) as there:
        pages = contact_sheet(entries, there / "contact-sheet.png")
    return [folder / page.name for page in pages]
