"""What display pictures cost: volumes from pictures of CT scans beside those from their line integrals.

python benchmarks/radiographs.py PREPARED --cases 'Lung_Dx-*,RIDER*' -o table.csv

Scans are projected as a chest stand sees them (pa and left lateral), shown as displays show them, written as DICOM,
PNG or JPEG, reconstructed by `raylift reconstruct`, and scored against the CT (protocol `hu`). The table says how much
PSNR each way of showing costs. The renderings are independent of what the tone networks were trained with.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid
from scipy.ndimage import gaussian_filter

from raylift.cli.console import print_table, progress_bar
from raylift.data.dataset import Case, PreparedDataset
from raylift.drr.projector import project_volume
from raylift.evaluation.methods import score_case
from raylift.geometry import Geometry, View
from raylift.images.volume import Volume
from raylift.io.volumes import read_volume

PIXELS = 512
VIEWS = ("pa", "lateral-left")
STAND = Geometry.preset("chest-stand", PIXELS)
Show = Callable[[np.ndarray], np.ndarray]  # line integrals → grey levels in [0, 1], bone bright


def sigmoid(x: np.ndarray, middle: float = 0.55, width: float = 0.12) -> np.ndarray:
    """The characteristic curve of a film."""
    low, high, value = (1 / (1 + np.exp(-(t - middle) / width)) for t in (0.0, 1.0, x))
    return np.asarray((value - low) / (high - low))


def vendor(x: np.ndarray) -> np.ndarray:
    """Multi-scale contrast: weak details are amplified, the coarse image compressed, then a film's curve."""
    coarse, out = x, np.zeros_like(x)
    for scale in (1.5, 3, 6, 12, 24):
        smooth = gaussian_filter(coarse, scale)
        detail = coarse - smooth
        out += 0.04 * np.sign(detail) * (np.abs(detail) / 0.04) ** 0.75
        coarse = smooth
    out += 0.9 * coarse
    return sigmoid(np.clip(out / np.percentile(out, 99.9), 0, 1.05), 0.5, 0.16).clip(0, 1)


def noisy(x: np.ndarray) -> np.ndarray:
    """A film's curve on an image with scatter and noise."""
    intensity = np.exp(-8 * x)
    scattered = intensity + 0.1 * gaussian_filter(
        8 * x * intensity, 30
    )  # what tissue scatters grows with its thickness
    counts = np.random.default_rng(0).poisson(scattered * 2e4) / 2e4
    measured = -np.log(np.clip(counts, 1e-4, None))
    return sigmoid((measured - measured.min()) / np.ptp(measured))


@dataclass(frozen=True)
class Rendering:
    """A way to show line integrals.

    Args:
        show: the tone curve, and what else changes the picture.
        bits: of the grey levels.
        air: grey of the open air, as a share of the range.
        inverted: bone is dark (MONOCHROME1).
        ending: of the file.
        cut: columns cut off at the left, of `PIXELS`; no file says so.
        marker: letters in a corner.
    """

    show: Show
    bits: int = 12
    air: float = 0.0
    inverted: bool = False
    ending: str = "dcm"
    cut: int = 0
    marker: bool = False


RENDERINGS = {
    "linear": Rendering(lambda x: x),
    "gamma": Rendering(lambda x: x**0.6),
    "sigmoid": Rendering(sigmoid),
    "logarithm": Rendering(lambda x: np.log1p(8 * x) / np.log(9)),
    "gamma, air at 5 %": Rendering(lambda x: x**0.6, air=0.05),
    "gamma, 8 bits, inverted": Rendering(lambda x: x**0.6, bits=8, inverted=True),
    "vendor": Rendering(vendor),
    "vendor, JPEG, marker": Rendering(vendor, bits=8, ending="jpg", marker=True),
    "noise and scatter, PNG": Rendering(noisy, bits=8, ending="png"),
    "sigmoid, 60 columns cut": Rendering(sigmoid, cut=60),
}


def write(path: Path, image: np.ndarray, rendering: Rendering) -> Path:
    """Write line integrals (rows, columns) as a picture."""
    grey = rendering.air + (1 - rendering.air) * rendering.show(image / image.max())
    levels = np.rint(grey.clip(0, 1) * (2**rendering.bits - 1)).astype(np.uint16)[:, rendering.cut :]
    if rendering.ending != "dcm":
        picture = Image.fromarray(levels.astype(np.uint8))
        if rendering.marker:
            ImageDraw.Draw(picture).text((20, 30), "L 12:31", fill=255, font_size=26)
        picture.save(path, quality=85) if rendering.ending == "jpg" else picture.save(path)
        return path
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = (
        DigitalXRayImageStorageForPresentation,
        ExplicitVRLittleEndian,
    )
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.PresentationIntentType = "DX", "FOR PRESENTATION"
    dataset.Rows, dataset.Columns = levels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation, dataset.BitsAllocated = 1, 0, 16
    dataset.BitsStored, dataset.HighBit = rendering.bits, rendering.bits - 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if rendering.inverted else "MONOCHROME2"
    dataset.ImagerPixelSpacing = [STAND.pitch] * 2
    dataset.PixelData = (2**rendering.bits - 1 - levels if rendering.inverted else levels).tobytes()
    dataset.save_as(path)
    return path


def reconstruct(folder: Path, files: list[Path], case: Case, options: list[str]) -> dict[str, float]:
    """Scores of the volume that the command makes of files."""
    output = folder / "volume.mha"
    command = [str(Path(sys.executable).with_name("raylift")), "reconstruct", *map(str, files), "-o", str(output)]
    subprocess.run([*command, "--views", ",".join(VIEWS), *options], check=True, capture_output=True)
    return score_case(Volume(read_volume(output).array, case.truth.grid), case, "hu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared")
    parser.add_argument("--cases", default="*", help="patterns, comma-separated")
    parser.add_argument("--weights")
    parser.add_argument("-o", "--output", type=Path, help="CSV file with all scores")
    options = parser.parse_args()
    dataset = PreparedDataset(options.prepared)
    names = [n for n in dataset.names("all") if any(fnmatch(n, p) for p in options.cases.split(","))]
    extra = ["--weights", options.weights] if options.weights else []
    rows: list[dict[str, str | float]] = []
    with tempfile.TemporaryDirectory() as temporary, progress_bar("pictures") as bar:
        folder = Path(temporary)
        for number, name in enumerate(names):
            case = dataset.case(name)
            scan = Volume(np.asarray(case.context), case.context_grid)
            images = project_volume(scan, STAND, [View.parse(view) for view in VIEWS], case.isocentre)
            for view, image in zip(VIEWS, images, strict=True):
                np.save(folder / f"{view}.npy", image)
            raw = reconstruct(folder, [folder / f"{view}.npy" for view in VIEWS], case, extra)
            rows.append({"case": name, "shown as": "line integrals", **raw})
            for shown_as, rendering in RENDERINGS.items():
                files = [
                    write(folder / f"{view}.{rendering.ending}", image, rendering)
                    for view, image in zip(VIEWS, images, strict=True)
                ]
                scores = reconstruct(folder, files, case, extra)
                rows.append({"case": name, "shown as": shown_as, **scores, "lost": raw["psnr"] - scores["psnr"]})
            bar(name, number + 1, len(names))
    table = []
    for shown_as in ("line integrals", *RENDERINGS):
        own = [row for row in rows if row["shown as"] == shown_as]
        mean = {key: float(np.mean([float(row[key]) for row in own])) for key in ("ssim", "psnr")}
        lost = [float(row.get("lost", 0)) for row in own]
        table.append({
            "shown as": shown_as, "SSIM": f"{mean['ssim']:.3f}", "PSNR": f"{mean['psnr']:.2f}",
            "lost, dB": f"{np.mean(lost):.2f}", "most": f"{max(lost):.2f}",
        })  # fmt: skip
    print_table(table)
    if options.output:
        with options.output.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["case", "shown as", "ssim", "psnr", "mse", "mae", "mae_hu", "lost"])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
