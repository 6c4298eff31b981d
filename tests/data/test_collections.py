"""The public collections: totals of the real index, and which series is selected and why."""

import pandas as pd
import pytest

from raylift.data.collections import COLLECTIONS, COLUMNS, judge, series_of, summarise_collections, thickness
from raylift.errors import WrongUsage

THICK = "its slices are, or may be, more than 3 mm thick"

# --- The index that is installed ------------------------------------------------------------------------------------


def test_totals(index: pd.DataFrame) -> None:
    """Numbers that the collections' own pages give, of patients with a CT and their CT series."""
    rows = {row["collection"]: row for row in summarise_collections(index)}
    assert {name: (row["patients"], row["ct_series"]) for name, row in rows.items()} == {
        "lidc_idri": (1010, 1018),
        "covid_19_ny_sbu": (458, 3730),
        "spie_aapm_lung_ct_challenge": (70, 70),
        "midrc_ricord_1b": (117, 120),
        "anti_pd_1_lung": (46, 571),
        "lctsc": (60, 60),
        "nsclc_radiomics": (422, 422),
    }
    assert rows["lidc_idri"]["gb"] == pytest.approx(128, abs=1)
    assert rows["lidc_idri"]["doi"] == "10.7937/k9/tcia.2015.lo9ql9sx"
    assert {name for name, row in rows.items() if "NC" in row["licence"]} == {"midrc_ricord_1b", "nsclc_radiomics"}


def test_every_patient_of_a_chest_collection_has_one_scan(index: pd.DataFrame) -> None:
    rows = {row["collection"]: row for row in summarise_collections(index)}
    for name in set(COLLECTIONS) - {"covid_19_ny_sbu"}:
        assert rows[name]["selected"] == rows[name]["patients"]
    # Some of the others' CTs show the abdomen only.
    assert 350 < rows["covid_19_ny_sbu"]["selected"] < 458
    judged = judge(index)
    assert set(judged.SeriesInstanceUID) == set(index.SeriesInstanceUID)
    assert (judged.reason != "").all()
    assert judged[judged.verdict == "selected"].groupby(["collection_id", "PatientID"]).size().max() == 1
    usable = judged[judged.verdict != "rejected"]
    assert set(usable.PatientID) == set(judged[judged.verdict == "selected"].PatientID)


def verdicts(index: pd.DataFrame, collection: str, patient: str) -> list[tuple[str, str, int, str, str]]:
    columns = ["SeriesNumber", "SeriesDescription", "instanceCount", "verdict", "reason"]
    return list(judge(series_of(index, collection, [patient]))[columns].itertuples(index=False, name=None))


def test_a_patient_with_two_scans(index: pd.DataFrame) -> None:
    """Two scanners, the same thickness and kernel."""
    fewer = "its number of slices is further from one per 2.5 mm"
    assert verdicts(index, "lidc_idri", "LIDC-IDRI-0442") == [
        ("5405", "ThoraxRoutine  3.0  B31s", 116, "selected", "the best of the usable ones"),
        ("5472", "ThorRoutine  3.0  B31f", 107, "passed over", fewer),
    ]


def test_a_patient_scanned_twice_in_a_study(index: pd.DataFrame) -> None:
    """A CT angiography whose first run caught a part of the chest: 76 slices of 1.25 mm."""
    sagittal = "derived from other slices: 'SAGITAL'"
    coronal = "derived from other slices: 'CORONAL'"
    assert verdicts(index, "covid_19_ny_sbu", "A346398") == [
        ("1", "SCOUT AP/LAT", 2, "rejected", "a localizer, or the timing of contrast"),
        ("2", "CHEST 1.25 MM", 242, "selected", "the best of the usable ones"),
        ("4", "LUNG 1.25 MM", 242, "passed over", "its kernel is sharper"),
        ("5", "LUNG 5 MM", 61, "passed over", THICK),
        ("6", "CHEST 1.25 MM", 76, "rejected", "76 slices of 1.25 mm cover 95 mm; lungs need 220"),
        ("8", "LUNG 1.25 MM", 76, "rejected", "76 slices of 1.25 mm cover 95 mm; lungs need 220"),
        ("9", "LUNG 5 MM", 19, "rejected", "too few slices for a chest: 19 of at least 25"),
        ("601", "CORONAL PE MIP", 375, "rejected", coronal),
        ("602", "1 25 MM CORONAL", 300, "rejected", coronal),
        ("603", "1 25 MM SAGITAL", 300, "rejected", sagittal),
        ("605", "CORONAL PE MIP", 289, "rejected", coronal),
        ("606", "1 25 MM CORONAL", 232, "rejected", coronal),
        ("607", "1 25 MM SAGITAL", 300, "rejected", sagittal),
    ]


def test_a_patient_with_two_studies(index: pd.DataFrame) -> None:
    """Chest with abdomen and pelvis, and later the chest alone."""
    more, derived = "it shows more than the chest", "derived from other slices: "
    assert verdicts(index, "anti_pd_1_lung", "PD-1-Lung-00008") == [
        ("1", "SCOUT - CAP", 3, "rejected", "a localizer, or the timing of contrast"),
        ("2", "ST+ N16/13/18 A0", 246, "passed over", more),
        ("3", "ST+ N16/13/18 A20/30", 489, "passed over", more),
        ("4", "LUNG+ N16 A30", 153, "passed over", THICK),
        ("201", "Smart Prep Series", 10, "rejected", "a localizer, or the timing of contrast"),
        ("601", "CH COR", 209, "rejected", derived + "'COR'"),
        ("602", "CH SAG", 308, "rejected", derived + "'SAG'"),
        ("604", "MIP LUNG", 130, "rejected", derived + "'MIP'"),
        ("606", "ABD COR", 132, "rejected", derived + "'COR'"),
        ("607", "ABD SAG", 173, "rejected", derived + "'SAG'"),
        ("1", "SCOUT", 2, "rejected", "a localizer, or the timing of contrast"),
        ("2", "STD+ NI 23 A40%", 154, "selected", "the best of the usable ones"),
        ("3", "LUNG+ NI 23 A40%", 154, "passed over", "its kernel is sharper"),
        ("601", "CH COR", 205, "rejected", derived + "'COR'"),
        ("602", "CH SAG", 308, "rejected", derived + "'SAG'"),
        ("604", "MIP LUNG", 130, "rejected", derived + "'MIP'"),
    ]


def test_a_patient_whose_cts_show_the_abdomen(index: pd.DataFrame) -> None:
    rows = verdicts(index, "covid_19_ny_sbu", "A703220")
    assert len(rows) == 12
    assert {verdict for *_, verdict, _ in rows} == {"rejected"}
    assert ("2", "ABDOMEN/PELVIS 2.5 MM", 190, "rejected", "not the chest: 'ABD'") in rows


# --- Each rule ------------------------------------------------------------------------------------------------------


def patient(*series: dict[str, object]) -> pd.DataFrame:
    """One patient's series: axial chest CTs of 120 slices unless said otherwise."""
    usual = dict.fromkeys(COLUMNS, "") | {
        "collection_id": "lctsc",
        "PatientID": "P",
        "SeriesDescription": "CHEST",
        "sop_class_name": "CT Image Storage",
        "instanceCount": 120,
        "series_size_MB": 60.0,
    }
    rows = [usual | {"SeriesNumber": str(k), "SeriesInstanceUID": f"1.{k}"} | row for k, row in enumerate(series)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        ({"sop_class_name": "Secondary Capture Image Storage"}, "no CT slices: Secondary Capture Image Storage"),
        ({"SeriesDescription": "Topogram  0.6  T20f", "instanceCount": 1}, "a localizer"),
        ({"SeriesDescription": "Smart Prep Series", "instanceCount": 24}, "a localizer, or the timing of contrast"),
        ({"instanceCount": 24}, "too few slices for a chest: 24 of at least 25"),
        ({"SeriesDescription": "CHEST SAGITTAL"}, "derived from other slices: 'SAGITTAL'"),
        ({"SeriesDescription": "Coronal 3 x 3"}, "derived from other slices: 'Coronal'"),
        ({"SeriesDescription": "MIP Lung  F_0.6"}, "derived from other slices: 'MIP'"),
        ({"SeriesDescription": "Body 3.000 CE"}, "derived from other slices: '3.000'"),
        ({"SeriesDescription": "ABD/PEL 2.5 MM"}, "not the chest: 'ABD'"),
        ({"SeriesDescription": "BONE", "BodyPartExamined": "HEAD"}, "not the chest: 'HEAD'"),
        ({"SeriesDescription": "2.5", "StudyDescription": "CT ABD AND PELVIS WO IV CONT"}, "not the chest: 'ABD'"),
        ({"SeriesDescription": "CHEST 1.25 MM", "instanceCount": 80}, "80 slices of 1.25 mm cover 100 mm"),
    ],
)  # fmt: skip
def test_rejected(series: dict[str, object], reason: str) -> None:
    judged = judge(patient(series)).iloc[0]
    assert judged.verdict == "rejected"
    assert judged.reason.startswith(reason)


@pytest.mark.parametrize(
    "series",
    [
        {"SeriesDescription": ""},
        {"instanceCount": 25},
        {"SeriesDescription": "PE Smart Prep Left Atrium", "instanceCount": 256},
        {"SeriesDescription": "Ave-IP(10) 0%_10%_20%"},
        {"SeriesDescription": "Correction"},
        {"SeriesDescription": "AbdRoutine  5.0  B31f", "BodyPartExamined": "CHEST"},
        {"SeriesDescription": "LUNG HR 1.25 MM", "StudyDescription": "CT ABD AND PELVIS", "instanceCount": 250},
        {"SeriesDescription": "CT Soft", "StudyDescription": "PETCT SUBSEQUENT TREAT"},
        {"SeriesDescription": "ST+", "StudyDescription": "CAP W CONTRAST"},
        {"SeriesDescription": "2.5mm C/A/P; 1.25mm Neck"},
    ],
)
def test_accepted(series: dict[str, object]) -> None:
    judged = judge(patient(series)).iloc[0]
    assert (judged.verdict, judged.reason) == ("selected", "the only usable one")


@pytest.mark.parametrize(
    ("better", "worse", "reason"),
    [
        ({"SeriesDescription": "LUNG 2.5 MM"}, {"SeriesDescription": "5 MM STANDARD"}, THICK),
        ({"instanceCount": 100}, {"instanceCount": 99}, THICK),
        ({}, {"StudyDescription": "CT CHEST ABDOMEN", "instanceCount": 240}, "it shows more than the chest"),
        ({"StudyDescription": "CT CHEST ABDOMEN", "instanceCount": 240},
         {"StudyDescription": "PET/CT", "instanceCount": 360}, "it shows more than the chest"),
        ({"SeriesDescription": "CHEST STD"}, {"SeriesDescription": "CHEST"}, "its kernel is sharper"),
        ({"SeriesDescription": "CHEST"}, {"SeriesDescription": "LUNG"}, "its kernel is sharper"),
        ({"SeriesDescription": "Chest  3.0  B31f"}, {"SeriesDescription": "Chest  3.0  B70f"}, "its kernel is sharper"),
        ({"instanceCount": 130}, {"instanceCount": 480}, "its number of slices is further from one per 2.5 mm"),
        ({"StudyDate": "2001-01-01"}, {"StudyDate": "2002-01-01"}, "it comes later"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("swap", [False, True])
def test_preferred(better: dict[str, object], worse: dict[str, object], reason: str, swap: bool) -> None:
    better, worse = better | {"SeriesInstanceUID": "better"}, worse | {"SeriesInstanceUID": "worse"}
    judged = judge(patient(*((worse, better) if swap else (better, worse)))).set_index("SeriesInstanceUID")
    assert judged.verdict.to_dict() == {"better": "selected", "worse": "passed over"}
    assert judged.reason["worse"] == reason


@pytest.mark.parametrize(
    ("description", "mm"),
    [
        ("LUNG 5 MM", 5), ("HR CHEST 1.25 X 1.25", 1.25), ("LUNG 5X5", 5), ("Chest  3.0  B70s", 3), ("2.5", 2.5),
        ("SOFT TISSUE 1.5MM  F_0.6", 1.5), ("PE CHEST  1.5  I31f  2  F_0.6", 1.5), ("ST+ N12/10.7/13.8 A30", None),
        ("NLST_0.6_ B30f", None), ("Body 3.000", None), ("135cc  4cc/sec", None), ("", None),
    ],
)  # fmt: skip
def test_thickness(description: str, mm: float | None) -> None:
    assert thickness(description) == mm


def test_names_that_do_not_exist() -> None:
    frame = patient({"PatientID": "LCTSC-Test-S1-101"})
    with pytest.raises(WrongUsage, match="'lidc_idry' is no collection; the nearest is 'lidc_idri'"):
        series_of(frame, "lidc_idry")
    with pytest.raises(WrongUsage, match=r"'LCTSC-S1-101' is no patient of lctsc with a CT; .* 'LCTSC-Test-S1-101'"):
        series_of(frame, "lctsc", ["LCTSC-S1-101"])
