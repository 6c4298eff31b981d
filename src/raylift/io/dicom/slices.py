"""Find the slices of CT series in the DICOM files of a folder: a file each, or frames of Enhanced CT files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from raylift.errors import BadInput
from raylift.io.dicom.files import first_line, read_dicom_file

CT_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
HEADER = [
    "SOPInstanceUID", "SeriesInstanceUID", "Modality", "ImageType", "SeriesDescription", "NumberOfFrames",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "SamplesPerPixel",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "AcquisitionNumber", "ConvolutionKernel",
    "TemporalPositionIdentifier", "TriggerTime", "AcquisitionTime",
]  # fmt: skip
OTHER_PLANE = np.cos(np.radians(20))  # slices whose normals differ by more show another plane, as localizers do
# Attributes that tell images at one position apart, and what they mean.
PHASES = {
    "TemporalPositionIdentifier": "time points",
    "TriggerTime": "phases",
    "AcquisitionNumber": "acquisitions",
    "ConvolutionKernel": "reconstruction kernels",
    "ImageType": "image types",
    "AcquisitionTime": "acquisition times",
}


@dataclass(frozen=True)
class Slice:
    """A slice of a CT series: a file, or a frame of one.

    Args:
        file: the file.
        frame: number of the frame in the file, from 0.
        header: the file's header.
        axes: world directions (2, 3) along a row and down a column.
        corner: world position (3,) in mm of the first pixel's centre.
        spacing: distance in mm of pixels along (x, y): of columns, of rows.
        shape: rows and columns.
        phase: what distinguishes images at one position, by the keys of `PHASES`.
    """

    file: Path
    frame: int
    header: Dataset
    axes: np.ndarray
    corner: np.ndarray
    spacing: tuple[float, float]
    shape: tuple[int, int]
    phase: dict[str, str]

    @property
    def normal(self) -> np.ndarray:
        """The direction across the slice."""
        normal: np.ndarray = np.cross(*self.axes)
        return normal

    def __str__(self) -> str:
        return f"{self.file.name} (frame {self.frame + 1})" if "NumberOfFrames" in self.header else self.file.name


def find_slices(path: Path) -> tuple[list[Slice], list[str]]:
    """Find the slices of the only CT series in a folder, or in an Enhanced CT file.

    Files that are no CT slices are ignored; images of the same study that are none, such as localizers, are noted.

    Args:
        path: the folder or the file.

    Returns:
        The slices, all in one plane, and notes on the images that were left out.

    Raises:
        BadInput: there is no series or more than one, or it has slices in several planes.
    """
    series, left_out = _by_series(path)
    largest = max((len(slices) for slices in series.values()), default=0)
    for uid, slices in list(series.items()):
        if len(slices) == 1 < largest:
            left_out["single slices of other series"].append(slices[0].file.name)
            del series[uid]
    if not series:
        which = "; ".join(f"{reason}: {len(names)} files" for reason, names in left_out.items())
        raise BadInput(
            path, f"no DICOM CT slices in it{f' ({which})' if which else ''}", "give the folder of a CT series"
        )
    if len(series) > 1:
        counts = ", ".join(f"{len(slices)} slices{_description(slices)}" for slices in series.values())
        raise BadInput(path, f"{len(series)} series in one folder ({counts})", "put each series in its own folder")
    (slices,) = series.values()
    planes = _planes(slices)
    for others in planes[1:]:
        if 2 * len(others) > len(planes[0]):
            counts = " and ".join(str(len(plane)) for plane in planes)
            raise BadInput(path, f"slices in several planes ({counts})", "put those of each plane in their own folder")
        left_out["slices in another plane"] += [str(one) for one in others]
    return planes[0], [f"left out: {_names(names)} ({reason})" for reason, names in left_out.items()]


def _by_series(path: Path) -> tuple[dict[str, list[Slice]], dict[str, list[str]]]:
    """Return the CT slices of a folder or file by their series, and the names of other images by why they are left out.

    Raises:
        BadInput: a file cannot be read, or a CT image has no usable position.
    """
    series: dict[str, list[Slice]] = defaultdict(list)
    left_out: dict[str, list[str]] = defaultdict(list)
    seen: set[str] = set()
    for file in sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]:
        try:
            header = read_dicom_file(file, HEADER)
        except OSError as error:
            raise BadInput(file, f"cannot be read ({error.strerror})", "make it readable") from None
        if header is None:
            left_out["no DICOM image"].append(file.name)
            continue
        try:
            uid = str(header.get("SOPInstanceUID") or file)
            if reason := "copies of other files" if uid in seen else _reason_against(header):
                left_out[reason].append(file.name)
                continue
            seen.add(uid)
            series[str(header.get("SeriesInstanceUID") or "")] += _slices_of(file, header)
        except Exception as error:  # elements are parsed as they are used, and fail in more ways than pydicom documents
            problem = f"a CT image without a usable position ({first_line(error)})"
            raise BadInput(file, problem, "export it again") from None
    return series, left_out


def _reason_against(header: Dataset) -> str:
    """Return why an image is no slice of a scan, "" where it may be one."""
    modality = str(header.get("Modality") or "")
    if modality not in ("CT", ""):
        return f"modality {modality}"
    if header.SOPClassUID not in CT_CLASSES and "ImagePositionPatient" not in header:
        return UID(str(header.SOPClassUID)).name.removesuffix(" Storage")
    values = [str(value).upper() for value in header.get("ImageType") or []]
    if "LOCALIZER" in values or "SCOUT" in values:
        return "localizer"
    if "NumberOfFrames" not in header and "ImagePositionPatient" not in header:
        return "without a position"
    return "in colour" if int(header.get("SamplesPerPixel") or 1) > 1 else ""


def _slices_of(file: Path, header: Dataset) -> Iterator[Slice]:
    """Yield the slices that a file holds, from its own elements or its frames' functional groups.

    Raises:
        ValueError: a position, orientation or spacing is not usable.
    """
    shape = (int(header.Rows), int(header.Columns))
    phase = {keyword: str(header.get(keyword)) for keyword in PHASES if header.get(keyword) is not None}
    for frame in range(int(header.get("NumberOfFrames") or 1)):
        position = functional_group(header, frame, "PlanePositionSequence")
        orientation = functional_group(header, frame, "PlaneOrientationSequence")
        measures = functional_group(header, frame, "PixelMeasuresSequence")
        axes = np.reshape(np.asarray(orientation.ImageOrientationPatient, float), (2, 3))
        axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
        corner = np.asarray(position.ImagePositionPatient, float)
        rows, columns = (float(x) for x in measures.PixelSpacing)
        if corner.shape != (3,) or not np.isfinite([*axes.ravel(), *corner]).all() or not min(rows, columns) > 0:
            raise ValueError("no numbers")
        if abs(axes[0] @ axes[1]) > 1e-2:
            raise ValueError("rows and columns are not at right angles")
        yield Slice(file, frame, header, axes, corner, (columns, rows), shape, phase)


def functional_group(header: Dataset, frame: int, name: str) -> Dataset:
    """Return a functional group's item of a frame, from the frame or shared by all; the dataset itself without any."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    for group in (per_frame[frame] if per_frame else None, *(header.get("SharedFunctionalGroupsSequence") or [])):
        if group is not None and group.get(name):
            item: Dataset = group[name][0]
            return item
    return header


def _planes(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Return slices by the plane that they show, the most frequent plane first."""
    planes: list[list[Slice]] = []
    for one in slices:
        for plane in planes:
            if one.normal @ plane[0].normal > OTHER_PLANE:
                plane.append(one)
                break
        else:
            planes.append([one])
    return sorted(planes, key=len, reverse=True)


def _description(slices: Sequence[Slice]) -> str:
    """Return a series' description in quotes for a message, "" where it has none."""
    text = str(slices[0].header.get("SeriesDescription") or "")[:40]
    return f" '{text}'" if text and text.isprintable() else ""


def _names(names: Sequence[str]) -> str:
    """Return the first few of several names."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
