"""A scan written in any way reads as the scan that it is: every voxel at its place, with its value."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from scipy.spatial.transform import Rotation

from compression import LOSSLESS, compress_pixels
from dicom_files import ct_slice, enhanced_ct
from malformed import EXAMPLES
from raylift.io.volumes import read_volume

SHAPE = (5, 36, 33)  # slices, rows, columns; GDCM cannot compress smaller ones as JPEG 2000
PLAIN = {
    syntax.name: syntax
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
}
PADDED = np.s_[:, :2, :3]
PADDINGS = {"lowest": {True: -9999, False: 0}, "highest": {True: 32767, False: 63536}}  # by sign; beyond all values


@dataclass
class Way:
    """A way to write a scan: where it lies, how its values are stored, and in which files."""

    turn: tuple[float, float, float]
    origin: tuple[float, float, float]
    spacing: tuple[float, float, float]
    backwards: bool
    slopes: list[float]
    intercepts: list[float]
    padding: str | None
    signed: bool
    syntax: str
    frames: bool
    order: list[int]
    preamble: bool

    def intercept(self, slice_number: int) -> float:
        """The intercept of a slice's rescale; values without a sign need one below them."""
        return self.intercepts[slice_number] if self.signed else -1024.0


def ways() -> st.SearchStrategy[Way]:
    angle = st.sampled_from([0.0, 90.0, 180.0, -90.0]) | st.floats(-180, 180)
    length, place = st.floats(0.4, 8), st.floats(-500, 500)
    each = {"min_size": SHAPE[0], "max_size": SHAPE[0]}
    return st.builds(
        Way,
        st.tuples(angle, angle, angle),
        st.tuples(place, place, place),
        st.tuples(length, length, length),
        st.booleans(),
        st.lists(st.sampled_from([1.0, 1.0, 2.0, 0.5]), **each),
        st.lists(st.sampled_from([0.0, -1024.0, -1000.0, 100.0]), **each),
        st.sampled_from([None, *PADDINGS]),
        st.booleans(),
        st.sampled_from([*LOSSLESS, *PLAIN]),
        st.booleans(),
        st.permutations(range(SHAPE[0])),
        st.booleans(),
    )


def write(folder: Path, way: Way, hu: np.ndarray) -> np.ndarray:
    """Write a scan, and return the positions (slices, rows, columns, 3) of its voxels in mm."""
    axes = np.round(Rotation.from_euler("xyz", way.turn, degrees=True).as_matrix(), 9)
    along_row, along_column = axes[:, 0], axes[:, 1]
    step = (-1 if way.backwards else 1) * way.spacing[2] * np.cross(along_row, along_column)
    planes = []
    for z, plane in enumerate(hu):
        stored = np.rint((plane - way.intercept(z)) / way.slopes[z])
        one = ct_slice(np.zeros(SHAPE[1:], np.int16), (0, 0, 0), (1, 1, 1), "1.2.3")
        one.ImagePositionPatient = [f"{x:.9g}" for x in np.asarray(way.origin) + z * step]
        one.ImageOrientationPatient = [f"{x:.9g}" for x in (*along_row, *along_column)]
        one.PixelSpacing = [f"{x:.9g}" for x in way.spacing[1::-1]]
        one.RescaleSlope, one.RescaleIntercept = way.slopes[z], way.intercept(z)
        one.PixelRepresentation = int(way.signed)
        if way.padding is not None:
            value = PADDINGS[way.padding][way.signed]
            stored[PADDED[1:]] = value
            one.add_new(0x00280120, "SS" if way.signed else "US", value)
        one.PixelData = stored.astype(np.int16 if way.signed else np.uint16).tobytes()
        planes.append(one)
    if way.syntax in LOSSLESS:
        for plane in planes:
            compress_pixels(plane, LOSSLESS[way.syntax])
    chosen = [planes[z] for z in way.order]
    for name, dataset in enumerate([enhanced_ct(chosen)] if way.frames else chosen):
        save(dataset, folder / f"{name}", way)
    z, row, column = (np.arange(n)[:, None] for n in SHAPE)
    rows, columns = row * way.spacing[1] * along_column, column * way.spacing[0] * along_row
    return np.asarray(way.origin) + (z * step)[:, None, None] + rows[:, None] + columns


def save(dataset: FileDataset, path: Path, way: Way) -> None:
    """Save a data set in the way's transfer syntax, with or without a preamble."""
    syntax = dataset.file_meta.TransferSyntaxUID if way.syntax in LOSSLESS else PLAIN[way.syntax]
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = syntax
    dcmwrite(path, dataset, implicit_vr=implicit, little_endian=little, force_encoding=True)
    if not way.preamble:
        path.write_bytes(path.read_bytes()[132:])


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES < 100)
@given(ways(), st.integers(0, 10**6))
def test_a_series_written_in_any_way(way: Way, seed: int) -> None:
    hu = np.random.default_rng(seed).integers(-900, 1500, SHAPE).astype(float)
    with tempfile.TemporaryDirectory() as folder:
        points = write(Path(folder), way, hu)
        volume = read_volume(folder)
    to_index = volume.grid.world_to_index
    index = points @ to_index[:3, :3].T + to_index[:3, 3]
    x, y, z = np.moveaxis(np.rint(index).astype(int), -1, 0)
    assert np.abs(index - np.rint(index)).max() < 0.05
    assert len({*zip(x.flat, y.flat, z.flat, strict=True)}) == volume.array.size
    if way.padding is not None:
        hu[PADDED] = -1000  # air
    tolerance = np.asarray(way.slopes)[:, None, None] / 2
    assert (np.abs(volume.array[z, y, x] - hu) <= tolerance).all()
