"""Reading of X-ray images as line integrals of attenuation, oriented for reading."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image, ImageOps

from raylift.errors import BadInput
from raylift.geometry import View
from raylift.io.dicom.files import read_dicom_file
from raylift.io.image_headers import READERS, image_reader
from raylift.radiographs.checks import MAX_PIXELS, check_line_integrals, check_size, describe_damage, square_pixel
from raylift.radiographs.dicom import read_dicom
from raylift.radiographs.radiograph import Radiograph, square
from raylift.radiographs.tone import Grey
from raylift.storage.paths import suffix_of

LINE_INTEGRAL_SUFFIXES = (*READERS, ".npy")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
MOST_PAGES = 16  # of a TIFF
THUMBNAIL = 4  # a page is a thumbnail where the largest has so many times its pixels


def read_radiograph(path: str | Path, *, lateral: bool | None = None) -> Radiograph:
    """Read an X-ray image and bring it to the scale of line integrals.

    Floating point arrays (.mha, .mhd, .nrrd, .nii, .nii.gz, .npy; 2D, or 3D with one slice) are line integrals and
    are used unchanged, like DICOM files whose real-world values are line integrals. Raw detector values (DICOM, for
    processing, linear) are converted by ln(I₀ / I), where I₀ is the open field. The grey levels of pictures (PNG, JPEG,
    TIFF) and of DICOM radiographs result from an unknown exposure, detector curve and display processing: a monotone
    piecewise linear map takes open air to 0, and the body's percentiles to those of simulated chest radiographs
    (`FRONTAL`, `LATERAL`), so that absolute values are approximate. Pictures must show bone bright and be oriented for
    reading; DICOM images are inverted and flipped as their PhotometricInterpretation and PatientOrientation require.

    Images that are not square are padded evenly on both sides; their outermost values go on there.

    Raises BadInput, through `decode` and `Grey.line_integrals`, where the file is missing, damaged or of no known
    format; where it is a colour photograph, a movie, a CT slice, below 32 pixels along an edge or above 100 megapixels,
    more than three times as long as wide, or (nearly) constant; where line integrals are NaN, infinite, negative or
    above 100; or where pixels are not square.

    Args:
        path: the image file; a file with an unknown ending may be DICOM.
        lateral: grey levels show a lateral view, in which the body is thicker; None follows DICOM's ViewPosition, and
            takes the view for frontal where there is none. It has no effect on line integrals.

    Returns:
        The radiograph: square (rows, columns), line integrals without unit, row 0 superior. Its note says how the
        values were obtained.

    Example:
        >>> from raylift.radiographs import read_radiograph
        >>> radiograph = read_radiograph("chest-pa.dcm")
        >>> radiograph.image.shape, radiograph.pixel_mm
        ((500, 500), 0.8)
    """
    decoded = decode(path)
    if isinstance(decoded, Radiograph):
        return decoded
    if lateral is None:
        lateral = decoded.view is not None and decoded.view.lateral
    return decoded.line_integrals(View.parse("lateral-left" if lateral else "pa"))


def decode(path: str | Path) -> Radiograph | Grey:
    """Decode an X-ray image; see `read_radiograph`.

    Returns:
        A `Radiograph` where the file holds line integrals or raw detector values, or else its `Grey` levels.

    Raises:
        BadInput: the file is missing, damaged or of no known format, or is no radiograph.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(path, "no such file", "check the path")
    if suffix_of(path) in LINE_INTEGRAL_SUFFIXES:
        image, pixel_mm = read_line_integrals(path)
        return Radiograph(square(image), pixel_mm, "line integrals, used unchanged")
    if suffix_of(path) in PICTURES:
        return Grey(path, _read_picture(path), facts=("bone assumed to be bright",))
    if read_dicom_file(path, []) is not None:
        return read_dicom(path)
    if suffix_of(path) == ".dcm":
        raise BadInput(path, "not a DICOM file", "copy or export it again")
    known = ", ".join((*LINE_INTEGRAL_SUFFIXES, *PICTURES))
    raise BadInput(path, "not an X-ray format that Raylift reads", f"give DICOM or one of {known}")


def read_line_integrals(path: Path) -> tuple[np.ndarray, float | None]:
    """Read line integrals from a .mha, .nii, .nii.gz or .npy file.

    Returns:
        The image (rows, columns), float32 ≥ 0, and the distance of its pixels in mm, None where the file has none.

    Raises:
        BadInput: the file is damaged, or holds no line integrals.
    """
    # Both readers know shape and type from the header, before a huge array is read.
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
        raise BadInput(path, *describe_damage(error)) from None
    image = np.array(image.reshape(image.shape[-2:]), np.float32)
    check_line_integrals(path, image)
    return np.maximum(image, 0), pixel_mm


def _check_array(path: Path, shape: tuple[int, ...], is_float: bool) -> None:
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != 1):
        raise BadInput(path, f"an array of {shape}, not one 2D image", "save each X-ray in its own file")
    check_size(path, *shape[-2:])
    if not is_float:
        remedy = "save line integrals as floating point, or grey levels as a 16-bit PNG"
        raise BadInput(path, "no floating point values, so not line integrals", remedy)


def _seek_largest(path: Path, opened: Image.Image) -> None:
    """Turn to the largest page of a TIFF, of which the others are thumbnails.

    Raises:
        BadInput: there are several pictures.
    """
    sizes = []
    for page in range(min(getattr(opened, "n_frames", 1), MOST_PAGES)):
        opened.seek(page)
        sizes.append(opened.width * opened.height)
    largest = int(np.argmax(sizes))
    if sum(size * THUMBNAIL > sizes[largest] for size in sizes) > 1 or len(sizes) == MOST_PAGES:
        raise BadInput(path, "several pictures in one file", "save each X-ray in its own file")
    opened.seek(largest)
    check_size(path, opened.height, opened.width)


def _read_picture(path: Path) -> np.ndarray:
    """Read a PNG, JPEG or TIFF.

    Returns:
        Its grey levels (rows, columns), float32.

    Raises:
        BadInput: it is damaged, in colour, floating point or of several pages, or has a size that no radiograph has.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns from 90 megapixels on; `check_size` refuses images that are too large.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path, formats=["PNG", "JPEG", "TIFF"])
        with opened:
            check_size(path, opened.height, opened.width)
            if opened.format == "TIFF" and getattr(opened, "n_frames", 1) > 1:
                _seek_largest(path, opened)
            picture = ImageOps.exif_transpose(opened)
    except BadInput:
        raise
    except Image.DecompressionBombError:
        raise BadInput(path, f"more than {MAX_PIXELS / 1e6:.0f} megapixels", "scale it down") from None
    except Exception as error:  # decoders fail on damaged files in more ways than they document
        raise BadInput(path, *describe_damage(error)) from None
    if picture.mode == "F":
        raise BadInput(path, "a floating point TIFF", "save line integrals as .mha, grey levels as 16 bit")
    if picture.mode in ("1", "L", "LA") or picture.mode.startswith("I"):
        return np.asarray(picture.getchannel(0) if picture.mode == "LA" else picture, np.float32)
    channels = np.asarray(picture.convert("RGB"))  # drops alpha
    if np.percentile(np.ptp(channels, axis=-1), 99) > 32:
        raise BadInput(path, "a colour picture", "give a greyscale radiograph")
    grey: np.ndarray = channels.mean(-1, dtype=np.float32)
    return grey
