"""DICOM files whose pixels GDCM compresses."""

import tempfile
from pathlib import Path

import gdcm
import pydicom
from pydicom.dataset import Dataset

LOSSLESS = {
    "JPEG Lossless": gdcm.TransferSyntax.JPEGLosslessProcess14,
    "JPEG Lossless, selection value 1": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "JPEG-LS": gdcm.TransferSyntax.JPEGLSLossless,
    "JPEG 2000": gdcm.TransferSyntax.JPEG2000Lossless,
    "RLE": gdcm.TransferSyntax.RLELossless,
}


def compress(path: Path, syntax: int) -> None:
    """Compress the image of a DICOM file in its place."""
    dataset = pydicom.dcmread(path)
    compress_pixels(dataset, syntax)
    dataset.save_as(path)


def compress_pixels(dataset: Dataset, syntax: int) -> None:
    """Compress a data set's image; all else stays as it is, whereas GDCM writes geometry and rescaling anew."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/image"
        dataset.save_as(path)
        reader = gdcm.ImageReader()
        reader.SetFileName(path)
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(path)
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        written = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = written.file_meta.TransferSyntaxUID
    dataset.PixelData = written.PixelData
    dataset["PixelData"].is_undefined_length = True
