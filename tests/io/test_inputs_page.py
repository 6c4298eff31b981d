"""The page of inputs says of DICOM what the code reads, and nothing else."""

import re
from pathlib import Path

from pydicom.datadict import tag_for_keyword

from raylift import io, radiographs
from repository import ROOT

READERS = [
    *Path(radiographs.__path__[0]).glob("*.py"),
    *(Path(io.__path__[0]) / "dicom" / f"{name}.py" for name in ("slices", "series", "pixels", "files", "archive")),
]
# What a reader takes for granted: where frames have their attributes, and what a series is called in messages.
CARRIERS = {
    "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", "PixelMeasuresSequence",
    "PixelValueTransformationSequence", "PlaneOrientationSequence", "PlanePositionSequence",
    "PixelData", "TransferSyntaxUID", "SeriesDescription",
}  # fmt: skip
COMPOSED = {f"{kind}Shape" for kind in ("Collimator", "Shutter")}  # whose names the code puts together


def keywords(text: str) -> set[str]:
    """The DICOM keywords in a text."""
    words = set(re.findall(r"\b[A-Z][A-Za-z]+\b", text)) - {"UID"}
    return {word for word in words if tag_for_keyword(word) is not None}


def test_the_page_names_every_attribute_that_is_read_and_no_other() -> None:
    sections = (ROOT / "docs" / "inputs.md").read_text().split("\n## ")
    page = "\n".join(section for section in sections if "in DICOM" in section.splitlines()[0])
    ignored = {keyword for line in page.splitlines() if "| ignored" in line for keyword in keywords(line)}
    read = set().union(*(keywords(path.read_text()) for path in READERS))
    assert ignored
    assert not ignored & read
    assert keywords(page) - ignored == (read | COMPOSED) - CARRIERS
