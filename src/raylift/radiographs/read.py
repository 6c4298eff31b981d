"""X-ray images in, as line integrals of attenuation, oriented for reading."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image, ImageOps
from pydicom.misc import is_dicom

from raylift.errors import BadInput
from raylift.io.image_headers import READERS, image_reader
from raylift.radiographs.checks import MAX_PIXELS, check_line_integrals, check_size, damaged, square_pixel
from raylift.radiographs.dicom import read_dicom
from raylift.radiographs.radiograph import Radiograph, square
from raylift.radiographs.tone import Grey
from raylift.storage.paths import suffix_of

LINE_INTEGRALS = (*READERS, ".npy")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def read_radiograph(path: str | Path, *, lateral: bool | None = None) -> Radiograph:
    """Read an X-ray image and bring it to the scale of line integrals.

    Floating point arrays (.mha, .mhd, .nrrd, .nii, .nii.gz, .npy; 2D, or 3D with one slice) are line integrals and
    are taken as they are, like DICOM files whose real world values are. Of raw detector values (DICOM, for
    processing, linear) it is the logarithm below that of the open field. The grey levels of pictures (PNG, JPEG,
    TIFF) and of DICOM radiographs are the product of an unknown exposure, detector curve and display processing: a
    monotone piecewise linear map ties their percentiles to those of simulated chest radiographs (`FRONTAL`,
    `LATERAL`), so that absolute values are approximate. Pictures must show bone bright and be oriented for reading;
    DICOM's PhotometricInterpretation and PatientOrientation say how to bring that about.

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
    decoded = decode(path)
    if isinstance(decoded, Radiograph):
        return decoded
    told = decoded.view is not None and decoded.view.lateral
    return decoded.line_integrals(told if lateral is None else lateral)


def decode(path: str | Path) -> Radiograph | Grey:
    """An X-ray image's line integrals where the file has them, or else its grey levels; see `read_radiograph`."""
    path = Path(path)
    if not path.is_file():
        raise BadInput(path, "no such file", "check the path")
    if suffix_of(path) in LINE_INTEGRALS:
        return _read_line_integrals(path)
    if suffix_of(path) in PICTURES:
        return Grey(path, _read_picture(path), facts=("bone taken to be bright",))
    if is_dicom(path):
        return read_dicom(path)
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
            _check_array(path, image.shape, image.dtype.kind == "f")
            pixel_mm = None
        else:
            reader = image_reader(path)
            reader.ReadImageInformation()
            components = reader.GetNumberOfComponents()
            shape = (*reader.GetSize()[::-1], *([components] if components > 1 else []))
            is_float = reader.GetPixelID() in (sitk.sitkFloat32, sitk.sitkFloat64)
            _check_array(path, shape, is_float)
            pixel_mm = square_pixel(path, reader.GetSpacing()[:2])
            image = sitk.GetArrayFromImage(reader.Execute())
    except BadInput:
        raise
    except (RuntimeError, ValueError, OSError, EOFError) as error:
        raise damaged(path, error) from None
    image = np.array(image.reshape(image.shape[-2:]), np.float32)
    check_line_integrals(path, image)
    return Radiograph(square(np.maximum(image, 0)), pixel_mm, "line integrals, taken as they are")


def _check_array(path: Path, shape: tuple[int, ...], is_float: bool) -> None:
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != 1):
        raise BadInput(path, f"an array of {shape}, not one 2D image", "save each X-ray in its own file")
    check_size(path, *shape[-2:])
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
            check_size(path, opened.height, opened.width)
            if opened.format == "TIFF" and getattr(opened, "n_frames", 1) > 1:
                raise BadInput(path, "several pictures in one file", "save each X-ray in its own file")
            picture = ImageOps.exif_transpose(opened)
    except BadInput:
        raise
    except Image.DecompressionBombError:
        raise BadInput(path, f"more than {MAX_PIXELS / 1e6:.0f} megapixels", "scale it down") from None
    except Exception as error:  # decoders fail on damaged files in more ways than they document
        raise damaged(path, error) from None
    if picture.mode == "F":
        raise BadInput(path, "a floating point TIFF", "save line integrals as .mha, grey levels as 16 bit")
    if picture.mode in ("1", "L", "LA") or picture.mode.startswith("I"):
        return np.asarray(picture.getchannel(0) if picture.mode == "LA" else picture, np.float32)
    channels = np.asarray(picture.convert("RGB"))  # drops alpha
    if np.percentile(np.ptp(channels, axis=-1), 99) > 32:
        raise BadInput(path, "a colour picture", "give a greyscale radiograph")
    return channels.mean(-1, dtype=np.float32)
