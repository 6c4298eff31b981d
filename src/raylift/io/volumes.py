"""CT volumes read and written, in Hounsfield units."""

from __future__ import annotations

import gzip
import math
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk

from raylift.errors import BadInput
from raylift.geometry import MOST_VOXELS, VolumeGrid
from raylift.images.volume import Volume
from raylift.io.image_headers import image_reader
from raylift.storage.atomic import atomic_write, write_json
from raylift.storage.paths import StoragePath, storage_path, suffix_of
from raylift.storage.records import read_json

READABLE = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".npy")
WRITABLE = (".mha", ".nii.gz", ".nrrd", ".npy")
# Types of an array that SimpleITK has too.
NUMBERS = (*(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "float32", "float64")


def read_volume(path: str | Path) -> Volume:
    """Read a CT scan.

    Args:
        path: a folder with the DICOM files of one series, or a .nii.gz, .nii, .mha, .mhd, .nrrd file, or an .npy
            array (z, y, x) whose grid stands in the .json file of the same name (see `VolumeGrid.to_dict`).

    Returns:
        The volume in Hounsfield units; integer types are kept, NaN-free, with array axes turned and flipped to run
        nearest to +z, +y, +x of the world.

    Raises:
        BadInput: the file is missing, unreadable, not three-dimensional, holds NaN or infinite values, or a folder
            holds no series, more than one, or one with missing slices.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput(path, "no such file or folder", "check the path")
    if path.is_dir():
        volume = _read_dicom(path)
    elif suffix_of(path) == ".npy":
        volume = _read_npy(path)
    elif suffix_of(path) in READABLE:
        volume = _read_image(path)
    else:
        raise BadInput(path, "not a CT format Raylift reads", f"give a DICOM folder or one of {', '.join(READABLE)}")
    if not np.isfinite(volume.array).all():
        count = int((~np.isfinite(volume.array)).sum())
        raise BadInput(path, f"{count} voxels are NaN or infinite", "repair the file or export it again")
    if min(volume.array.shape) < 2:
        raise BadInput(path, f"only {volume.array.shape} voxels (z, y, x)", "a CT needs at least 2 per axis")
    return volume.axis_aligned()


def _read_image(path: Path) -> Volume:
    reader = image_reader(path)
    try:
        reader.ReadImageInformation()
        if math.prod(reader.GetSize()) > MOST_VOXELS:
            raise BadInput(path, f"{reader.GetSize()} voxels (x, y, z)", "give one scan")
        if suffix_of(path) in (".nii", ".nii.gz"):
            _check_nifti(path, reader)
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise BadInput(path, f"cannot be read ({reason})", "the file is damaged or cut short; copy it again") from None
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        kind = f"{image.GetDimension()} dimensions, {image.GetNumberOfComponentsPerPixel()} values per voxel"
        raise BadInput(path, f"not a scalar 3D volume ({kind})", "export a single CT volume")
    return Volume.from_sitk(image)


def _check_nifti(path: Path, image: sitk.ImageFileReader) -> None:
    """Raise BadInput for voxels that ITK's reader makes 0 without a word: those cut off, NaN or infinite."""
    first, values = int(float(image.GetMetaData("vox_offset"))), math.prod(image.GetSize())
    last = first + values * int(image.GetMetaData("bitpix")) // 8
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            content = file.read(last)  # what comes after it is nobody's, and may unpack to any size
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(path, f"cannot be read ({error})", "the file is damaged or cut short; copy it again") from None
    missing = last - len(content)
    if missing > 0:
        raise BadInput(path, f"cannot be read (its last {missing} bytes are missing)", "copy it again")
    if kind := {"16": "f4", "64": "f8"}.get(image.GetMetaData("datatype")):
        order = "<" if int.from_bytes(content[:4], "little") in (348, 540) else ">"
        voxels = np.frombuffer(content, order + kind, values, first)
        if count := int((~np.isfinite(voxels)).sum()):
            raise BadInput(path, f"{count} voxels are NaN or infinite", "repair the file or export it again")


def _read_npy(path: Path) -> Volume:
    sidecar = path.with_suffix(".json")
    if not sidecar.exists():
        raise BadInput(path, "an array without a grid", f"put its grid beside it as {sidecar.name}")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # a header may promise more than there is
    except (ValueError, OSError, EOFError) as error:
        raise BadInput(path, f"not a NumPy array of numbers ({error})", "save it with numpy.save") from None
    try:
        grid = VolumeGrid.from_dict(read_json(sidecar)["grid"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BadInput(sidecar, f"not a grid ({error})", 'see VolumeGrid.to_dict under "grid"') from None
    if array.dtype.name not in NUMBERS:
        raise BadInput(path, f"an array of {array.dtype}", "save it as int16 or float32")
    if array.shape != grid.shape:
        raise BadInput(path, f"an array {array.shape}, but its grid says {grid.shape}", "make them agree")
    return Volume(np.array(array, array.dtype.newbyteorder("=")), grid)


def _read_dicom(folder: Path) -> Volume:
    series: dict[str, list[tuple[float, float, Path]]] = defaultdict(list)
    for file in sorted(p for p in folder.iterdir() if p.is_file()):
        try:
            header = pydicom.dcmread(
                file,
                stop_before_pixels=True,
                specific_tags=[
                    "SeriesInstanceUID",
                    "Modality",
                    "ImagePositionPatient",
                    "ImageOrientationPatient",
                ],
            )
            axes = np.reshape(np.asarray(header.ImageOrientationPatient, float), (2, 3))
            corner = np.asarray(header.ImagePositionPatient, float)
            position, aside = float(np.cross(*axes) @ corner), float(axes[1] @ corner)
            uid, modality = str(header.SeriesInstanceUID), header.Modality
            if modality != "CT":
                continue
        except (pydicom.errors.InvalidDicomError, AttributeError, ValueError, OSError):
            continue  # licences, DICOMDIR, scouts without a position: not slices of a series
        series[uid].append((position, aside, file))
    if not series:
        raise BadInput(folder, "no DICOM CT slices in this folder", "give the folder that holds one CT series")
    if len(series) > 1:
        counts = ", ".join(f"{len(slices)} slices" for slices in series.values())
        raise BadInput(folder, f"{len(series)} series in one folder ({counts})", "put each series in its own folder")
    slices = sorted(next(iter(series.values())))
    if len(slices) < 2:
        raise BadInput(folder, "a single DICOM slice", "give the folder of the whole series")
    gaps = np.diff([position for position, _, _ in slices])
    if gaps.max() < 0.1:
        raise BadInput(folder, "all slices lie at one place", "give a series that moves along the patient")
    tilt = np.diff([aside for _, aside, _ in slices])
    if np.abs(tilt).max() > 0.05 * np.median(gaps):
        raise BadInput(folder, "slices of a tilted gantry", "resample the series to slices that lie square")
    if gaps.max() - gaps.min() > 0.05 * np.median(gaps):
        raise BadInput(
            folder,
            f"slice gaps from {gaps.min():.2f} to {gaps.max():.2f} mm",
            "slices are missing or doubled",
        )
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for _, _, file in slices])
    try:
        return Volume.from_sitk(reader.Execute())
    except RuntimeError as error:
        raise BadInput(
            folder, f"cannot be read ({str(error).strip().splitlines()[-1]})", "copy the series again"
        ) from None


def check_writable(path: str | StoragePath) -> StoragePath:
    """The path, if its ending is one Raylift writes.

    Raises:
        BadInput: it is not; the message lists those that are.
    """
    path = storage_path(path)
    if suffix_of(path) not in WRITABLE:
        raise BadInput(path, "not a volume format Raylift writes", f"end the name in one of {', '.join(WRITABLE)}")
    return path


def write_volume(volume: Volume, path: str | StoragePath) -> StoragePath:
    """Write a volume with its grid, as a whole or not at all.

    Args:
        volume: values in Hounsfield units; floating point is rounded to int16.
        path: ends in .mha, .nii.gz, .nrrd (compressed) or .npy (its grid goes to the .json of the same name).

    Returns:
        The path written.
    """
    path = check_writable(path)
    if volume.array.dtype.kind == "f":
        volume = Volume(np.clip(np.rint(volume.array), -32768, 32767).astype(np.int16), volume.grid)
    if suffix_of(path) == ".npy":
        with atomic_write(path) as temporary, atomic_write(path.with_suffix(".json")) as sidecar:
            np.save(temporary, volume.array)
            write_json({"grid": volume.grid.to_dict(), "unit": "HU", "axes": "z, y, x"}, sidecar)
    else:
        with atomic_write(path) as temporary:
            sitk.WriteImage(volume.to_sitk(), str(temporary), useCompression=True)
            if suffix_of(path) == ".nii.gz":  # ITK says nothing where the disk is full
                _read_image(temporary)
    return path
