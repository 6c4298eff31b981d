"""What is asked of the server, and how a job's X-rays lie in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from raylift.errors import BadInput
from raylift.radiographs import Orientation
from raylift.storage.paths import suffix_of

MOST_XRAYS = 8
# Formats that hold all of themselves: an .mhd or .nrrd may name another file of this machine.
ENDINGS = (".dcm", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", ".nii", ".nii.gz", ".mha")


class OrientationOption(BaseModel):
    """What turns a picture for reading, with bone bright."""

    model_config = ConfigDict(extra="forbid")
    quarter_turns: Literal[0, 1, 2, 3] = Field(0, description="Counter-clockwise.")
    mirrored: bool = Field(False, description="Left and right swapped after that.")
    inverted: bool = Field(False, description="Bright and dark swapped.")

    def parsed(self) -> Orientation:
        """Return the same for `raylift.radiographs`."""
        return Orientation(self.quarter_turns, self.mirrored, self.inverted)


class Xray(BaseModel):
    """How one X-ray is to be understood; what is left out is taken from the file, or from its looks."""

    model_config = ConfigDict(extra="forbid")
    view: Annotated[str, StringConstraints(max_length=32)] | None = Field(
        None, description="ap, pa, lateral-left, lateral-right, or the source's angle in degrees."
    )
    orientation: OrientationOption | None = None


class Options(BaseModel):
    """Of a job."""

    model_config = ConfigDict(extra="forbid")
    xrays: list[Xray] = Field(default_factory=list, max_length=MOST_XRAYS, description="In the order of the files.")
    refine: bool = Field(False, description="Bring the volume into agreement with the X-rays.")
    align: bool = Field(False, description="Find small displacements of the views first.")
    title: Annotated[str, StringConstraints(max_length=100)] = Field("", description="For people.")


def file_name(index: int, given: str | None) -> str:
    """Where an upload lies in its job's folder: of the name given, only a known ending is used."""
    ending = suffix_of(Path(given or ""))
    return f"xray-{index}{ending if ending in ENDINGS else '.dcm'}"


def check_ending(given: str | None) -> None:
    """Raises BadInput for a file of another format."""
    ending = suffix_of(Path(given or ""))
    if ending in (".mhd", ".nrrd", ".nhdr", ".hdr", ".img", ".raw", ".json"):
        raise BadInput(shown(given), "a format that may need other files", f"give one of {', '.join(ENDINGS)}")


def shown(given: str | None) -> str:
    """A file's name as a message may repeat it."""
    name = "".join(letter for letter in (given or "") if letter.isprintable())
    return name.replace("\\", "/").rsplit("/", 1)[-1][:80] or "the file"
