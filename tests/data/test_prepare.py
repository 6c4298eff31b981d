"""Preparing a folder of scans: what comes out, what is rejected, and that nothing is done twice or left damaged."""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pebble
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import generate_uid
from scipy.ndimage import map_coordinates

from object_store import dicom_series
from raylift.data import preparation as module
from raylift.data.preparation import Preparation, PreparationSettings, check_scan, prepare, prepare_case
from raylift.data.scans import find_scans
from raylift.drr import plastimatch
from raylift.drr.registry import load_projector
from raylift.errors import BadInput, DiskFull, WrongUsage
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.images.volume import Volume
from raylift.io.volumes import read_volume, write_volume
from raylift.parallel import cases as bulk
from raylift.parallel import executors as engines
from raylift.parallel.cases import TaskRecord
from raylift.parallel.executors import HERE, Executor

SETTINGS = PreparationSettings(64, (View(0.0), View(90.0)), Geometry.preset("chest-stand", 32))
FILES = ("ct.nii.gz", "context.npy", "xrays.mha", "case.json")


def water() -> Volume:
    """A box of water and some bone in air: Hounsfield units, and no lungs."""
    array = np.full((40, 40, 40), -1000, np.int16)
    array[5:35, 5:35, 5:35] = 0
    array[20, 20, 20] = 800
    return Volume(array, VolumeGrid.cube((0, 0, 0), 300, 40))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.*")}


@pytest.fixture
def case(phantom_scans: Path, prepared: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A scan of one's own, and a prepared case of it (32 pixels) to damage."""
    source = tmp_path / "phantom-0.nii.gz"
    shutil.copy(phantom_scans / source.name, source)
    prepare_case(source, tmp_path / "case", SETTINGS)
    return source, tmp_path / "case"


# --- The dataset ----------------------------------------------------------------------------------------------------


def test_dataset_description(prepared: Path) -> None:
    info = json.loads((prepared / "dataset.json").read_text())
    assert info["voxels"] == 64
    assert info["cube_mm"] == 320
    assert info["licence"] == "CC0-1.0"
    assert info["geometry"]["source_axis_mm"] == 1600
    assert info["geometry"]["pixels"] == 64
    assert [view["angle"] for view in info["views"]] == [0, 90]
    assert {name: case["status"] for name, case in info["cases"].items()} == {f"phantom-{k}": "ok" for k in range(3)}
    splits = json.loads((prepared / "splits.json").read_text())
    assert splits == {"train": ["phantom-0", "phantom-1"], "validation": ["phantom-2"]}


@pytest.mark.parametrize("name", ["phantom-0", "phantom-1"])
def test_cube_is_the_scan_around_its_isocentre(prepared: Path, phantom_scans: Path, name: str) -> None:
    folder = prepared / "cases" / name
    record = json.loads((folder / "case.json").read_text())
    cube, scan = read_volume(folder / "ct.nii.gz"), read_volume(phantom_scans / f"{name}.nii.gz")
    assert cube.array.dtype == np.int16
    assert cube.grid.shape == (64, 64, 64)
    assert cube.grid.spacing == pytest.approx((5, 5, 5))
    assert cube.grid.centre == pytest.approx(record["isocentre_lps_mm"], abs=1e-3)
    agrees_with(scan, cube)


def agrees_with(scan: Volume, part: Volume) -> None:
    """The part is SciPy's interpolation of the scan; neither is smoothed, as the part's voxels are no coarser."""
    size = np.array(scan.grid.shape[::-1])
    index = (part.grid.points() - scan.grid.origin) / scan.grid.spacing
    inside = ((index >= 0) & (index <= size - 1)).all(-1)
    wanted = map_coordinates(np.maximum(scan.array, -1000).astype(float), index[inside][:, ::-1].T, order=1)
    assert inside.mean() > 0.8
    assert np.abs(part.array[inside] - wanted).max() <= 0.75  # rounding
    beyond = ((index < -0.51) | (index > size - 0.49)).any(-1)
    assert (part.array[beyond] == -1000).all()


def test_stored_xrays_are_those_of_plastimatch(prepared: Path, phantom_scans: Path) -> None:
    folder = prepared / "cases" / "phantom-1"
    isocentre = json.loads((folder / "case.json").read_text())["isocentre_lps_mm"]
    stored = sitk.ReadImage(str(folder / "xrays.mha"))
    ours = sitk.GetArrayFromImage(stored)
    assert ours.shape == (2, 64, 64)
    assert ours.dtype == np.float32
    assert stored.GetSpacing()[:2] == pytest.approx((430 / 64, 430 / 64))
    scan = read_volume(phantom_scans / "phantom-1.nii.gz")
    theirs = load_projector("plastimatch")(scan, Geometry.preset("chest-stand", 64), [View(0.0), View(90.0)], isocentre)
    for a, b in zip(ours, theirs, strict=True):
        assert np.abs(a - b).mean() / b.mean() <= 0.02


def test_context_holds_the_whole_body(prepared: Path, phantom_scans: Path) -> None:
    folder = prepared / "cases" / "phantom-1"
    grid = VolumeGrid.from_dict(json.loads((folder / "case.json").read_text())["context_grid"])
    context, scan = np.load(folder / "context.npy"), read_volume(phantom_scans / "phantom-1.nii.gz")
    assert context.dtype == np.int16
    assert context.shape == grid.shape
    assert grid.spacing == (2.5, 2.5, 2.5)
    body = scan.array > -300
    index = (scan.grid.points()[body] - grid.origin) / 2.5
    assert (index > -1).all()
    assert (index < np.array(grid.shape[::-1])).all()
    agrees_with(scan, Volume(context, grid))


def test_a_folder_with_bad_scans(phantom_scans: Path, tmp_path: Path) -> None:
    """Bad scans are recorded with their reason, on the contact sheet too, and a second run does nothing again."""
    scans, out = tmp_path / "scans", tmp_path / "scans" / "prepared"  # the output among the scans, as users do
    (scans / "site b").mkdir(parents=True)
    shutil.copy(phantom_scans / "phantom-0.nii.gz", scans / "good.nii.gz")
    write_volume(water(), scans / "site b" / "no lungs.mha")
    (scans / "site b" / "notes.nii.gz").write_text("not a scan")
    seen: list[tuple[str, int, int]] = []
    records = prepare(scans, out, SETTINGS, executor=Executor(processes=1), progress=lambda *step: seen.append(step))
    assert [(done, total) for _, done, total in seen] == [(1, 3), (2, 3), (3, 3)]
    assert {name for name, _, _ in seen} == set(records)
    assert {name: record.status for name, record in records.items()} == {
        "good": "ok",
        "site_b_no_lungs": "rejected",
        "site_b_notes": "rejected",
    }
    assert records["site_b_no_lungs"].reason.startswith("no lungs found (0 ml")
    assert records["site_b_notes"].reason.startswith("notes.nii.gz: cannot be read")
    assert str(tmp_path) not in str(records)
    splits = json.loads((out / "splits.json").read_text())
    assert sorted(splits["train"] + splits["validation"]) == ["good"]
    assert json.loads((out / "dataset.json").read_text())["cases"]["site_b_notes"]["status"] == "rejected"
    assert not list((out / "cases" / "site_b_notes").glob("ct*"))

    before = times(out / "cases")
    assert len(before) == 4 + 2 + 0  # four files of the good case, a case.json of each other one
    again = prepare(scans, out, SETTINGS, executor=HERE)
    assert again == records
    assert times(out / "cases") == before


def test_nothing_usable(tmp_path: Path) -> None:
    write_volume(water(), tmp_path / "box.mha")
    with pytest.raises(BadInput, match=r"no usable scan \(box: no lungs found"):
        prepare(tmp_path, tmp_path / "out", SETTINGS, executor=HERE)
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_pattern_that_matches_nothing(phantom_scans: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"phantem-\*: matches no case; cases are named like phantom-0"):
        prepare(phantom_scans, tmp_path / "out", SETTINGS, validation=["phantom-1", "phantem-*"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("patterns", "held_out"),
    [(["phantom-[12]"], [1, 2]), (["*-0", "phantom-1"], [0, 1]), (["phantom-2"], [2])],
)
def test_validation_patterns(
    phantom_scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patterns: list[str], held_out: list[int]
) -> None:
    ok = TaskRecord(status="ok", sha256="0" * 64)
    monkeypatch.setattr(module, "run_tasks", lambda work, scans, *rest: dict.fromkeys(scans, ok))
    prepare(phantom_scans, tmp_path, SETTINGS, validation=patterns)
    splits = json.loads((tmp_path / "splits.json").read_text())
    assert splits["validation"] == [f"phantom-{k}" for k in held_out]
    assert splits["train"] == [f"phantom-{k}" for k in range(3) if k not in held_out]


def patients(numbers: Iterable[int]) -> dict[str, str]:
    """One scan each."""
    return {f"scan-{k:04}": f"patient {k}" for k in numbers}


@pytest.mark.parametrize(("cases", "fewest", "most"), [(1, 0, 0), (2, 1, 1), (3, 1, 2), (9, 1, 5), (2000, 360, 440)])
def test_without_patterns_about_a_fifth_is_held_out(cases: int, fewest: int, most: int) -> None:
    assert fewest <= len(module.held_out(patients(range(cases)))) <= most


def test_the_fifth_is_spread_over_the_names() -> None:
    """Names go by site and date, so the first or last of them are no sample."""
    numbers = [int(name[-4:]) for name in module.held_out(patients(range(2000)))]
    assert np.histogram(numbers, 4, (0, 2000))[0].min() >= 80  # 100 are expected in each quarter
    assert len(np.unique(np.diff(sorted(numbers)))) > 3


@pytest.mark.parametrize("left", [range(0, 2000, 2), range(1500), range(1000, 1050)])
def test_nobody_changes_sides_when_others_come_or_go(left: Sequence[int]) -> None:
    here = patients(left)
    assert set(module.held_out(here)) == set(module.held_out(patients(range(2000)))) & set(here)


def test_scans_of_a_patient_go_together() -> None:
    twice = {f"{name}-{visit}": who for name, who in patients(range(50)).items() for visit in (1, 2)}
    held = set(module.held_out(twice))
    assert {name.replace("-1", "-2") for name in held if name.endswith("-1")} == {n for n in held if n.endswith("-2")}
    assert module.held_out(twice, ["scan-0007-2", "scan-0001-*"]) == [
        "scan-0001-1", "scan-0001-2", "scan-0007-1", "scan-0007-2",
    ]  # fmt: skip


def test_one_name_for_all_patients_is_none(
    phantom_scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok = TaskRecord.model_validate({"status": "ok", "sha256": "0" * 64, "patient": "anonymous"})
    monkeypatch.setattr(module, "run_tasks", lambda work, scans, *rest: dict.fromkeys(scans, ok))
    prepare(phantom_scans, tmp_path, SETTINGS, validation=["phantom-1"])
    assert json.loads((tmp_path / "splits.json").read_text())["validation"] == ["phantom-1"]


@pytest.fixture
def visits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Scans that nobody looks into, two of each patient."""
    ok = TaskRecord(status="ok", sha256="0" * 64)
    monkeypatch.setattr(module, "run_tasks", lambda work, scans, *rest: dict.fromkeys(scans, ok))
    (tmp_path / "visits").mkdir()
    for who in ("ann", "bob", "eve"):
        for visit in (1, 2):
            (tmp_path / "visits" / f"{who}_{visit}.nii.gz").touch()
    return tmp_path / "visits"


def test_patients_are_told_by_a_pattern_or_a_table(visits: Path, tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("patient,case\n" + "".join(f"{n.split('_')[0]},{n}\n" for n in find_scans(visits)))
    for told in ("(.+)_[0-9]$", str(table)):
        prepare(visits, tmp_path / "out", SETTINGS, validation=["bob_2"], patients=told)
        splits = json.loads((tmp_path / "out" / "splits.json").read_text())
        assert splits["validation"] == ["bob_1", "bob_2"]
        assert splits["train"] == ["ann_1", "ann_2", "eve_1", "eve_2"]


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("(.+)_1$", "ann_2: --patients .* gives no patient for this scan"),
        (".+", r"no regular expression with a \(group\)"),
        ("(", "no such file, and no regular expression"),
        ("TABLE", "not a table of patients .no column 'case'"),
    ],
)
def test_patients_that_are_not_told(visits: Path, tmp_path: Path, told: str, says: str) -> None:
    (tmp_path / "TABLE").write_text("name,patient\nann_1,ann\n")
    told = str(tmp_path / told) if told == "TABLE" else told
    with pytest.raises((BadInput, WrongUsage), match=says):
        prepare(visits, tmp_path / "out", SETTINGS, patients=told)


def test_dense_tissue_is_projected_as_asked(tmp_path: Path, phantom_scans: Path) -> None:
    scan = read_volume(phantom_scans / "phantom-0.nii.gz")
    scan.array[scan.array > 300] = 2500
    write_volume(scan, tmp_path / "dense.mha")
    dense = Preparation(SETTINGS).compute(tmp_path / "dense.mha")
    asked = Preparation(replace(SETTINGS, most_hu=1000.0)).compute(tmp_path / "dense.mha")
    clamped = Volume(np.clip(scan.array, -1000, 1000), scan.grid)
    project = load_projector(SETTINGS.engine)
    assert np.array_equal(asked.xrays, project(clamped, SETTINGS.geometry, SETTINGS.views, dense.thorax.centre))
    assert asked.xrays.max() < dense.xrays.max()
    assert np.array_equal(asked.cube.array, dense.cube.array)
    assert np.array_equal(asked.context.array, dense.context.array)


def test_patients_are_told_by_dicom(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        for number, content in enumerate(dicom_series(water(), generate_uid())[:2]):
            file = pydicom.dcmread(BytesIO(content))
            file.PatientID = "one" if name != "c" else "other"
            file.save_as(tmp_path / name / f"{number}.dcm")
    a, b, c = (module.patient_of(tmp_path / name) for name in ("a", "b", "c"))
    assert a == b != c
    assert "one" not in a
    assert module.patient_of(tmp_path) == ""


# --- One case -------------------------------------------------------------------------------------------------------


def test_a_finished_case_is_kept(case: tuple[Path, Path]) -> None:
    source, folder = case
    before = times(folder)
    assert sorted(before) == sorted(FILES)
    prepare_case(source, folder, SETTINGS)
    assert times(folder) == before


def test_other_settings_do_it_again(case: tuple[Path, Path]) -> None:
    source, folder = case
    prepare_case(source, folder, replace(SETTINGS, geometry=Geometry.preset("chest-stand", 48), views=(View(45.0),)))
    assert sitk.ReadImage(str(folder / "xrays.mha")).GetSize() == (48, 48, 1)


def test_another_scan_of_the_same_name_does_it_again(case: tuple[Path, Path], phantom_scans: Path) -> None:
    source, folder = case
    first = contents(folder)
    shutil.copy(phantom_scans / "phantom-1.nii.gz", source)
    prepare_case(source, folder, SETTINGS)
    second = contents(folder)
    assert all(first[name] != second[name] for name in FILES)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["missing", "cut", "changed"])
def test_damage_is_repaired(case: tuple[Path, Path], name: str, harm: str) -> None:
    source, folder = case
    before = contents(folder)
    data = before[name]
    if harm == "missing":
        (folder / name).unlink()
    elif harm == "cut":
        (folder / name).write_bytes(data[: len(data) // 2])
    else:
        middle = len(data) // 2
        (folder / name).write_bytes(data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :])
    prepare_case(source, folder, SETTINGS)
    assert contents(folder) == before


def test_a_scan_that_goes_bad_takes_its_old_files_out_of_use(case: tuple[Path, Path]) -> None:
    source, folder = case
    write_volume(water(), source)
    record = prepare_case(source, folder, SETTINGS)
    assert record.status == "rejected"
    assert json.loads((folder / "case.json").read_text())["status"] == "rejected"


def test_an_interrupted_case_is_none(case: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the new settings beside the record of the old ones would pass for a case."""
    source, folder = case

    def interrupted(files: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(bulk, "checksum", interrupted)  # after all files are written
    with pytest.raises(KeyboardInterrupt):
        prepare_case(source, folder, replace(SETTINGS, geometry=Geometry.preset("chest-stand", 48)))
    assert contents(folder) == {}


def failing(error: Exception) -> Callable[..., np.ndarray]:
    def fail(*_: object) -> np.ndarray:
        raise error

    return fail


def test_an_unexpected_failure_is_recorded_and_tried_again(
    case: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, folder = case
    before = contents(folder)
    (folder / "xrays.mha").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("raylift.drr.projector.project_volume", failing(ZeroDivisionError(f"by zero\n in {source}")))
        record = prepare_case(source, folder, SETTINGS)
    assert (record.status, record.reason) == ("failed", f"ZeroDivisionError: by zero in {source.name}")
    assert json.loads((folder / "case.json").read_text()) == record.to_dict()
    prepare_case(source, folder, SETTINGS)
    assert contents(folder) == before


# As the system says it; as NumPy does of a short write; as ITK does of anything.
@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), OSError("5000 requested and 3 written"), RuntimeError("ITK ERROR")],
)
def test_a_full_disk_is_no_fault_of_the_scan(
    case: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    source, folder = case
    (folder / "xrays.mha").unlink()
    monkeypatch.setattr(module, "write_volume", failing(error))
    monkeypatch.setattr("raylift.storage.full_disk.try_writing", failing(OSError(28, "No space left on device")))
    with pytest.raises(DiskFull, match="the disk is full; make room"):
        prepare_case(source, folder, SETTINGS)
    assert not (folder / "case.json").exists()
    monkeypatch.undo()
    assert prepare_case(source, folder, SETTINGS).status == "ok"


class Threads(pebble.ThreadPool):
    """In place of processes."""

    def __init__(self, workers: int, *, context: object, **rest: Any) -> None:
        super().__init__(workers, **rest)

    def schedule(self, function: Any, args: Any, timeout: float) -> Any:
        return super().schedule(function, args)


def test_a_failure_cancels_what_is_queued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def full(work: object, case: object) -> None:
        begun.append(case)
        time.sleep(0.05)
        raise OSError(28, "No space left on device")

    # Threads, as a function of the test's own does not get into spawned processes.
    monkeypatch.setattr(pebble, "ProcessPool", Threads)
    monkeypatch.setattr(engines, "one_thread", lambda: None)
    monkeypatch.setattr(bulk, "run_case", full)
    for k in range(40):
        (tmp_path / f"case-{k:03}.mha").touch()
    with pytest.raises(OSError, match="No space left"):
        prepare(tmp_path, tmp_path / "out", SETTINGS, executor=Executor(processes=1))
    assert 1 <= len(begun) < 20


@pytest.mark.parametrize(
    ("installed", "geometry", "problem"),
    [
        (None, SETTINGS.geometry, "plastimatch is not installed.*--drr-engine torch"),
        (Path("plastimatch"), Geometry.preset("parallel", 32), "cone beams only.*--drr-engine torch"),
    ],
)
def test_an_engine_that_cannot_serve_is_told_at_once(
    phantom_scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    installed: Path | None,
    geometry: Geometry,
    problem: str,
) -> None:
    monkeypatch.setattr(plastimatch, "program", lambda: installed)
    with pytest.raises(WrongUsage, match=problem):
        prepare(phantom_scans, tmp_path / "out", replace(SETTINGS, engine="plastimatch", geometry=geometry))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("low", "high", "spacing", "problem"),
    [
        (0, 255, 5.0, "values from 0 to 255 are not Hounsfield units"),
        (-1000, 50, 5.0, "values from -1000 to 50 are not Hounsfield units"),
        (-1000, 1000, 12.0, "voxels of 12 mm"),
    ],
)
def test_what_no_chest_ct_looks_like(low: int, high: int, spacing: float, problem: str) -> None:
    array = np.linspace(low, high, 1000).reshape(10, 10, 10).astype(np.int16)
    with pytest.raises(BadInput, match=problem):
        check_scan(Volume(array, VolumeGrid.cube((0, 0, 0), 10 * spacing, 10)))


# --- Finding scans --------------------------------------------------------------------------------------------------


def test_scans_are_found_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "a" / "b c").mkdir(parents=True)
    (tmp_path / "dicom" / "series").mkdir(parents=True)
    for name in ("x.nii.gz", "a/y.MHA", "a/b c/z.v2.nrrd", "a/readme.txt", "a/xray.png"):
        (tmp_path / name).touch()
    for k in range(2):
        (tmp_path / "dicom" / "series" / f"{k}.dcm").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "dicom" / "LICENSE").write_text("text")
    assert find_scans(tmp_path) == {
        "a_b_c_z.v2": tmp_path / "a" / "b c" / "z.v2.nrrd",
        "a_y": tmp_path / "a" / "y.MHA",
        "dicom_series": tmp_path / "dicom" / "series",
        "x": tmp_path / "x.nii.gz",
    }
    assert list(find_scans(tmp_path, skip=tmp_path / "a")) == ["dicom_series", "x"]
    assert find_scans(tmp_path / "x.nii.gz") == {"x": tmp_path / "x.nii.gz"}
    assert find_scans(tmp_path / "dicom" / "series") == {"series": tmp_path / "dicom" / "series"}


def test_a_link_to_nothing_is_no_scan(tmp_path: Path) -> None:
    (tmp_path / "x.nii.gz").touch()
    (tmp_path / "LATEST").symlink_to(tmp_path / "gone")
    assert list(find_scans(tmp_path)) == ["x"]


def test_no_scans(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere: no such folder"):
        find_scans(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(BadInput, match="no CT scans in it"):
        find_scans(tmp_path)


@pytest.mark.parametrize("other", ["a_b.nii.gz", "a/b.mha"])
def test_two_scans_of_one_name(tmp_path: Path, other: str) -> None:
    """One would silently take the other's place."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.nii.gz").touch()
    (tmp_path / other).touch()
    with pytest.raises(BadInput, match=r"its case name would be a_b, like that of .*; rename one"):
        find_scans(tmp_path)
