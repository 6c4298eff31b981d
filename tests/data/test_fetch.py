"""Fetching from a local object store: whole scans or none, nothing twice, and where each comes from."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from object_store import BUCKET, Store, contents, dicom_series, index_of
from raylift.data import fetch as module
from raylift.data.fetch import Scan, check_space, fetch, provenance, read_sources, scans_of
from raylift.data.preparation import PreparationSettings, prepare
from raylift.data.scans import find_scans
from raylift.errors import BadInput
from raylift.geometry import Geometry
from raylift.images.volume import Volume
from raylift.io.volumes import read_volume, write_volume
from raylift.parallel.executors import HERE, Executor
from raylift.storage.atomic import write_json
from raylift.storage.copies import local_copy
from raylift.storage.paths import files_below, storage_path


def put(store: Store, *patients: str) -> list[Scan]:
    """Small scans of these patients, in the store."""
    return scans_of(index_of(*(store.add(patient) for patient in patients)), "v25")


def object_of(scan: Scan, number: int = 3) -> str:
    return f"{scan.url.removeprefix(f's3://{BUCKET}/').removesuffix('*')}{number}.dcm"


def sources(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "sources.json").read_text())["cases"]


# --- What arrives ---------------------------------------------------------------------------------------------------


def test_prepare_finds_a_case_per_patient(store: Store, tmp_path: Path) -> None:
    scans = put(store, "P-1", "P-2")
    steps: list[tuple[str, int, int]] = []
    assert fetch(scans, tmp_path / "scans", endpoint=store.url, progress=lambda *step: steps.append(step)) == {}
    assert find_scans(tmp_path / "scans") == {name: tmp_path / "scans" / name for name in ("P-1", "P-2")}
    for scan in scans:
        for number in range(5):
            stored = store.s3.get_object(Bucket=BUCKET, Key=object_of(scan, number))["Body"].read()
            assert (tmp_path / "scans" / scan.name / f"{number}.dcm").read_bytes() == stored
        assert read_volume(tmp_path / "scans" / scan.name).grid.shape == (5, 4, 4)
    assert [name for name, *_ in steps] == ["P-1", "P-2"]
    assert steps[-1][1] == steps[-1][2]
    assert {path.name for path in (tmp_path / "scans").iterdir()} == {"P-1", "P-2", "sources.json"}


def test_sources_say_where_scans_come_from(store: Store, tmp_path: Path) -> None:
    row = store.add("P 1", collection="spie_aapm_lung_ct_challenge")
    fetch(scans_of(index_of(row), "v25"), tmp_path, endpoint=store.url)
    assert sources(tmp_path) == {
        "P_1": {
            "collection": "spie_aapm_lung_ct_challenge",
            "doi": "10.7937/example",
            "licence": "CC BY 3.0",
            "idc_version": "v25",
            "patient_id": "P 1",
            "study_uid": row["StudyInstanceUID"],
            "series_uid": row["SeriesInstanceUID"],
            "url": row["series_aws_url"],
            "files": 5,
            "bytes": sum(path.stat().st_size for path in (tmp_path / "P_1").iterdir()),
            "state": "done",
        }
    }


@pytest.mark.parametrize("patient", ["../outside", "/etc/passwd", "..", "a/b", "-rf", "ä ö", "x\n"])
def test_no_name_leaves_the_folder(store: Store, tmp_path: Path, patient: str) -> None:
    scans = put(store, patient)
    assert fetch(scans, tmp_path / "scans", endpoint=store.url) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]
    assert list(find_scans(tmp_path / "scans")) == [scans[0].name]


def test_two_patients_of_one_name(store: Store) -> None:
    with pytest.raises(BadInput, match="2 patients"):
        put(store, "P 1", "p_1")


# --- Interruption and resumption ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_scan_counts_for_nothing(store: Store, tmp_path: Path, how: signal.Signals) -> None:
    scans = put(store, "P-1", "P-2", "P-3")
    (tmp_path / "scans.json").write_text(json.dumps([asdict(scan) for scan in scans]))
    output = tmp_path / "scans"
    store.held = object_of(scans[1])
    arguments = [sys.executable, Path(__file__).with_name("fetching_run.py"), tmp_path / "scans.json", output]
    # Where the tests run in the background, SIGINT is ignored, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    run = subprocess.Popen([*map(str, arguments), store.url], stderr=subprocess.DEVNULL)
    signal.signal(signal.SIGINT, before)
    try:
        assert store.asked.wait(20)
        while len(list(output.glob(".*/*/*.dcm"))) < 4:  # those that are not held back
            assert run.poll() is None
            time.sleep(0.05)
        run.send_signal(how)
        run.wait(10)
    finally:
        run.kill()
        store.go_on.set()
    assert list(find_scans(output)) == ["P-1"]
    assert list(sources(output)) == ["P-1"]

    store.held, before = None, contents(output / "P-1")
    store.downloads.clear()
    assert fetch(scans, output, endpoint=store.url) == {}
    assert list(find_scans(output)) == ["P-1", "P-2", "P-3"]
    assert contents(output / "P-1") == before
    assert not [key for key in store.downloads if key.startswith(object_of(scans[0]).partition("/")[0] + "/")]
    assert {path.name for path in output.iterdir()} == {"P-1", "P-2", "P-3", "sources.json"}


def test_finished_scans_are_not_downloaded_again(store: Store, tmp_path: Path) -> None:
    scans = put(store, "P-1", "P-2")
    fetch(scans, tmp_path, endpoint=store.url)
    store.downloads.clear()
    assert fetch(scans, tmp_path, endpoint=store.url) == {}
    assert store.downloads == []
    (tmp_path / "P-2" / "4.dcm").unlink()
    assert fetch(scans, tmp_path, endpoint=store.url) == {}
    assert len(store.downloads) == 5
    assert len(list((tmp_path / "P-2").iterdir())) == 5


def test_another_series_takes_the_place_of_the_former(store: Store, tmp_path: Path) -> None:
    fetch(put(store, "P-1"), tmp_path, endpoint=store.url)
    newer = scans_of(index_of({**store.add("P-1"), "series_size_MB": 1.0}), "v26")
    assert list(fetch(newer, tmp_path, endpoint=store.url)) == ["P-1"]
    assert (sources(tmp_path)["P-1"]["idc_version"], sources(tmp_path)["P-1"]["state"]) == ("v25", "done")
    fetch(scans_of(index_of(store.add("P-1", read_volume(tmp_path / "P-1"))), "v26"), tmp_path, endpoint=store.url)
    assert sources(tmp_path)["P-1"]["idc_version"] == "v26"


def test_scans_at_a_time(store: Store, tmp_path: Path) -> None:
    scans = put(store, "P-1", "P-2", "P-3")
    store.delete(object_of(scans[1]))
    assert list(fetch(scans, tmp_path, endpoint=store.url, executor=Executor("local", 2))) == ["P-2"]
    assert {name: case["state"] for name, case in sources(tmp_path).items()} == {
        "P-1": "done", "P-2": "failed", "P-3": "done",
    }  # fmt: skip


def test_into_a_store_as_a_whole_or_not_at_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    scans, output = put(store, "P-1", "P-2"), storage_path("memory://scans")
    upload, done = MemoryFileSystem.put, []

    def breaking(self: MemoryFileSystem, here: str, there: str) -> None:
        done.append(there)
        if len(done) == 4:  # sources.json is the first
            raise ConnectionError("down")
        upload(self, here, there)

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "put", breaking)
        failed = fetch(scans, output, endpoint=store.url)
    assert list(failed) == ["P-1"]
    assert "cannot be written" in failed["P-1"]
    assert files_below(output) == {"sources.json", *(f"P-2/{k}.dcm" for k in range(5))}
    # A process that was killed leaves what it had written.
    (output / "P-1" / "0.dcm").write_bytes(b"half")
    cases = {"P-1": {**read_sources(output)["P-1"], "state": "begun"}, "P-2": read_sources(output)["P-2"]}
    write_json({"format": 1, "cases": cases}, output / "sources.json")
    assert fetch(scans, output, endpoint=store.url) == {}
    with local_copy(output / "P-1") as series:
        assert read_volume(series).grid.shape == (5, 4, 4)
    assert list(provenance(find_scans(output))) == ["P-1", "P-2"]
    MemoryFileSystem.store.clear()


# --- What fails -----------------------------------------------------------------------------------------------------


def fails(store: Store, scans: list[Scan], output: Path, *words: str) -> None:
    """The first scan fails for this reason and leaves nothing; the second arrives."""
    failed = fetch(scans, output, endpoint=store.url)
    assert list(failed) == [scans[0].name]
    for word in words:
        assert word in failed[scans[0].name]
    assert {path.name for path in output.iterdir()} == {scans[1].name, "sources.json"}
    record = sources(output)[scans[0].name]
    assert (record["state"], record["reason"]) == ("failed", failed[scans[0].name])
    assert sources(output)[scans[1].name]["state"] == "done"


def test_a_missing_object(store: Store, tmp_path: Path) -> None:
    scans = put(store, "P-1", "P-2")
    content = store.s3.get_object(Bucket=BUCKET, Key=object_of(scans[0]))["Body"].read()
    store.delete(object_of(scans[0]))
    fails(store, scans, tmp_path, "4 files", "of 5")
    store.put(object_of(scans[0]), content)
    assert fetch(scans, tmp_path, endpoint=store.url) == {}
    assert sources(tmp_path)["P-1"]["state"] == "done"


def test_a_missing_series(store: Store, tmp_path: Path) -> None:
    scans = put(store, "P-1", "P-2")
    fails(store, [replace(scans[0], url=f"s3://{BUCKET}/nowhere/*"), scans[1]], tmp_path, "no object found")


def test_a_short_object(store: Store, tmp_path: Path) -> None:
    scans = put(store, "P-1", "P-2")
    content = store.s3.get_object(Bucket=BUCKET, Key=object_of(scans[0]))["Body"].read()
    store.put(object_of(scans[0]), content[:-1])
    fails(store, scans, tmp_path, f"{scans[0].bytes - 1} bytes arrived", str(scans[0].bytes))


def test_a_byte_that_is_another_on_the_way(store: Store, tmp_path: Path) -> None:
    scans = put(store, "P-1", "P-2")
    store.spoilt = object_of(scans[0])
    fails(store, scans, tmp_path, "3.dcm has the checksum")
    store.spoilt = None
    assert fetch(scans, tmp_path, endpoint=store.url) == {}


def test_an_object_of_the_right_size_that_is_something_else(store: Store, tmp_path: Path) -> None:
    scans = put(store, "P-1", "P-2")
    content = store.s3.get_object(Bucket=BUCKET, Key=object_of(scans[0]))["Body"].read()
    store.put(object_of(scans[0]), b"?" * len(content))
    fails(store, scans, tmp_path, "3.dcm is not a DICOM file")
    other = scans[0].series_uid[:-1] + ("1" if scans[0].series_uid[-1] != "1" else "2")
    store.put(object_of(scans[0]), content.replace(scans[0].series_uid.encode(), other.encode()))
    fails(store, scans, tmp_path, "3.dcm belongs to another series", other)


def test_a_folder_of_the_users_own_is_never_touched(store: Store, tmp_path: Path) -> None:
    scans = put(store, "P-1")
    (tmp_path / "P-1").mkdir()
    (tmp_path / "P-1" / "notes.txt").write_text("mine")
    for _ in range(2):
        assert "holds other files" in fetch(scans, tmp_path, endpoint=store.url)["P-1"]
        assert contents(tmp_path / "P-1") == {"notes.txt": b"mine"}


def test_a_store_out_of_reach_is_not_tried_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRIES", 0)
    template = Scan("", "lctsc", "", "", "v25", "", "", "", f"s3://{BUCKET}/x/*", 1, 1)
    scans = [replace(template, name=f"P-{k}") for k in range(8)]
    failed = fetch(scans, tmp_path, endpoint="http://127.0.0.1:9")
    assert ["refused" in reason for reason in failed.values()] == [True] * 5 + [False] * 3
    assert ["not tried" in reason for reason in failed.values()] == [False] * 5 + [True] * 3
    assert list(sources(tmp_path)) == [f"P-{k}" for k in range(5)]


def test_a_full_disk(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = [replace(scan, bytes=30_000_000_000) for scan in put(store, "P-1", "P-2")]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=50_000_000_000))
    check_space(scans[:1], tmp_path / "not" / "yet")
    with pytest.raises(BadInput, match=r"60\.0 GB do not fit: 50\.0 GB are free"):
        check_space(scans, tmp_path / "not" / "yet")


# --- Provenance in a prepared dataset -------------------------------------------------------------------------------


def test_provenance_arrives_in_the_dataset(
    store: Store, phantom: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = store.add("P-1", phantom)
    theirs = {**store.add("P-2", phantom), "license_short_name": "CC BY-NC 4.0", "collection_id": "midrc_ricord_1b"}
    scans = scans_of(index_of(ours, theirs), "v25")
    assert fetch(scans, tmp_path / "scans", endpoint=store.url) == {}
    write_volume(phantom, tmp_path / "scans" / "own.nii.gz")
    settings = PreparationSettings(geometry=Geometry.preset("chest-stand", 16))
    for licence, wanted in (("", "CC BY 3.0, CC BY-NC 4.0"), ("as agreed", "as agreed")):  # the second time resumed
        prepare(tmp_path / "scans", tmp_path / "prepared", settings, licence=licence, executor=HERE)
        info = json.loads((tmp_path / "prepared" / "dataset.json").read_text())
        assert {name: case["status"] for name, case in info["cases"].items()} == dict.fromkeys(
            ("P-1", "P-2", "own"), "ok"
        )
        assert info["cases"]["P-1"]["origin"] == {
            "collection": "lctsc",
            "doi": "10.7937/example",
            "licence": "CC BY 3.0",
            "idc_version": "v25",
            "patient_id": "P-1",
            "study_uid": ours["StudyInstanceUID"],
            "series_uid": ours["SeriesInstanceUID"],
        }
        assert "origin" not in info["cases"]["own"]
        assert info["collections"] == [
            {"collection": "lctsc", "doi": "10.7937/example", "licence": "CC BY 3.0", "idc_version": "v25", "cases": 1},
            {"collection": "midrc_ricord_1b", "doi": "10.7937/example", "licence": "CC BY-NC 4.0", "idc_version": "v25",
             "cases": 1},
        ]  # fmt: skip
        assert info["licence"] == wanted


def test_a_damaged_record_of_sources(phantom_scans: Path, tmp_path: Path) -> None:
    shutil.copy(phantom_scans / "phantom-0.nii.gz", tmp_path)
    (tmp_path / "sources.json").write_text("[]")
    with pytest.raises(BadInput, match=r"sources.json: not a record of fetched scans"):
        prepare(tmp_path, tmp_path / "prepared", PreparationSettings())


def test_stand_in_series_are_read_as_written(phantom: Volume, tmp_path: Path) -> None:
    for number, content in enumerate(dicom_series(phantom, "1.2.3")):
        (tmp_path / f"{number}.dcm").write_bytes(content)
    volume = read_volume(tmp_path)
    assert (volume.array == phantom.array).all()
    assert volume.grid.origin == pytest.approx(phantom.grid.origin, abs=1e-3)
