"""Options of the commands that work on many cases."""

from __future__ import annotations

from typing import Annotated

import typer

from raylift.cli.parsing import check_choice
from raylift.engines import ENGINES, Engine
from raylift.errors import WrongUsage

Where = Annotated[str, typer.Option(help="Where cases are computed: local, or ray.")]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster, like ray://head:10001; by default RAY_ADDRESS, or one of this machine alone."),
]


def parse_engine(name: str, processes: int | None, address: str | None) -> Engine:
    """The engine that options say. Raises WrongUsage where they contradict each other."""
    check_choice("--engine", name, ENGINES)
    if name == "local" and address is not None:
        raise WrongUsage("--address is a Ray cluster's: give --engine ray too")
    if name == "ray" and processes is not None:
        raise WrongUsage("--processes is for --engine local: a Ray cluster has a case for each core")
    return Engine(name, processes, address)
