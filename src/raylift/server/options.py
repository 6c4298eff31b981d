"""The options of a request, and checks of its file names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from raylift.errors import BadInput
from raylift.radiographs import Orientation
from raylift.storage.paths import suffix_of

MAX_XRAYS = 8
# Only formats that are complete in one file: an .mhd or .nrrd may refer to another file on this machine.
UPLOAD_SUFFIXES = (".dcm", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", ".nii", ".nii.gz", ".mha")
REFUSED_SUFFIXES = (".mhd", ".nrrd", ".nhdr", ".hdr", ".img", ".raw", ".json")


class OrientationOptions(BaseModel):
    """Corrections that turn a picture upright, with bone bright."""

    model_config = ConfigDict(extra="forbid")
    quarter_turns: Literal[0, 1, 2, 3] = Field(0, description="Counter-clockwise quarter turns.")
    mirrored: bool = Field(False, description="Whether left and right are swapped after the turns.")
    inverted: bool = Field(False, description="Whether bright and dark are swapped.")

    def to_orientation(self) -> Orientation:
        """Return the same corrections for `raylift.radiographs`."""
        return Orientation(self.quarter_turns, self.mirrored, self.inverted)


class XrayOptions(BaseModel):
    """Options of one X-ray. What is missing is read from the file, or recognised in the picture."""

    model_config = ConfigDict(extra="forbid")
    view: Annotated[str, StringConstraints(max_length=32)] | None = Field(
        None, description="ap, pa, lateral-left, lateral-right, or the source's angle in degrees."
    )
    orientation: OrientationOptions | None = None


class Options(BaseModel):
    """Options of a job."""

    model_config = ConfigDict(extra="forbid")
    xrays: list[XrayOptions] = Field(default_factory=list, max_length=MAX_XRAYS, description="In the files' order.")
    refine: bool = Field(False, description="Whether the volume is brought into agreement with the X-rays.")
    align: bool = Field(False, description="Whether small displacements of the views are corrected first.")
    title: Annotated[str, StringConstraints(max_length=100)] = Field("", description="A title for people to read.")


def storage_name(index: int, client_name: str | None) -> str:
    """Return the name under which an upload is stored; it takes nothing but a known suffix from the client's name."""
    suffix = suffix_of(Path(client_name or ""))
    return f"xray-{index}{suffix if suffix in UPLOAD_SUFFIXES else '.dcm'}"


def check_suffix(client_name: str | None) -> None:
    """Check that an upload's format is complete in one file.

    Raises:
        BadInput: a file of this format may refer to other files.
    """
    if suffix_of(Path(client_name or "")) in REFUSED_SUFFIXES:
        raise BadInput(
            display_name(client_name), "a format that may need other files", f"give one of {', '.join(UPLOAD_SUFFIXES)}"
        )


def display_name(client_name: str | None) -> str:
    """Return a file's name as messages may show it: printable, without folders, at most 80 characters."""
    name = "".join(letter for letter in (client_name or "") if letter.isprintable())
    return name.replace("\\", "/").rsplit("/", 1)[-1][:80] or "the file"
