"""The table of volume formats by ending, with the modules that read and write them; they are imported when used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylift.plugins import Registry, load


@dataclass(frozen=True)
class Format:
    """A volume format.

    Args:
        path: the module, or module:class, with `read(path) -> Volume`, which returns the stored Hounsfield units and
            grid, and `write(volume, path)`. Both raise BadInput for an unusable file.
        reads: whether there is a `read`.
        writes: whether there is a `write`.
        media_type: the media type of a file in HTTP.
    """

    path: str
    reads: bool = True
    writes: bool = True
    media_type: str = "application/octet-stream"

    def read(self, path: Path) -> Any:
        """Read a volume from a file.

        Returns:
            The volume in Hounsfield units.
        """
        return load(self.path).read(path)

    def write(self, volume: Any, path: Path) -> None:
        """Write a volume to a file."""
        load(self.path).write(volume, path)


ITK, NIFTI = "raylift.io.itk_files", "raylift.io.nifti_files"
# Keys are endings without the dot, which are also the names of other packages' entry points.
FORMATS: Registry[Format] = Registry(
    "raylift.formats",
    {
        "mha": Format(ITK),
        "nii.gz": Format(NIFTI, media_type="application/gzip"),
        "nrrd": Format(ITK),
        "npy": Format("raylift.io.npy_files"),
        "nii": Format(NIFTI, writes=False),
        "mhd": Format(ITK, writes=False),
    },
    Format,
)


def readable() -> tuple[str, ...]:
    """Return the endings, with the dot, of the volume files that Raylift reads."""
    return tuple(f".{ending}" for ending, entry in FORMATS.items() if entry.reads)


def writable() -> tuple[str, ...]:
    """Return the endings, with the dot, of the volume files that Raylift writes."""
    return tuple(f".{ending}" for ending, entry in FORMATS.items() if entry.writes)


def media_type_of(name: str) -> str:
    """Return the media type of a volume file by its name. An unknown ending is a KeyError."""
    ending = max((e for e in FORMATS if name.lower().endswith(f".{e}")), key=len, default="")
    return FORMATS[ending].media_type
