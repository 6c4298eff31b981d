"""Options that several commands have. Their choices come from the registries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raylift.drr.registry import PROJECTORS
from raylift.evaluation.protocols import PROTOCOLS
from raylift.geometry.presets import PRESET_PARAMETERS
from raylift.io.formats import FORMATS
from raylift.parallel.executors import EXECUTORS

_WRITTEN = [ending for ending, one in FORMATS.own.items() if one.writes]

WeightsOption = Annotated[
    Path | None,
    typer.Option(help="weights.safetensors, a folder or run with one, an exported model, or embedded weights by name."),
]
Trained = Annotated[Path, typer.Argument(metavar="WEIGHTS", help="weights.safetensors, or a folder or run with one.")]
Data = Annotated[
    str, typer.Option(metavar="PATH", help="Dataset that raylift data prepare wrote: its folder, or its URL.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
GeometryOption = Annotated[
    str, typer.Option(help=f"X-ray geometry: {', '.join(PRESET_PARAMETERS)}, or SAD/SDD/detector in mm.")
]
Projector = Annotated[str, typer.Option(help=f"Projector: {' or '.join(PROJECTORS.own)}.")]
ProtocolOption = Annotated[str, typer.Option(help=f"Of the scores: {', '.join(PROTOCOLS)}.")]
VolumeFormat = Annotated[
    str, typer.Option("--format", help=f"Of many volumes: {', '.join(_WRITTEN)}, or dicom for a series.")
]
VolumeOutput = Annotated[
    str,
    typer.Option(
        "-o", "--output", metavar="PATH",
        help=f"Volume: {', '.join(f'.{ending}' for ending in _WRITTEN)}, or a folder for a DICOM series; of many, a "
        "folder with one for each. Or its URL.",
    ),
]  # fmt: skip
Where = Annotated[str, typer.Option(help=f"Where cases are computed: {' or '.join(EXECUTORS)}.")]
Processes = Annotated[int | None, typer.Option(min=1, help="Cases at a time; one per core by default.")]
OnRequest = Annotated[
    int | None, typer.Option(min=1, help="Cases at a time, with a core each; by default one after another with all.")
]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster, like ray://head:10001; by default RAY_ADDRESS, or one of this machine alone."),
]
