"""Every mistake a user can make is one line, the right exit code, and nothing half-written."""

import gzip
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from pydicom.uid import generate_uid

from dicom_files import ct_slice
from helpers import random_weights
from raylift.cli import main
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.images.volume import Volume
from raylift.images.xray_set import XraySet
from raylift.io.volumes import write_volume
from raylift.radiographs.sets import write_xrays
from raylift.storage.atomic import write_json
from repository import ROOT

RECIPE = ROOT / "recipes" / "cpu.yaml"


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def raylift(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """The command, in this process."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["raylift", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return Outcome(caught.value.code, captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Where the command would write; its folder holds nothing else."""
    (tmp_path / "written").mkdir()
    return tmp_path / "written" / "output"


def expect(outcome: Outcome, output: Path, *words: object, code: int = 3) -> None:
    """One line with the words, and no trace of any output."""
    assert outcome.code == code, outcome
    assert outcome.out == ""
    assert re.fullmatch(r"raylift: [^\n]+\n", outcome.err), outcome.err
    for word in words:
        assert str(word) in outcome.err, (word, outcome.err)
    assert list(output.parent.iterdir()) == []


def write_ct(path: Path, array: np.ndarray, spacing: float = 8.0) -> Path:
    return write_volume(Volume(array, VolumeGrid.box((0, 0, 0), array.shape, spacing)), path)


def lungless(path: Path) -> Path:
    """A head of water and bone, in air."""
    array = np.full((40, 40, 40), -1000, np.int16)
    array[5:-5, 5:-5, 5:-5] = 40
    array[10:-10, 10:12, 10:-10] = 900
    return write_ct(path, array)


def dicom_slices(folder: Path, series: int, slices: int = 3) -> None:
    """CT series of one study in one folder."""
    folder.mkdir()
    for number in range(series):
        uid = generate_uid()
        for k in range(slices):
            made = ct_slice(np.zeros((8, 8), np.int16), (0, 0, 5 * k), (5, 5, 5), uid)
            made.save_as(folder / f"{number}-{k}.dcm", enforce_file_format=True)


class TestMissing:
    def test_ct(self, raylift, tmp_path: Path, output: Path) -> None:
        expect(raylift("drr", tmp_path / "ct.nii.gz", "-o", output), output, tmp_path / "ct.nii.gz", "no such file")

    def test_scans(self, raylift, tmp_path: Path, output: Path) -> None:
        outcome = raylift("data", "prepare", tmp_path / "scans", "-o", output)
        assert outcome.code == 3
        assert f"{tmp_path / 'scans'}: no such folder" in outcome.err
        assert not output.exists()

    def test_xray(self, raylift, tmp_path: Path, output: Path, weights: Path) -> None:
        files = [tmp_path / "pa.png", tmp_path / "lateral.png"]
        outcome = raylift("reconstruct", *files, "--views", "0,90", "-o", f"{output}.mha", "--weights", weights)
        expect(outcome, output, files[0], "no such file")

    def test_folder_of_xrays(self, raylift, tmp_path: Path, output: Path, weights: Path) -> None:
        outcome = raylift("reconstruct", tmp_path, "-o", f"{output}.mha", "--weights", weights)
        expect(outcome, output, tmp_path, "xrays.json")

    def test_weights(self, raylift, tmp_path: Path, output: Path) -> None:
        outcome = raylift("reconstruct", tmp_path, "-o", f"{output}.mha", "--weights", tmp_path / "none")
        expect(outcome, output, tmp_path / "none", "no weights")

    def test_dataset(self, raylift, tmp_path: Path, output: Path, weights: Path) -> None:
        for arguments in (("evaluate", weights), ("train", RECIPE)):
            outcome = raylift(*arguments, "--data", tmp_path, "-o", output)
            assert outcome.code == 3
            assert f"{tmp_path}: not a prepared dataset" in outcome.err.splitlines()[-1]
            assert not output.exists()


class TestCt:
    def test_truncated(self, raylift, phantom: Volume, tmp_path: Path, output: Path) -> None:
        file = write_volume(phantom, tmp_path / "cut.nii.gz")
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        expect(raylift("drr", file, "-o", output), output, file, "cannot be read")

    def test_packed_again_too_short(self, raylift, phantom: Volume, tmp_path: Path, output: Path) -> None:
        file = write_volume(phantom, tmp_path / "short.nii.gz")
        content = gzip.decompress(file.read_bytes())
        file.write_bytes(gzip.compress(content[:-5000]))
        expect(raylift("drr", file, "-o", output), output, file, "cannot be read")

    def test_text(self, raylift, tmp_path: Path, output: Path) -> None:
        for name in ("note.nii.gz", "note.mha", "note.nrrd"):
            (tmp_path / name).write_text("not a CT")
            expect(raylift("drr", tmp_path / name, "-o", output), output, tmp_path / name, "cannot be read")

    def test_unknown_format(self, raylift, tmp_path: Path, output: Path) -> None:
        (tmp_path / "ct.doc").write_text("x")
        expect(raylift("drr", tmp_path / "ct.doc", "-o", output), output, "ct.doc", ".nii.gz")

    def test_without_lungs(self, raylift, tmp_path: Path, output: Path) -> None:
        file = lungless(tmp_path / "head.nii.gz")
        expect(raylift("drr", file, "-o", output), output, file, "no lungs found", "give a chest CT")

    def test_not_in_hounsfield_units(self, raylift, tmp_path: Path, output: Path) -> None:
        array = np.random.default_rng(0).integers(0, 255, (40, 40, 40)).astype(np.int16)
        file = write_ct(tmp_path / "mri.nii.gz", array)
        expect(raylift("drr", file, "-o", output), output, file, "not Hounsfield units")

    @pytest.mark.parametrize("name", ["ct.npy", "ct.nrrd", "ct.nii.gz"])
    def test_with_nan(self, raylift, phantom: Volume, tmp_path: Path, output: Path, name: str) -> None:
        array = phantom.array.astype(np.float32)
        array[3, 4, 5:8] = [np.nan, np.inf, np.nan]
        holed, file = Volume(array, phantom.grid), tmp_path / name
        if name.endswith(".npy"):
            np.save(file, array)
            write_json({"grid": phantom.grid.to_dict()}, file.with_suffix(".json"))
        else:
            sitk.WriteImage(holed.to_sitk(), str(file))
        expect(raylift("drr", file, "-o", output), output, file, "3 voxels are NaN or infinite")

    def test_array_without_grid(self, raylift, tmp_path: Path, output: Path) -> None:
        np.save(tmp_path / "ct.npy", np.zeros((4, 4, 4), np.int16))
        expect(raylift("drr", tmp_path / "ct.npy", "-o", output), output, "ct.npy", "ct.json")

    def test_folder_with_two_series(self, raylift, tmp_path: Path, output: Path) -> None:
        dicom_slices(tmp_path / "study", series=2)
        expect(raylift("drr", tmp_path / "study", "-o", output), output, tmp_path / "study", "2 series in one folder")

    def test_folder_without_series(self, raylift, tmp_path: Path, output: Path) -> None:
        (tmp_path / "study").mkdir()
        expect(raylift("drr", tmp_path / "study", "-o", output), output, tmp_path / "study", "no CT scans in it")

    def test_no_usable_scan_makes_no_dataset(self, raylift, tmp_path: Path, output: Path) -> None:
        scans = tmp_path / "scans"
        lungless(scans / "head.nii.gz")
        outcome = raylift("data", "prepare", scans, "-o", output, "--processes", 1)
        assert outcome.code == 3
        line = outcome.err.splitlines()[-1]
        assert line.startswith(f"raylift: {scans}: no usable scan")
        assert "no lungs found" in line
        # The record of the refusal, and nothing that a training could take for a dataset.
        assert [path.name for path in output.rglob("*") if path.is_file()] == ["case.json"]


class TestXrays:
    @pytest.mark.parametrize("name", ["note.png", "note.jpg", "note.tif", "note.dcm", "note.mha", "note.npy"])
    def test_text(self, raylift, tmp_path: Path, output: Path, weights: Path, name: str) -> None:
        file = tmp_path / name
        file.write_text("This is a letter, not a radiograph.\n")
        outcome = raylift("reconstruct", file, file, "--views", "0,90", "-o", f"{output}.mha", "--weights", weights)
        expect(outcome, output, file)

    def test_with_nan(self, raylift, tmp_path: Path, output: Path, weights: Path) -> None:
        image = np.random.default_rng(0).random((64, 64)).astype(np.float32)
        image[5, 5] = np.nan
        file = tmp_path / "x.mha"
        sitk.WriteImage(sitk.GetImageFromArray(image), str(file))
        outcome = raylift("reconstruct", file, file, "--views", "0,90", "-o", f"{output}.mha", "--weights", weights)
        expect(outcome, output, file, "1 pixels are NaN or infinite")

    def test_views_that_the_weights_do_not_know(self, raylift, tmp_path: Path, output: Path, weights: Path) -> None:
        images = np.random.default_rng(0).random((2, 64, 64)).astype(np.float32)
        given = XraySet(images, (View(0.0), View(45.0)), Geometry.preset("chest-stand", 64))
        write_xrays(given, tmp_path / "xrays", "torch")
        outcome = raylift("reconstruct", tmp_path / "xrays", "-o", f"{output}.mha", "--weights", weights)
        expect(outcome, output, "X-rays of views ap, 45", "the weights are for ap (0°), lateral-right (90°)")

    def test_unit_that_the_weights_do_not_know(self, raylift, tmp_path: Path, output: Path, weights: Path) -> None:
        images = np.random.default_rng(0).random((2, 64, 64)).astype(np.float32)
        given = XraySet(images, (View(0.0), View(90.0)), Geometry.preset("x2ct", 64))
        write_xrays(given, tmp_path / "xrays", "torch")
        outcome = raylift("reconstruct", tmp_path / "xrays", "-o", f"{output}.mha", "--weights", weights)
        expect(outcome, output, "SAD 541", "SAD 1600")

    def test_fewer_views_than_files(self, raylift, tmp_path: Path, output: Path, weights: Path) -> None:
        outcome = raylift("reconstruct", "a.png", "b.png", "--views", "0", "-o", f"{output}.mha", "--weights", weights)
        expect(outcome, output, "2 X-rays", "1 views given")

    def test_without_views(self, raylift, tmp_path: Path, output: Path, weights: Path) -> None:
        picture = tmp_path / "a.png"
        sitk.WriteImage(sitk.GetImageFromArray(np.arange(64**2, dtype=np.uint16).reshape(64, 64)), str(picture))
        outcome = raylift("reconstruct", picture, "-o", f"{output}.mha", "--weights", weights)
        expect(outcome, output, picture, "declares no view", "--views")

    def test_identity_of_a_picture(self, raylift, output: Path) -> None:
        outcome = raylift("reconstruct", "a.png", "--views", "pa", "--keep-identity", "-o", output)
        expect(outcome, output, "--keep-identity", "none of the X-rays is a DICOM file", code=2)

    def test_damaged_sidecar(self, raylift, tmp_path: Path, output: Path, weights: Path) -> None:
        (tmp_path / "xrays").mkdir()
        (tmp_path / "xrays" / "xrays.json").write_text("{")
        outcome = raylift("reconstruct", tmp_path / "xrays", "-o", f"{output}.mha", "--weights", weights)
        expect(outcome, output, tmp_path / "xrays" / "xrays.json", "damaged")


@pytest.mark.parametrize("ending", [".stl", ".dcm", ".gz"])
def test_output_that_cannot_be_written(raylift, tmp_path: Path, output: Path, ending: str) -> None:
    expect(
        raylift("reconstruct", tmp_path / "x.png", "-o", f"{output}{ending}"),
        output,
        f"output{ending}",
        ".mha, .nii.gz",
    )


def test_damaged_weights(raylift, tmp_path: Path, output: Path) -> None:
    folder = random_weights(tmp_path / "weights")
    info = json.loads((folder / "weights.json").read_text())
    (folder / "weights.json").write_text(json.dumps(info | {"sha256": "0" * 64}))
    outcome = raylift("reconstruct", tmp_path, "-o", f"{output}.mha", "--weights", folder)
    expect(outcome, output, folder / "weights.safetensors", "checksum")


COMMANDS = {
    "demo": (),
    "drr": ("none.nii.gz",),
    "reconstruct": ("none",),
    "train": (RECIPE, "--data", "none"),
    "evaluate": ("none", "--data", "none"),
    "ensemble": ("none", "none"),
    "data": ("prepare", "none"),
}


@pytest.mark.parametrize("command", COMMANDS)
class TestOutput:
    """What cannot be written is said first, so that none of the inputs, which do not exist either, is named."""

    def refused(self, raylift, command: str, path: Path) -> str:
        outcome = raylift(command, *COMMANDS[command], "-o", path)
        assert outcome.code == 3, outcome
        assert re.fullmatch(rf"raylift: {re.escape(str(path))}: [^\n]+\n", outcome.err), outcome.err
        assert outcome.out == ""
        return outcome.err

    def test_where_something_else_stands(self, raylift, output: Path, command: str) -> None:
        path = output.with_suffix(".mha")
        if command == "reconstruct":
            path.mkdir()
            assert "a folder, where a file is to be written" in self.refused(raylift, command, path)
            assert list(path.iterdir()) == []
        else:
            path.write_text("mine")
            assert "a file, where a folder is to be written" in self.refused(raylift, command, path)
            assert path.read_text() == "mine"
        assert list(output.parent.iterdir()) == [path]

    def test_below_a_file(self, raylift, output: Path, command: str) -> None:
        output.write_text("mine")
        assert f"nothing can be written in {output} " in self.refused(raylift, command, output / "a" / "b.mha")
        assert output.read_text() == "mine"

    @pytest.mark.skipif(not Path("/proc").exists(), reason="needs a folder that not even root can write to")
    def test_where_nobody_may_write(self, raylift, command: str) -> None:
        assert "nothing can be written in /proc " in self.refused(raylift, command, Path("/proc/raylift/b.mha"))


class TestReconstructionIsWrittenAsAWhole:
    @pytest.fixture
    def xrays(self, tmp_path: Path) -> Path:
        images = np.random.default_rng(0).random((2, 64, 64)).astype(np.float32)
        write_xrays(XraySet(images, (View(0.0), View(90.0)), Geometry.preset("chest-stand", 64)), tmp_path / "x", "")
        return tmp_path / "x"

    @pytest.mark.parametrize("ending", [".mha", ".npy"])
    @pytest.mark.parametrize("step", ["montage", "write_json", "write_page", "write_volume"])
    def test_or_not_at_all(
        self, raylift, xrays: Path, output: Path, weights: Path, ending: str, step: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*args: object) -> None:
            raise OSError("no space left on device")

        monkeypatch.setattr(f"raylift.reconstruction.outputs.{step}", full)
        outcome = raylift("reconstruct", xrays, "-o", f"{output}{ending}", "--weights", weights)
        expect(outcome, output, "no space left", code=1)

    def test_preview_has_its_place(self, raylift, xrays: Path, output: Path, weights: Path) -> None:
        preview = output.with_name("output-preview.png")
        preview.mkdir()
        outcome = raylift("reconstruct", xrays, "-o", f"{output}.mha", "--weights", weights)
        assert outcome.code == 3
        assert f"{preview}: a folder" in outcome.err
        assert list(output.parent.iterdir()) == [preview]


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["drr", "ct.nii.gz", "--views", "0,front"], ["--views", "'front' is no view"]),
            (["drr", "ct.nii.gz", "--views", "0,0"], ["--views", "different views"]),
            (["drr", "ct.nii.gz", "--views", ","], ["--views"]),
            (["drr", "ct.nii.gz", "--drr-engine", "plastimach"], ["--drr-engine plastimach", "torch, plastimatch"]),
            (["drr", "ct.nii.gz", "--engine", "rey"], ["--engine rey", "local, ray"]),
            (["drr", "ct.nii.gz", "--geometry", "cheststand"], ["--geometry", "chest-stand"]),
            (["drr", "ct.nii.gz", "--geometry", "1800/1600/430"], ["--geometry", "0 < sad < sdd"]),
            (["drr", "ct.nii.gz", "--isocentre", "1,2"], ["--isocentre"]),
            (["drr", "ct.nii.gz", "--isocentre", "nan,0,0"], ["--isocentre nan,0,0"]),
            (["drr", "ct.nii.gz", "--isocentre", "0,-inf,0"], ["--isocentre 0,-inf,0"]),
            (["drr", "ct.nii.gz", "--engine", "plastimatch", "--geometry", "parallel"], ["--drr-engine torch"]),
            (["data", "prepare", "scans", "--voxels", "100"], ["--voxels 100", "32, 64, 128"]),
            (["evaluate", "weights", "--data", "data", "--protocol", "hue"], ["hue", "hu"]),
            (["train", "none.yaml", "--data", "data"], ["none.yaml", "no such recipe"]),
            (["train", str(RECIPE), "--data", "data", "--set", "train.stepz=5"], ["train.stepz", "'train.steps'"]),
            (["train", str(RECIPE), "--data", "data", "--set", "lift=repat"], ["'repat'", "'repeat'"]),
            (["train", str(RECIPE), "--data", "data", "--set", "network.name=swin"], ["'swin'", "'swin_unetr'"]),
            (["train", str(RECIPE), "--data", "data", "--set", "train.lr=fast"], ["train.lr"]),
            (["train", str(RECIPE), "--data", "data", "--set", "network.feature_size=16"], ["network.feature_size"]),
        ],
    )
    def test_is_explained(self, raylift, output: Path, arguments: list[str], words: list[str]) -> None:
        expect(raylift(*arguments, "-o", output), output, *words, code=2)

    @pytest.mark.parametrize("device", ["foo", f"cuda:{torch.cuda.device_count()}"])
    def test_device(self, raylift, prepared: Path, output: Path, weights: Path, device: str) -> None:
        outcome = raylift("reconstruct", prepared, "-o", f"{output}.mha", "--weights", weights, "--device", device)
        expect(outcome, output, f"'{device}'", code=2)
        expect(raylift("evaluate", weights, "--data", prepared, "-o", output, "--device", device), output, code=2)

    @pytest.mark.parametrize(
        "arguments",
        [
            ["drr", "ct.nii.gz", "--pixels", "31"],
            ["data", "prepare", "scans", "--processes", "0"],
            ["data", "prepare", "scans", "--processes", "-1"],
        ],
    )
    def test_number_out_of_range(self, raylift, output: Path, arguments: list[str]) -> None:
        outcome = raylift(*arguments, "-o", output)
        assert outcome.code == 2
        assert arguments[-2] in outcome.err
        assert list(output.parent.iterdir()) == []

    def test_unknown_command_names_the_nearest(self, raylift) -> None:
        outcome = raylift("reconstuct")
        assert outcome.code == 2
        assert "'reconstruct'" in outcome.err

    def test_unknown_option_names_the_nearest(self, raylift) -> None:
        outcome = raylift("drr", "ct.nii.gz", "-o", "x", "--view", "0")
        assert outcome.code == 2
        assert "--views" in outcome.err

    def test_a_run_is_not_overwritten(self, raylift, prepared: Path, output: Path) -> None:
        output.mkdir()
        (output / "recipe.yaml").write_text("name: mine\n")
        outcome = raylift("train", RECIPE, "--data", prepared, "-o", output)
        assert outcome.code == 2
        assert "--resume" in outcome.err.splitlines()[-1]
        assert [path.name for path in output.iterdir()] == ["recipe.yaml"]
        assert (output / "recipe.yaml").read_text() == "name: mine\n"


def test_anything_else_is_one_line_and_exit_code_1(raylift, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("out of\n  luck")

    monkeypatch.setattr("raylift.cli.doctor.examine", fail)
    outcome = raylift("doctor")
    assert outcome.code == 1
    assert outcome.err == "raylift: RuntimeError: out of luck (RAYLIFT_DEBUG=1 shows where)\n"


def test_interrupted(raylift, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("raylift.cli.doctor.examine", interrupt)
    outcome = raylift("doctor")
    assert outcome.code in (1, 130)  # 128 + SIGINT where typer says so
    assert len(outcome.err.splitlines()) <= 1


@pytest.mark.parametrize(
    "command", [[], ["demo"], ["drr"], ["reconstruct"], ["train"], ["evaluate"], ["data", "prepare"]]
)
def test_help_shows_an_example(raylift, command: list[str]) -> None:
    outcome = raylift(*command, "--help")
    assert outcome.code == 0
    expected = " ".join(["Example: raylift", *command]) if command else "not a medical device"
    assert expected in " ".join(outcome.out.split())


@pytest.mark.parametrize("words", ["drr M\udcfcnchen -o x", "reconstruct xrays -o M\udcfcller.mha"])
def test_a_name_that_is_not_utf8_is_refused_before_the_work(raylift: Callable[..., Outcome], words: str) -> None:
    outcome = raylift(*words.split())
    assert outcome.code == 3
    assert re.fullmatch(r"raylift: M\S+: its name is not text in UTF-8; rename it\n", outcome.err), outcome.err
