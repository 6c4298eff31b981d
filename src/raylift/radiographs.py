"""X-ray images in, as line integrals of attenuation, hung for reading."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from PIL import Image, ImageOps
from pydicom.misc import is_dicom
from pydicom.pixels import apply_modality_lut, apply_voi_lut, get_decoder

from raylift.errors import BadInput
from raylift.volumes import READABLE as LINE_INTEGRALS
from raylift.volumes import suffix_of

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

# Bounds on what is decoded: the largest chest detectors have 20 megapixels; padding squares the longer edge.
MAX_PIXELS = 100_000_000
MIN_EDGE = 32
MAX_ASPECT = 3

# A line integral through a chest is below 10, through a metal implant below 40; grey levels reach 255.
MAX_LINE_INTEGRAL = 100.0

# Where the grey levels of a photograph are tied to line integrals: percentiles, and the medians over twelve
# chest CTs of these percentiles of ∫μ dl in the body's shadow (parallel projection along y and x, table
# removed, μ = 0.02 mm⁻¹ · (1 + HU/1000)). The 50th percentile differs by up to a quarter between patients.
# The lowest is open air.
PERCENTILES = (0.5, 5, 50, 95, 99.5)
FRONTAL = (0.0, 1.3, 3.2, 5.1, 5.4)
LATERAL = (0.0, 2.0, 5.4, 7.8, 8.6)

# DICOM's ViewPosition; other values, and files without, say nothing.
FRONTAL_POSITIONS = ("AP", "PA")
LATERAL_POSITIONS = ("LL", "RL", "LAT", "LATERAL")

# DICOM's modalities of projection images, and of those whose kind got lost.
MODALITIES = ("CR", "DX", "RG", "RF", "XA", "OT", "")


@dataclass(frozen=True)
class Radiograph:
    """An X-ray image.

    Args:
        image: line integrals ∫μ dl without unit, float32 ≥ 0, square (rows, columns). Row 0 is superior.
        pixel_mm: distance of pixel centres on the detector in mm, if the file says so.
        note: one sentence on where the values come from, and how far to trust them.
        hung: made of grey levels, and hung for reading: columns run to the patient's left in a frontal image, to the
            back in a lateral one. Columns of line integrals run as their view has them.
        position: DICOM's ViewPosition, like "PA" or "LL", if the file says it.
    """

    image: np.ndarray
    pixel_mm: float | None
    note: str
    hung: bool = False
    position: str = ""


def read_radiograph(path: str | Path, *, lateral: bool | None = None) -> Radiograph:
    """Read an X-ray image and bring it to the scale of line integrals.

    Floating point arrays (.mha, .mhd, .nrrd, .nii, .nii.gz, .npy; 2D, or 3D with one slice) are line
    integrals already and are taken as they are. The grey levels of pictures (PNG, JPEG, TIFF) and of DICOM
    radiographs are the product of an unknown exposure, detector curve and display processing: a monotone
    piecewise linear map ties their percentiles to those of simulated chest radiographs (`FRONTAL`,
    `LATERAL`), so that absolute values are approximate. Pictures must show bone bright and be
    hung for reading; DICOM's PhotometricInterpretation and PatientOrientation say how to bring that about.

    Images that are not square are padded to be, evenly on both sides, with their lowest value.

    Args:
        path: the image file; DICOM ends in .dcm or in anything unknown.
        lateral: grey levels show a lateral view, in which the body is thicker; None takes DICOM's
            ViewPosition, and frontal where there is none. Without effect on line integrals.

    Returns:
        The radiograph; its note says what was done.

    Raises:
        BadInput: the file is missing, damaged or of no known format; it is a colour photograph, a movie, a
            CT slice, below 32 pixels along an edge or above 100 megapixels, more than three times as long as
            wide, or (nearly) constant; line integrals are NaN, infinite, negative or above 100; or pixels are
            not square.

    Example:
        >>> radiograph = read_radiograph("chest-pa.dcm")
        >>> radiograph.image.shape, radiograph.pixel_mm
        ((2500, 2500), 0.139)
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(path, "no such file", "check the path")
    if suffix_of(path) in LINE_INTEGRALS:
        return _read_line_integrals(path)
    if suffix_of(path) in PICTURES:
        return _from_grey(path, _read_picture(path), None, lateral or False, "bone assumed to be bright")
    if is_dicom(path):
        return _read_dicom(path, lateral)
    if suffix_of(path) == ".dcm":
        raise BadInput(path, "not a DICOM file", "copy or export it again")
    known = ", ".join((*LINE_INTEGRALS, *PICTURES))
    raise BadInput(path, "not an X-ray format Raylift reads", f"give DICOM or one of {known}")


def _read_line_integrals(path: Path) -> Radiograph:
    # Both readers tell shape and type from the header, before a huge array is read.
    try:
        image: np.ndarray
        if suffix_of(path) == ".npy":
            image = np.lib.format.open_memmap(path, mode="r")
            _check_line_integrals(path, image.shape, image.dtype.kind == "f")
            pixel_mm = None
        else:
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            components = reader.GetNumberOfComponents()
            shape = (*reader.GetSize()[::-1], *([components] if components > 1 else []))
            is_float = reader.GetPixelID() in (sitk.sitkFloat32, sitk.sitkFloat64)
            _check_line_integrals(path, shape, is_float)
            pixel_mm = _pixel_mm(path, reader.GetSpacing()[:2])
            image = sitk.GetArrayFromImage(reader.Execute())
    except BadInput:
        raise
    except (RuntimeError, ValueError, OSError, EOFError) as error:
        raise _damaged(path, error) from None
    image = np.array(image.reshape(image.shape[-2:]), np.float32)
    if not np.isfinite(image).all():
        count = int((~np.isfinite(image)).sum())
        raise BadInput(path, f"{count} pixels are NaN or infinite", "export it again")
    low, high = float(image.min()), float(image.max())
    # Interpolation undershoots a little; more than that is another quantity.
    if low < -0.05 or high > MAX_LINE_INTEGRAL:
        problem = f"values from {low:.4g} to {high:.4g}, but line integrals lie between 0 and about 10"
        raise BadInput(path, problem, "save grey levels as a 16-bit PNG")
    if low == high:
        raise BadInput(path, f"every pixel is {low:g}", "give an image with something in it")
    return Radiograph(_square(np.maximum(image, 0)), pixel_mm, "line integrals, taken as they are")


def _check_line_integrals(path: Path, shape: tuple[int, ...], is_float: bool) -> None:
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != 1):
        raise BadInput(path, f"an array of {shape}, not one 2D image", "save each X-ray in its own file")
    _check_size(path, *shape[-2:])
    if not is_float:
        remedy = "save line integrals as floating point, or grey levels as a 16-bit PNG"
        raise BadInput(path, "no floating point values, so not line integrals", remedy)


def _read_picture(path: Path) -> np.ndarray:
    """Grey levels (rows, columns) of a PNG, JPEG or TIFF, float32."""
    try:
        with warnings.catch_warnings():
            # From 90 megapixels on Pillow warns; `_check_size` refuses.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path, formats=["PNG", "JPEG", "TIFF"])
        with opened:
            _check_size(path, opened.height, opened.width)
            if opened.format == "TIFF" and getattr(opened, "n_frames", 1) > 1:
                raise BadInput(path, "several pictures in one file", "save each X-ray in its own file")
            picture = ImageOps.exif_transpose(opened)
    except BadInput:
        raise
    except Image.DecompressionBombError:
        raise BadInput(path, f"more than {MAX_PIXELS / 1e6:.0f} megapixels", "scale it down") from None
    except Exception as error:  # decoders fail on damaged files in more ways than they document
        raise _damaged(path, error) from None
    if picture.mode == "F":
        raise BadInput(path, "a floating point TIFF", "save line integrals as .mha, grey levels as 16 bit")
    if picture.mode in ("1", "L", "LA") or picture.mode.startswith("I"):
        return np.asarray(picture.getchannel(0) if picture.mode == "LA" else picture, np.float32)
    channels = np.asarray(picture.convert("RGB"))  # drops alpha
    if np.percentile(np.ptp(channels, axis=-1), 99) > 32:
        raise BadInput(path, "a colour picture", "give a greyscale radiograph")
    return channels.mean(-1, dtype=np.float32)


def _read_dicom(path: Path, lateral: bool | None) -> Radiograph:
    try:
        dataset = pydicom.dcmread(path)
        modality = str(dataset.get("Modality") or "")
        if modality not in MODALITIES:
            raise BadInput(path, f"a DICOM file of modality {modality}", "give a radiograph (CR or DX)")
        if int(dataset.get("NumberOfFrames") or 1) > 1:
            raise BadInput(path, f"{dataset.NumberOfFrames} frames in one file", "export a single image")
        if "PixelData" not in dataset:
            raise BadInput(path, "a DICOM file without an image", "give a radiograph (CR or DX)")
        if dataset.SamplesPerPixel != 1:
            raise BadInput(path, "a colour DICOM image", "give a greyscale radiograph")
        _check_size(path, dataset.Rows, dataset.Columns)
        syntax = dataset.file_meta.TransferSyntaxUID
        if not get_decoder(syntax).is_available:
            remedy = "run `pip install python-gdcm`, or export it uncompressed"
            raise BadInput(path, f"compressed as {syntax.name}", remedy)
        grey = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float32)
        # INVERSE goes with MONOCHROME1 and says the same; where the two disagree, the newer attribute wins.
        shape = dataset.get("PresentationLUTShape")
        inverted = shape == "INVERSE" if shape else dataset.PhotometricInterpretation == "MONOCHROME1"
        if inverted:
            grey = grey.max() - grey
        grey, turned = _hang(path, grey, dataset.get("PatientOrientation") or [])
        # A geometry needs spacing on the detector; PixelSpacing may be calibrated to a plane in the patient.
        spacing = dataset.get("ImagerPixelSpacing") or dataset.get("PixelSpacing") or []
        pixel_mm = _pixel_mm(path, np.ravel(np.asarray(spacing, float)))
    except BadInput:
        raise
    except Exception as error:  # decoders fail on damaged files in more ways than they document
        raise _damaged(path, error) from None
    position = str(dataset.get("ViewPosition") or "").upper()
    if lateral is None:
        lateral = position in LATERAL_POSITIONS
    facts = [f"DICOM view {position}" if position else "", "inverted as DICOM says" if inverted else "", turned]
    return replace(_from_grey(path, grey, pixel_mm, lateral, *facts), position=position)


def _hang(path: Path, grey: np.ndarray, orientation: Sequence[str]) -> tuple[np.ndarray, str]:
    """The image with columns running to the left or back and rows to the feet, and what was done to it."""
    if len(orientation) != 2:
        return grey, ""
    along_row, along_column = (str(direction)[:1] for direction in orientation)
    if along_row in ("H", "F"):
        raise BadInput(path, "the patient lies on the side in this image", "rotate it so that the head is up")
    done = []
    if along_row in ("R", "A"):
        grey = grey[:, ::-1]
        done.append("flipped left to right")
    if along_column == "H":
        grey = grey[::-1]
        done.append("turned head up")
    return grey, " and ".join(done)


def _from_grey(path: Path, grey: np.ndarray, pixel_mm: float | None, lateral: bool, *facts: str) -> Radiograph:
    """Line integrals from grey levels (rows, columns) that rise with attenuation."""
    levels = np.unique(grey)
    if len(levels) < 8:
        raise BadInput(path, f"only {len(levels)} grey levels", "give a radiograph, not a mask")
    # Open air and black borders lie at one end of the range, lead and collimators at the other: not the body.
    margin = 0.01 * (levels[-1] - levels[0])
    exposed = grey[(grey > levels[0] + margin) & (grey < levels[-1] - margin)]
    if not len(exposed):
        raise BadInput(path, "nearly all pixels are black or white", "give a radiograph, not a mask")
    # Equal percentiles, as of few grey levels, keep the first of their values.
    knots, first = np.unique(np.percentile(exposed, PERCENTILES), return_index=True)
    if len(knots) < 2:
        raise BadInput(path, "nearly all pixels have one grey level", "give a radiograph")
    values = LATERAL if lateral else FRONTAL
    image = np.interp(grey, knots, np.asarray(values)[first]).astype(np.float32)
    kind = "lateral" if lateral else "frontal"
    note = (
        f"grey levels brought to line integrals by tying their 5th, 50th and 95th percentile to {values[1]}, "
        f"{values[2]} and {values[3]}, as in simulated {kind} chest radiographs"
    )
    note = ", ".join([note, *(fact for fact in facts if fact)]) + "; absolute values are approximate"
    return Radiograph(_square(image), pixel_mm, note, hung=True)


def _square(image: np.ndarray) -> np.ndarray:
    """The image in the middle of a square of its longer edge, on its own lowest value."""
    rows, columns = image.shape
    edge = max(rows, columns)
    margins = [((edge - n) // 2, edge - n - (edge - n) // 2) for n in (rows, columns)]
    return np.ascontiguousarray(np.pad(image, margins, constant_values=image.min()))


def _check_size(path: Path, rows: int, columns: int) -> None:
    if min(rows, columns) < MIN_EDGE:
        raise BadInput(path, f"only {rows} × {columns} pixels", f"give at least {MIN_EDGE} along each edge")
    if rows * columns > MAX_PIXELS:
        raise BadInput(path, f"more than {MAX_PIXELS / 1e6:.0f} megapixels", "scale it down")
    if max(rows, columns) > MAX_ASPECT * min(rows, columns):
        raise BadInput(path, f"{rows} × {columns} pixels is no radiograph's shape", "crop it to the chest")


def _pixel_mm(path: Path, spacing: Sequence[float] | np.ndarray) -> float | None:
    """The edge of a square pixel in mm, from its height and width; None if these make no sense."""
    if len(spacing) != 2 or not min(spacing) > 0:
        return None
    if abs(spacing[0] - spacing[1]) > 0.01 * spacing[0]:
        raise BadInput(path, f"pixels of {spacing[0]:g} × {spacing[1]:g} mm", "resample it to square pixels")
    return float(spacing[0])


def _damaged(path: Path, error: Exception) -> BadInput:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return BadInput(path, f"cannot be read ({reason})", "damaged or not what its name says; copy it again")
