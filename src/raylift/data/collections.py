"""The paper's public CT collections in the index of the Imaging Data Commons, and the choice of one series per patient.

The index comes with the package `idc-index-data`, so nothing here needs the network. It holds no slice positions,
kernels or image types: the choice relies on the free text of the descriptions and on the number of slices.
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

CHEST_MM, TRUNK_MM, BODY_MM = 300.0, 600.0, 900.0  # usual lengths of scans of the chest, of the trunk and for PET
MIN_SCAN_MM = 220.0  # the least length of a scan that contains the lungs
FINE_MM, IDEAL_MM = 3.0, 2.5  # thicker slices leave steps in the X-rays; prepared scans are stored at 2.5 mm
FEWEST_SLICES = 25  # enough for a chest at 10 mm, the coarsest slices that can be prepared

LOCALIZER = re.compile(r"scout|topogram|locali[sz]er|\bloc\b|smart ?prep|monitoring", re.I)
# Toshiba and Canon write the slices of a reformat with three decimals: "Body 3.000" beside "Body 5.0".
DERIVED = re.compile(r"\b(cor|sag|mip|mpr|ref|rfmt|fused)\b|coronal|sagit+al|reformat|processed|\d+\.000\b", re.I)
CHEST = re.compile(r"chest|thor|lung|pulm|\b(ch|chst|pe)\b", re.I)
TRUNK = re.compile(r"\b(cap|tap)\b|c/a/p", re.I)
BODY = re.compile(r"\bpet|skull to|whole ?body|\bwb\b", re.I)
OTHER_PARTS = re.compile(r"abd|pel|brain|head|neck|spin|lumbar|kidney|stone|cardiac|\bap\b", re.I)
SOFT = re.compile(r"soft|std|stnd|standard|body|mediast|\bst\b|\b[bi][1-4]\d[fs]?\b", re.I)
SHARP = re.compile(r"lung|\bhr\b|hi(gh)?[- ]?res|hres|bone|sharp|\b[bi][5-8]\d[fs]?\b", re.I)
# "5 MM", "1.25 x 1.25", or a decimal alone, as in "Chest  5.0  B30s".
THICKNESS = re.compile(
    r"(?<![\w./])(?:(\d{1,2}(?:\.\d{1,2})?)\s?(?:mm\b|x\s?\d)|(\d{1,2}\.\d{1,2})(?![\w./]))", re.I
)  # fmt: skip
# Why a series is worse than another of the same patient, in the order of the values of `preference`.
PREFERENCES = (
    "its slices are, or may be, more than 3 mm thick",
    "it shows more than the chest",
    "its kernel is sharper",
    "its number of slices is further from one per 2.5 mm",
    "it comes later",
)


def read_index() -> DataFrame:
    """Read all CT series of the seven collections from the installed index.

    Returns:
        One row per series with `COLUMNS`; missing values are "".

    Raises:
        WrongUsage: the index is not installed.
    """
    try:
        import pandas
        from idc_index_data import IDC_INDEX_PARQUET_FILEPATH
    except ImportError:
        raise WrongUsage("idc-index is not installed: pip install 'raylift[collections]'") from None
    filters = [("collection_id", "in", COLLECTIONS), ("Modality", "==", "CT")]
    index = pandas.read_parquet(IDC_INDEX_PARQUET_FILEPATH, columns=[*COLUMNS, "Modality"], filters=filters)
    return index[list(COLUMNS)].fillna("")


def data_version() -> str:
    """Return the data release of the Imaging Data Commons that the installed index describes, such as "v25"."""
    import idc_index_data

    return f"v{idc_index_data.__version__.split('.')[0]}"


def series_of(index: DataFrame, collection: str, patients: Sequence[str] = ()) -> DataFrame:
    """Return the series of a collection, or of some of its patients.

    Raises WrongUsage, through `known`, where there is no such collection or patient; the message suggests the nearest.

    Args:
        index: the table of `read_index`.
        collection: one of `COLLECTIONS`.
        patients: values of PatientID; all patients by default.
    """
    known(collection, COLLECTIONS, "collection")
    series = index[index.collection_id == collection]
    for patient in patients:
        known(patient, list(series.PatientID.unique()), f"patient of {collection} with a CT")
    return series[series.PatientID.isin(patients)] if patients else series


def thickness(description: str) -> float | None:
    """Return the slice thickness in mm in a series description; None where it has none."""
    match = THICKNESS.search(description)
    return float(match[1] or match[2]) if match else None


def rejection(series: Any) -> str:
    """Return why a series cannot be a patient's chest CT; "" if it can.

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
    if other := _other_part(series):
        return f"not the chest: '{other}'"
    slice_mm = thickness(text)
    if slice_mm and slice_mm * slices < MIN_SCAN_MM:
        return f"{slices} slices of {slice_mm:g} mm cover {slice_mm * slices:.0f} mm; lungs need {MIN_SCAN_MM:g}"
    return ""


def _other_part(series: Any) -> str:
    """Return the part of the body that a series shows instead of the chest; "" if it may show the chest."""
    if series.BodyPartExamined in ("CHEST", "LUNG"):
        return ""
    # A part in the series' own description takes precedence over the study's description.
    for text in (series.SeriesDescription, f"{series.BodyPartExamined} {series.StudyDescription}"):
        if any(part.search(text) for part in (CHEST, TRUNK, BODY)):
            return ""
        if other := OTHER_PARTS.search(text):
            return other[0]
    return ""


def preference(series: Any) -> tuple[Any, ...]:
    """Return the rank of a series among those of its patient; the smallest is the best.

    Args:
        series: a row of the index.

    Returns:
        A comparable tuple with a value for each of `PREFERENCES`.
    """
    text, slices = series.SeriesDescription, series.instanceCount
    description = f"{text} {series.BodyPartExamined} {series.StudyDescription}"
    trunk = TRUNK.search(description) or OTHER_PARTS.search(description)
    covered = BODY_MM if BODY.search(description) else TRUNK_MM if trunk else CHEST_MM
    slice_mm = thickness(text) or covered / slices
    kernel = bool(SHARP.search(text)) - bool(SOFT.search(text))
    deviation = round(abs(math.log(slices * IDEAL_MM / covered)), 3)
    number = int(series.SeriesNumber) if series.SeriesNumber.isdigit() else 0
    return slice_mm > FINE_MM, covered, kernel, deviation, (series.StudyDate, number, series.SeriesInstanceUID)


def judge(series: DataFrame) -> DataFrame:
    """Select each patient's chest CT, and give the reason for every series.

    Args:
        series: rows of the index with all CT series of some patients.

    Returns:
        The rows with the new columns `verdict` ("selected", "passed over" or "rejected") and `reason`, sorted by
        collection, patient, study and series number.
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
            verdicts[k], reasons[k] = "passed over", next((why for why, own, other in pairs if own != other), "")
        verdicts[best] = "selected"
        reasons[best] = "the best of the usable ones" if len(candidates) > 1 else "the only usable one"
    order = sorted(range(len(rows)), key=lambda k: (rows[k].collection_id, rows[k].PatientID, ranks[k][-1]))
    return series.assign(verdict=verdicts, reason=reasons).iloc[order].reset_index(drop=True)


def summarise_collections(index: DataFrame) -> list[dict[str, Any]]:
    """Return the size of each collection and of its selection: patients, CT series, GB, licence and DOI."""
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
