"""Draw an overview of a prepared dataset."""

from __future__ import annotations

import math

from raylift.data.dataset import PreparedDataset
from raylift.parallel.cases import TaskRecord
from raylift.plots.sheets import SheetEntry, contact_sheet
from raylift.storage.atomic import atomic_write_folder
from raylift.storage.paths import StoragePath

MAX_PICTURES = 200


def write_contact_sheet(folder: StoragePath, records: dict[str, TaskRecord]) -> list[StoragePath]:
    """Write a picture of every case, or the reason of its rejection, to `contact-sheet.png` in the dataset folder.

    Of more than `MAX_PICTURES` cases only every second, third and so on is shown.

    Returns:
        The paths of the pages.
    """
    dataset = PreparedDataset(folder)
    entries = []
    for name in list(records)[:: math.ceil(len(records) / MAX_PICTURES)]:
        record = records[name]
        if record.status != "ok":
            entries.append(SheetEntry(name, record.reason, rejected=True))
            continue
        case = dataset.case(name)
        xrays = [(view.name, image) for view, image in zip(dataset.views, case.xrays, strict=True)]
        entries.append(SheetEntry(name, "; ".join(record.warnings), xrays, case.truth))
    with atomic_write_folder(folder) as temporary:
        pages = contact_sheet(entries, temporary / "contact-sheet.png")
    return [folder / page.name for page in pages]
