"""The commands as a user runs them, on phantoms; the demo as a program, the others in this process."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image

from commands import raylift, raylift_json
from helpers import random_weights
from radiograph_files import write_dicom
from raylift.data.thorax import find_thorax
from raylift.evaluation.scores import score
from raylift.geometry import VolumeGrid
from raylift.images.hounsfield import hu_to_normalised
from raylift.images.volume import Volume
from raylift.io.volumes import read_volume, write_volume
from raylift.model.weights import load_weights
from raylift.radiographs.sets import read_xrays
from raylift.reconstruction.outputs import FILE_KEYS
from repository import ROOT

SCORER = ROOT.parent / "shared" / "tools" / "score.py"


def picture(path: Path) -> np.ndarray:
    """Grey levels of a PNG, which must be large enough to read and show something."""
    levels = np.asarray(Image.open(path).convert("L"))
    assert min(levels.shape) > 200, path
    assert levels.std() > 10, path
    return levels


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def xrays(phantom_scans: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Folder and JSON of `raylift drr` on the first phantom."""
    folder = tmp_path_factory.mktemp("drr") / "xrays"
    scan = phantom_scans / "phantom-0.nii.gz"
    return folder, raylift_json("drr", scan, "--views", "0,90", "--pixels", 128, "-o", folder)


def test_demo(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    program = str(Path(sys.executable).with_name("raylift"))
    done = subprocess.run([program, "demo", "-o", folder], capture_output=True, text=True, check=True)
    volumes = [read_volume(folder / f"reconstruction.{ending}") for ending in ("nii.gz", "mha", "npy")]
    truth = read_volume(folder / "phantom.nii.gz")
    centre = find_thorax(truth).centre
    for volume in volumes:
        np.testing.assert_array_equal(volume.array, volumes[0].array)
        assert volume.grid.shape == (64, 64, 64)
        assert volume.grid.spacing == pytest.approx((5, 5, 5))
        assert volume.grid.centre == pytest.approx(centre, abs=0.01)
    picture(folder / "preview.png")
    assert {path.name for path in (folder / "xrays").iterdir()} == {"ap.mha", "lateral-right.mha", "xrays.json"}

    # The printed figures are those of the files, computed again.
    figures = json.loads((folder / "figures.json").read_text())
    unit = [hu_to_normalised(v.array.astype(np.float32)) for v in (volumes[0], truth.resample(volumes[0].grid))]
    expected = score(*unit, "hu")
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=2e-3)
    assert f"SSIM {figures['ssim']:.3f}" in done.stdout
    # Rays cross more than the cube, so even the true cube does not explain its X-rays.
    assert 0 < figures["reprojection_error_of_truth"] < 0.5
    assert f"{figures['reprojection_error']:.1%}" in done.stdout
    page = (folder / "report" / "report.md").read_text()
    assert "phantom" in page
    assert "(<../preview.png>)" in page
    assert not list(folder.rglob("*.partial*"))


def test_drr(phantom_scans: Path, xrays: tuple[Path, Any]) -> None:
    folder, printed = xrays
    centre = find_thorax(read_volume(phantom_scans / "phantom-0.nii.gz")).centre
    assert printed["isocentre_lps_mm"] == pytest.approx(centre)
    assert printed["xrays"] == [str(folder / "ap.mha"), str(folder / "lateral-right.mha")]
    sidecar = json.loads((folder / "xrays.json").read_text())
    assert [view["angle"] for view in sidecar["xrays"]] == [0, 90]
    for path in printed["xrays"]:
        image = sitk.ReadImage(path)
        assert image.GetSize() == (128, 128)
        assert image.GetSpacing() == pytest.approx((430 / 128,) * 2)
        # The mediastinum is some 10 to 30 cm of water and bone, 0.02 mm⁻¹; lateral rays cross more.
        assert 2 < sitk.GetArrayFromImage(image).max() < 14


def test_drr_at_a_given_isocentre_and_unit(phantom_scans: Path, tmp_path: Path) -> None:
    scan = phantom_scans / "phantom-0.nii.gz"
    where = ["--isocentre=1,-100,-300", "--geometry", "1000/1500/400", "--pixels", 32, "--views", "45"]
    printed = raylift_json("drr", scan, *where, "-o", tmp_path)
    assert printed["isocentre_lps_mm"] == [1, -100, -300]
    unit = json.loads((tmp_path / "xrays.json").read_text())["geometry"]
    assert (unit["source_axis_mm"], unit["source_detector_mm"], unit["detector_mm"], unit["pixels"]) == (
        1000,
        1500,
        400,
        32,
    )


def test_reconstruct_lands_on_the_thorax(
    xrays: tuple[Path, Any], weights: Path, phantom_scans: Path, tmp_path: Path
) -> None:
    output = tmp_path / "volume.nii.gz"
    report = raylift_json("reconstruct", xrays[0], "-o", output, "--weights", weights)
    image = sitk.ReadImage(str(output))
    centre = find_thorax(read_volume(phantom_scans / "phantom-0.nii.gz")).centre
    assert image.GetSize() == (64, 64, 64)
    assert image.GetSpacing() == pytest.approx((5, 5, 5))
    assert image.GetOrigin() == pytest.approx([c - 157.5 for c in centre], abs=1e-3)
    assert image.GetDirection() == pytest.approx((1, 0, 0, 0, 1, 0, 0, 0, 1))
    assert VolumeGrid.from_dict(report["grid"]).centre == pytest.approx(centre)
    named = {key: Path(report[key]).name for key in FILE_KEYS if key in report}
    assert report | named == json.loads((tmp_path / "volume-report.json").read_text())
    assert report["views"] == ["ap", "lateral-right"]
    assert report["weights_sha256"] == load_weights(weights).info.sha256
    assert "not a medical device" in report["purpose"]
    picture(tmp_path / "volume-preview.png")
    names = {"volume.nii.gz", "volume-report.json", "volume-report.html", "volume-preview.png"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_reconstruct_refined_and_aligned(xrays: tuple[Path, Any], weights: Path, tmp_path: Path) -> None:
    plain = raylift_json("reconstruct", xrays[0], "-o", tmp_path / "plain.mha", "--weights", weights)
    assert plain["refinement"] is None
    assert plain["aligned_views"] is None
    output = tmp_path / "refined.mha"
    _, said = raylift("reconstruct", xrays[0], "-o", output, "--weights", weights, "--refine", "--align")
    report = json.loads((tmp_path / "refined-report.json").read_text())
    told = report["refinement"]
    assert 1 <= told["iterations"] <= 20
    assert told["error_with_surroundings_after"] < told["error_with_surroundings_before"]
    assert f"to {told['error_with_surroundings_after']:.1%}" in said
    turned = np.array([view.get("turn_xyz_deg", [0, 0, 0]) for view in report["aligned_views"]])
    np.testing.assert_allclose(turned.mean(0), 0, atol=1e-9)
    assert "ap found turned by" in said
    assert report["reprojection_error"] < plain["reprojection_error"]
    assert read_volume(output).array.shape == (64, 64, 64)


def test_reconstruct_pictures(weights: Path, tmp_path: Path) -> None:
    rng, files = np.random.default_rng(0), []
    for name in ("front", "side"):
        files.append(tmp_path / f"{name}.png")
        Image.fromarray(rng.integers(0, 256, (90, 80)).astype(np.uint8)).save(files[-1])
    output = tmp_path / "out" / "volume.npy"
    report = raylift_json("reconstruct", *files, "--views", "pa,lateral-left", "-o", output, "--weights", weights)
    assert report["views"] == ["pa", "lateral-left"]
    assert [note.split(":")[0] for note in report["notes"][:2]] == ["front.png", "side.png"]
    assert "approximate" in report["notes"][0]
    assert read_volume(output).grid.centre == pytest.approx((0, 0, 0))
    names = {"volume.npy", "volume.json", "volume-report.json", "volume-report.html", "volume-preview.png"}
    assert {path.name for path in output.parent.iterdir()} == names


@pytest.fixture(scope="module")
def displayed(phantom_scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with display images of the first phantom, `pa.dcm` and `lateral.dcm`, whose spacing is right."""
    folder = tmp_path_factory.mktemp("displayed")
    views = "pa,lateral-left"
    raylift("drr", phantom_scans / "phantom-0.nii.gz", "--views", views, "--pixels", 128, "-o", folder / "drr")
    for name in ("pa", "lateral"):
        image = read_xrays(folder / "drr").images[int(name == "lateral")]
        levels = np.rint((image / image.max()) ** 0.8 * 4000).astype(np.uint16)
        write_dicom(folder / f"{name}.dcm", levels, ImagerPixelSpacing=[430 / 128] * 2)
    return folder


def test_a_spacing_that_was_kept_while_the_image_was_scaled(displayed: Path, tmp_path: Path) -> None:
    files = []
    for name in ("pa", "lateral"):
        dataset = pydicom.dcmread(displayed / f"{name}.dcm")
        dataset.ImagerPixelSpacing = [0.4 * 430 / 128] * 2
        dataset.save_as(tmp_path / f"{name}.dcm")
        files.append(tmp_path / f"{name}.dcm")
    command = ("reconstruct", *files, "--views", "pa,lateral-left", "-o", tmp_path / "volume.mha")
    report = raylift_json(*command)
    assert report["trust"].startswith("do not trust the volume")
    assert report["warnings"][0].startswith("pa.dcm: with pixels of 1.34 mm its chest has 0.4 times the usual size")
    assert any("it does not explain its X-rays" in warning for warning in report["warnings"])
    (tmp_path / "volume.mha").unlink()
    raylift(*command, "--strict", code=3)
    assert read_volume(tmp_path / "volume.mha").array.shape == (64, 64, 64)
    for size in (("--pixel-size", 430 / 128), ("--width", 430)):
        report = raylift_json(*command, "--strict", *size)
        assert report["warnings"] == []
        assert not report["trust"].startswith("do not trust")


def test_prepare(phantom_scans: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for seed in (0, 1):
        name = f"phantom-{seed}.nii.gz"
        (scans / name).write_bytes((phantom_scans / name).read_bytes())
    air = np.full((40, 40, 40), -1000, np.int16)
    air[10:30, 10:30, 10:30] = 200
    write_volume(Volume(air, VolumeGrid.box((0, 0, 0), air.shape, 8.0)), scans / "box.nii.gz")
    prepared = tmp_path / "prepared"
    settings = ["--pixels", 64, "--validation", "phantom-1", "--validation", "phantom-[1]", "--processes", 1]
    printed = raylift_json("data", "prepare", scans, "-o", prepared, *settings, code=3)  # one is rejected
    assert printed["prepared"] == 2
    assert {name: case["status"] for name, case in printed["cases"].items()} == {
        "box": "rejected",
        "phantom-0": "ok",
        "phantom-1": "ok",
    }
    assert json.loads((prepared / "splits.json").read_text()) == {"train": ["phantom-0"], "validation": ["phantom-1"]}
    for sheet in printed["contact_sheets"]:
        picture(Path(sheet))


def test_evaluate(prepared: Path, weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    printed = raylift_json("evaluate", weights, "--data", prepared, "-o", folder)
    assert (printed["protocol"], printed["split"]) == ("hu", "validation")
    assert [(case["name"], case["method"]) for case in printed["cases"]] == [
        ("phantom-2", "model"),
        ("phantom-2", "mean volume"),
    ]
    with (folder / "cases.csv").open(newline="") as file:
        assert [float(row["psnr"]) for row in csv.DictReader(file)] == [case["psnr"] for case in printed["cases"]]
    assert printed["summary"]["model"]["ssim"]["mean"] == printed["cases"][0]["ssim"]
    picture(folder / "cases" / "phantom-2" / "montage.png")


@pytest.mark.skipif(not SCORER.exists(), reason="the independent scorer lies beside the repository only")
def test_evaluate_agrees_with_an_independent_scorer(
    phantom_scans: Path, prepared: Path, weights: Path, tmp_path: Path
) -> None:
    # The whole way twice: drr, reconstruct and score.py on the scan; prepare and evaluate on the dataset.
    scan = phantom_scans / "phantom-2.nii.gz"
    raylift("drr", scan, "--pixels", 64, "-o", tmp_path / "xrays")
    raylift("reconstruct", tmp_path / "xrays", "-o", tmp_path / "volume.mha", "--weights", weights)
    command = [sys.executable, str(SCORER), str(scan), str(tmp_path / "volume.mha"), "--json"]
    theirs = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    ours = raylift_json("evaluate", weights, "--data", prepared, "-o", tmp_path / "report")["cases"][0]
    assert ours["ssim"] == pytest.approx(theirs["ssim"], abs=0.01)
    assert ours["psnr"] == pytest.approx(theirs["psnr"], abs=0.2)
    assert ours["mae_hu"] == pytest.approx(theirs["mae_hu"], rel=0.03)


def test_through_dicom_and_back(prepared: Path, weights: Path, tmp_path: Path) -> None:
    """Prepared case, DICOM radiographs, DICOM series, NIfTI by another's tool: the same volume, and the same scores."""
    scan = next((prepared / "cases").glob("*/ct.nii.gz"))
    for name, dicom in (("direct", ()), ("dicom", ("--dicom",))):
        raylift("drr", scan, "--pixels", 64, *dicom, "-o", tmp_path / f"{name}-xrays")
    raylift("reconstruct", tmp_path / "direct-xrays", "-o", tmp_path / "direct.nii.gz", "--weights", weights)
    raylift("reconstruct", tmp_path / "dicom-xrays", "-o", tmp_path / "series", "--weights", weights)
    direct, series = read_volume(tmp_path / "direct.nii.gz"), read_volume(tmp_path / "series")
    assert np.abs(series.array.astype(int) - direct.array).max() <= 1
    np.testing.assert_allclose(series.grid.index_to_world, direct.grid.index_to_world, atol=1e-4)
    if shutil.which("dcm2niix") is None or not SCORER.exists():
        return
    command = ["dcm2niix", "-z", "y", "-f", "back", "-o", tmp_path, tmp_path / "series"]
    subprocess.run(command, capture_output=True, check=True)
    scores = [
        json.loads(
            subprocess.run(
                [sys.executable, SCORER, scan, tmp_path / name, "--json"], capture_output=True, text=True, check=True
            ).stdout
        )
        for name in ("direct.nii.gz", "back.nii.gz")
    ]
    assert scores[1] == pytest.approx(scores[0], rel=1e-3)


def test_train_evaluate_reconstruct(prepared: Path, xrays: tuple[Path, Any], tmp_path: Path, previews: None) -> None:
    run = tmp_path / "run"
    sets = ["train.steps=1", "train.batch_size=1", "train.warmup=0", "data.xray_pixels=64", "train.lr=1e-4"]
    sets += ["train.precision=32-true", "data.augmentation={}", "data.projection_spacing=8"]
    options = [option for value in sets for option in ("--set", value)]
    out, err = raylift("train", ROOT / "recipes" / "cpu.yaml", "--data", prepared, "-o", run, *options)
    assert f"weights: {run / 'weights.safetensors'}" in out
    assert "cpu: 1 of 1" in err
    names = {"recipe", "run", "metrics", "timing", "events", "previews", "checkpoints", "weights", "ood"}
    assert {path.name.split(".")[0] for path in run.iterdir()} == names
    info = json.loads((run / "weights.json").read_text())
    assert info["recipe"]["train"]["lr"] == 1e-4
    picture(run / "previews" / "step-0000001.png")

    # The run is weights to the other commands, and says that it saw these cases.
    options = ["--data", prepared, "--split", "train", "--protocol", "paper"]
    text, _ = raylift("evaluate", run, *options, "-o", tmp_path / "report")
    assert "trained on 2 of these cases" in text
    assert "**paper**" in text
    assert text.strip() == (tmp_path / "report" / "report.md").read_text().strip()
    raylift("reconstruct", xrays[0], "-o", tmp_path / "volume.nrrd", "--weights", run)
    assert read_volume(tmp_path / "volume.nrrd").array.shape == (64, 64, 64)


def test_any_views_with_uncertainty(prepared: Path, xrays: tuple[Path, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    sets = ["train.steps=1", "train.batch_size=1", "data.xray_pixels=64", "data.augmentation={}"]
    options = [option for value in sets for option in ("--set", value)]
    raylift("train", ROOT / "recipes" / "any-views.yaml", "--data", prepared, "-o", run, *options)
    found = raylift_json("calibrate", run, "--data", prepared)
    assert found["cases"] == ["phantom-2"]
    assert json.loads((run / "weights.json").read_text())["uncertainty"] == found
    one = raylift_json("evaluate", run, "--data", prepared, "--views", "90", "-o", tmp_path / "report")
    assert {"coverage_95", "ood_score"} <= set(one["cases"][0])
    picture(tmp_path / "report" / "reliability.png")
    raylift("ensemble", run, run, "-o", tmp_path / "both")
    made = raylift_json("reconstruct", xrays[0], "-o", tmp_path / "volume.nii.gz", "--weights", tmp_path / "both")
    uncertainty, volume = read_volume(made["uncertainty"]), read_volume(made["volume"])
    assert Path(made["uncertainty"]).name == "volume-uncertainty.nii.gz"
    assert uncertainty.grid == volume.grid
    assert made["mean_uncertainty_hu"] == pytest.approx(float(uncertainty.array.mean()), rel=1e-3)
    assert uncertainty.array.min() > 0


def test_doctor() -> None:
    found = raylift_json("doctor")
    assert found["python"] == sys.version.split()[0]
    assert all(found["weights"][name].startswith("good") for name in ("chest-64", "chest-128"))
    assert "cpu" in found["devices"]
    assert found["packages"]["torch"].startswith("2.")
    assert found["engines"]["torch"] == "built in"
    assert found["threads"] >= 1


def test_only_the_output_folder_is_written(phantom_scans: Path, tmp_path: Path) -> None:
    # A command run elsewhere, with a relative output: nothing appears but what it was asked for.
    command = [str(Path(sys.executable).with_name("raylift")), "drr", str(phantom_scans / "phantom-1.nii.gz")]
    subprocess.run([*command, "--pixels", "32", "-o", "xrays"], cwd=tmp_path, check=True, capture_output=True)
    assert os.listdir(tmp_path) == ["xrays"]
