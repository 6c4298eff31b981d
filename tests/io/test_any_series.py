"""A scan written in any way reads as the scan that it is: every voxel at its place, with its value."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)
from scipy.spatial.transform import Rotation

from compression import LOSSLESS, compress
from dicom_files import ct_slice
from malformed import EXAMPLES
from raylift.io.volumes import read_volume

SHAPE = (5, 9, 7)  # slices, rows, columns
PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
PADDING = np.s_[:, :2, :3]  # what is padding, where there is some


@dataclass
class Way:
    """A way to write a scan: where it lies, how its values are stored, and in which files."""

    turn: tuple[float, float, float]
    origin: tuple[float, float, float]
    spacing: tuple[float, float, float]
    backwards: bool
    slopes: list[float]
    intercepts: list[float]
    signed: bool
    padding: int | None
    syntax: str
    frames: bool
    order: list[int]
    preamble: bool


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
        st.booleans(),
        st.sampled_from([None, 0, 32767, -2000, 63536]),
        st.sampled_from([*LOSSLESS, *(syntax.name for syntax in PLAIN)]),
        st.booleans(),
        st.permutations(range(SHAPE[0])),
        st.booleans(),
    )


def scan(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-900, 1500, SHAPE).astype(float)


def write(folder: Path, way: Way, hu: np.ndarray) -> np.ndarray:
    """Write a scan, and return the positions (slices, rows, columns, 3) of its voxels in mm."""
    axes = np.round(Rotation.from_euler("xyz", way.turn, degrees=True).as_matrix(), 9)
    along_row, along_column = axes[:, 0], axes[:, 1]
    step = (-1 if way.backwards else 1) * way.spacing[2] * np.cross(along_row, along_column)
    # Values without a sign need an intercept below them.
    intercepts = way.intercepts if way.signed else [-1024.0] * SHAPE[0]
    kind, padding = (np.int16 if way.signed else np.uint16), way.padding
    if padding is not None and not np.iinfo(kind).min <= padding <= np.iinfo(kind).max:
        padding = None
    planes = []
    for z, plane in enumerate(hu):
        stored = np.rint((plane - intercepts[z]) / way.slopes[z])
        if padding is not None:
            stored[PADDING[1:]] = padding
        how = {"PixelRepresentation": int(way.signed)}
        one = ct_slice(stored.astype(kind).view(np.int16), (0, 0, 0), way.spacing, "1.2.3", **how)
        one.ImagePositionPatient = [f"{x:.9g}" for x in np.asarray(way.origin) + z * step]
        one.ImageOrientationPatient = [f"{x:.9g}" for x in (*along_row, *along_column)]
        one.PixelSpacing = [f"{x:.9g}" for x in way.spacing[1::-1]]
        one.RescaleSlope, one.RescaleIntercept = way.slopes[z], intercepts[z]
        if padding is not None:
            one.add_new(0x00280120, "SS" if way.signed else "US", padding)
        planes.append(one)
    for name, dataset in enumerate([enhanced([planes[z] for z in way.order])] if way.frames else
                                   [planes[z] for z in way.order]):  # fmt: skip
        path = folder / f"{name}"
        plain = next((syntax for syntax in PLAIN if syntax.name == way.syntax), ExplicitVRLittleEndian)
        dataset.file_meta.TransferSyntaxUID = plain
        if plain == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset.save_as(path, little_endian=plain != ExplicitVRBigEndian, implicit_vr=plain == ImplicitVRLittleEndian)
        if way.syntax in LOSSLESS:
            compress(path, LOSSLESS[way.syntax])
        elif not way.preamble and plain == ExplicitVRLittleEndian:
            path.write_bytes(path.read_bytes()[132:])
    z, row, column = (np.arange(n)[:, None] for n in SHAPE)
    rows, columns = row * way.spacing[1] * along_column, column * way.spacing[0] * along_row
    return np.asarray(way.origin) + (z * step)[:, None, None] + rows[:, None] + columns


def item(**values: object) -> Dataset:
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def enhanced(planes: list[Dataset]) -> Dataset:
    """The slices as the frames of one Enhanced CT image."""
    whole = ct_slice(np.zeros(SHAPE[1:], np.int16), (0, 0, 0), (1, 1, 1), "1.2.3")
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    whole.SOPInstanceUID = whole.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    whole.PixelRepresentation = planes[0].PixelRepresentation
    if "PixelPaddingValue" in planes[0]:
        whole.add(planes[0]["PixelPaddingValue"])
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
                    "RescaleIntercept", "SliceThickness"):  # fmt: skip
        del whole[keyword]
    whole.NumberOfFrames = len(planes)
    whole.PixelData = b"".join(plane.PixelData for plane in planes)
    whole.SharedFunctionalGroupsSequence = DicomSequence([
        item(PixelMeasuresSequence=DicomSequence([item(PixelSpacing=planes[0].PixelSpacing)]))
    ])  # fmt: skip
    whole.PerFrameFunctionalGroupsSequence = DicomSequence([
        item(
            PlanePositionSequence=DicomSequence([item(ImagePositionPatient=plane.ImagePositionPatient)]),
            PlaneOrientationSequence=DicomSequence([item(ImageOrientationPatient=plane.ImageOrientationPatient)]),
            PixelValueTransformationSequence=DicomSequence([
                item(RescaleSlope=plane.RescaleSlope, RescaleIntercept=plane.RescaleIntercept, RescaleType="HU")
            ]),
        )
        for plane in planes
    ])  # fmt: skip
    return whole


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES < 100)
@given(ways(), st.integers(0, 10**6))
def test_a_series_written_in_any_way(way: Way, seed: int) -> None:
    hu = scan(seed)
    with tempfile.TemporaryDirectory() as folder:
        points = write(Path(folder), way, hu)
        volume = read_volume(folder)
    assert volume.array.shape in {tuple(np.array(SHAPE)[list(order)]) for order in ((0, 1, 2), (0, 2, 1))}
    homogeneous = np.concatenate([points, np.ones((*points.shape[:-1], 1))], -1)
    index = (homogeneous @ volume.grid.world_to_index.T)[..., :3]
    x, y, z = np.moveaxis(np.rint(index).astype(int), -1, 0)
    assert np.abs(index - np.rint(index)).max() < 0.05
    found = volume.array[z, y, x]
    signed_range = way.signed and way.padding is not None and way.padding <= 32767
    unsigned_range = not way.signed and way.padding is not None and way.padding >= 0
    expected = hu.copy()
    if signed_range or unsigned_range:
        expected[PADDING] = -1000
        collides = hu_as_stored(way, hu) == way.padding
        expected[collides] = -1000
    tolerance = np.asarray(way.slopes)[:, None, None] / 2
    assert (np.abs(found - expected) <= tolerance + 1e-3).all()


def hu_as_stored(way: Way, hu: np.ndarray) -> np.ndarray:
    intercepts = np.asarray(way.intercepts if way.signed else [-1024.0] * SHAPE[0])[:, None, None]
    stored: np.ndarray = np.rint((hu - intercepts) / np.asarray(way.slopes)[:, None, None])
    return stored
