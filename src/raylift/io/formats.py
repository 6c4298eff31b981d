"""The volume formats by their ending: who reads and writes them. Imports nothing that reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylift.plugins import Registry, load


@dataclass(frozen=True)
class Format:
    """A volume format.

    Args:
        path: module, or module:class, with `read(path) -> Volume` in Hounsfield units, as the file has it, and
            `write(volume, path)`. Both raise BadInput for a file that does not serve.
        reads: it has `read`.
        writes: it has `write`.
        media_type: of a file, as HTTP says it.
    """

    path: str
    reads: bool = True
    writes: bool = True
    media_type: str = "application/octet-stream"

    def read(self, path: Path) -> Any:
        """Return the volume in a file."""
        return load(self.path).read(path)

    def write(self, volume: Any, path: Path) -> None:
        """Write a volume to a file."""
        load(self.path).write(volume, path)


ITK = "raylift.io.itk_files"
# By the ending without its dot; another package's entry point has that for a name.
FORMATS: Registry[Format] = Registry(
    "raylift.formats",
    {
        "mha": Format(ITK),
        "nii.gz": Format(ITK, media_type="application/gzip"),
        "nrrd": Format(ITK),
        "npy": Format("raylift.io.npy_files"),
        "nii": Format(ITK, writes=False),
        "mhd": Format(ITK, writes=False),
    },
    Format,
)


def readable() -> tuple[str, ...]:
    """Return the endings of volume files that are read, with their dots."""
    return tuple(f".{ending}" for ending, one in FORMATS.items() if one.reads)


def writable() -> tuple[str, ...]:
    """Return the endings of volume files that are written, with their dots."""
    return tuple(f".{ending}" for ending, one in FORMATS.items() if one.writes)


def media_type_of(name: str) -> str:
    """Return the media type of a volume file by its name. Raises KeyError for another ending."""
    ending = max((e for e in FORMATS if name.lower().endswith(f".{e}")), key=len, default="")
    return FORMATS[ending].media_type
