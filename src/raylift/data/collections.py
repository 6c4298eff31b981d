"""The paper's public CT collections: what the index of the Imaging Data Commons says, and one series per patient.

The index travels in the package `idc-index-data`, so nothing here needs the network. It holds no slice positions, no
kernels and no image types: the selection reads what people wrote into the descriptions, and counts slices.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raylift.errors import WrongUsage, known

if TYPE_CHECKING:
    from pandas import DataFrame

# Training set, then test sets, in the paper's order.
COLLECTIONS = (
    "lidc_idri",
    "covid_19_ny_sbu",
    "spie_aapm_lung_ct_challenge",
    "midrc_ricord_1b",
    "anti_pd_1_lung",
    "lctsc",
    "nsclc_radiomics",
)
COLUMNS = (
    "collection_id", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "StudyDate", "StudyDescription",
    "BodyPartExamined", "SeriesNumber", "SeriesDescription", "sop_class_name", "instanceCount", "series_size_MB",
    "license_short_name", "source_DOI", "series_aws_url",
)  # fmt: skip

CHEST_MM, TRUNK_MM, BODY_MM = 300.0, 600.0, 900.0  # what scans of the chest, of the trunk and for PET usually cover
SHORTEST_MM = 220.0  # what lungs need
FINE_MM, IDEAL_MM = 3.0, 2.5  # steps of thicker slices show in the X-rays; prepared scans are stored at 2.5 mm
FEWEST_SLICES = 25  # at 10 mm, the coarsest that is prepared, they cover a chest

LOCALIZER = re.compile(r"scout|topogram|locali[sz]er|\bloc\b|smart ?prep|monitoring", re.I)
# Toshiba and Canon write the slices of a reformat with three decimals: "Body 3.000" beside "Body 5.0".
DERIVED = re.compile(r"\b(cor|sag|mip|mpr|ref|rfmt|fused)\b|coronal|sagit+al|reformat|processed|\d+\.000\b", re.I)
CHEST = re.compile(r"chest|thor|lung|pulm|\b(ch|chst|pe)\b", re.I)
TRUNK = re.compile(r"\b(cap|tap)\b|c/a/p", re.I)
BODY = re.compile(r"\bpet|skull to|whole ?body|\bwb\b", re.I)
ELSEWHERE = re.compile(r"abd|pel|brain|head|neck|spin|lumbar|kidney|stone|cardiac|\bap\b", re.I)
SOFT = re.compile(r"soft|std|stnd|standard|body|mediast|\bst\b|\b[bi][1-4]\d[fs]?\b", re.I)
SHARP = re.compile(r"lung|\bhr\b|hi(gh)?[- ]?res|hres|bone|sharp|\b[bi][5-8]\d[fs]?\b", re.I)
# "5 MM", "1.25 x 1.25", or a decimal by itself, as in "Chest  5.0  B30s".
THICKNESS = re.compile(
    r"(?<![\w./])(?:(\d{1,2}(?:\.\d{1,2})?)\s?(?:mm\b|x\s?\d)|(\d{1,2}\.\d{1,2})(?![\w./]))", re.I
)  # fmt: skip
# Why one series of a patient is better than another; the first that differs decides.
PREFERENCES = (
    "its slices are, or may be, more than 3 mm thick",
    "it shows more than the chest",
    "its kernel is sharper",
    "its number of slices is further from one per 2.5 mm",
    "it comes later",
)


def read_index() -> DataFrame:
    """Every CT series of the seven collections, from the index that is installed.

    Returns:
        One row per series with `COLUMNS`; what the index leaves open is "".

    Raises:
        WrongUsage: the index is not installed.
    """
    try:
        import pandas
        from idc_index_data import IDC_INDEX_PARQUET_FILEPATH
    except ImportError:
        raise WrongUsage("idc-index is not installed: pip install 'raylift[collections]'") from None
    wanted = [("collection_id", "in", COLLECTIONS), ("Modality", "==", "CT")]
    index = pandas.read_parquet(IDC_INDEX_PARQUET_FILEPATH, columns=[*COLUMNS, "Modality"], filters=wanted)
    return index[list(COLUMNS)].fillna("")


def data_version() -> str:
    """The data release of the Imaging Data Commons that the installed index describes, such as "v25"."""
    import idc_index_data

    return f"v{idc_index_data.__version__.split('.')[0]}"


def of_patients(index: DataFrame, collection: str, patients: Sequence[str] = ()) -> DataFrame:
    """The series of one collection, and of some patients of it.

    Args:
        index: of `read_index`.
        collection: one of `COLLECTIONS`.
        patients: values of PatientID; all patients by default.

    Raises:
        WrongUsage: no such collection or patient; the message gives the nearest.
    """
    known(collection, COLLECTIONS, "collection")
    series = index[index.collection_id == collection]
    for patient in patients:
        known(patient, list(series.PatientID.unique()), f"patient of {collection} with a CT")
    return series[series.PatientID.isin(patients)] if patients else series


def thickness(description: str) -> float | None:
    """The slice thickness in mm that a series description states, if it does."""
    found = THICKNESS.search(description)
    return float(found[1] or found[2]) if found else None


def rejection(series: Any) -> str:
    """Why a series cannot be a patient's chest CT; "" if it can.

    Args:
        series: a row of the index.
    """
    text, slices = series.SeriesDescription, series.instanceCount
    if series.sop_class_name != "CT Image Storage":
        return f"no CT slices: {series.sop_class_name}"
    if slices < FEWEST_SLICES:
        if LOCALIZER.search(text):
            return "a localizer, or the timing of contrast"
        return f"too few slices for a chest: {slices} of at least {FEWEST_SLICES}"
    if derived := DERIVED.search(text):
        return f"derived from other slices: '{derived[0]}'"
    if other := _elsewhere(series):
        return f"not the chest: '{other}'"
    thick = thickness(text)
    if thick and thick * slices < SHORTEST_MM:
        return f"{slices} slices of {thick:g} mm cover {thick * slices:.0f} mm; lungs need {SHORTEST_MM:g}"
    return ""


def _elsewhere(series: Any) -> str:
    """The part of the body that a series shows instead of the chest; "" if it may show the chest."""
    if series.BodyPartExamined in ("CHEST", "LUNG"):
        return ""
    # The series' own description knows better than the study's, if it names any part.
    for text in (series.SeriesDescription, f"{series.BodyPartExamined} {series.StudyDescription}"):
        if any(part.search(text) for part in (CHEST, TRUNK, BODY)):
            return ""
        if other := ELSEWHERE.search(text):
            return other[0]
    return ""


def preference(series: Any) -> tuple[Any, ...]:
    """How a series compares with others of its patient: the smallest is the best, by `PREFERENCES`."""
    text, slices = series.SeriesDescription, series.instanceCount
    everything = f"{text} {series.BodyPartExamined} {series.StudyDescription}"
    trunk = TRUNK.search(everything) or ELSEWHERE.search(everything)
    covered = BODY_MM if BODY.search(everything) else TRUNK_MM if trunk else CHEST_MM
    thick = thickness(text) or covered / slices
    kernel = bool(SHARP.search(text)) - bool(SOFT.search(text))
    further = round(abs(math.log(slices * IDEAL_MM / covered)), 3)
    number = int(series.SeriesNumber) if series.SeriesNumber.isdigit() else 0
    return thick > FINE_MM, covered, kernel, further, (series.StudyDate, number, series.SeriesInstanceUID)


def judge(series: DataFrame) -> DataFrame:
    """Select each patient's chest CT, and say of every other series why it was not.

    Args:
        series: rows of the index, with all CT series of the patients in question.

    Returns:
        The rows with `verdict` ("selected", "passed over" or "rejected") and `reason`, by collection, patient, study
        and series number.
    """
    rows = list(series.itertuples(index=False))
    rejections, ranks = [rejection(row) for row in rows], [preference(row) for row in rows]
    usable = defaultdict(list)
    for k, row in enumerate(rows):
        if not rejections[k]:
            usable[row.collection_id, row.PatientID].append(k)
    verdicts, reasons = ["rejected"] * len(rows), rejections
    for candidates in usable.values():
        best = min(candidates, key=ranks.__getitem__)
        for k in candidates:
            pairs = zip(PREFERENCES, ranks[k], ranks[best], strict=True)
            verdicts[k], reasons[k] = "passed over", next((why for why, mine, its in pairs if mine != its), "")
        verdicts[best] = "selected"
        reasons[best] = "the best of those that serve" if len(candidates) > 1 else "the only one that serves"
    order = sorted(range(len(rows)), key=lambda k: (rows[k].collection_id, rows[k].PatientID, ranks[k][-1]))
    return series.assign(verdict=verdicts, reason=reasons).iloc[order].reset_index(drop=True)


def summarise(index: DataFrame) -> list[dict[str, Any]]:
    """What each collection holds and what of it is selected: patients, CT series, GB, licence and DOI."""
    judged = judge(index)
    rows = []
    for name in COLLECTIONS:
        series = judged[judged.collection_id == name]
        if len(series):
            selected = series[series.verdict == "selected"]
            rows.append(
                {
                    "collection": name,
                    "patients": series.PatientID.nunique(),
                    "ct_series": len(series),
                    "gb": round(float(series.series_size_MB.sum()) / 1000, 1),
                    "selected": len(selected),
                    "selected_gb": round(float(selected.series_size_MB.sum()) / 1000, 1),
                    "licence": ", ".join(sorted(series.license_short_name.unique())),
                    "doi": ", ".join(sorted(series.source_DOI.unique())),
                }
            )
    return rows
