"""The command line's own options, and the groups that commands register with."""

from __future__ import annotations

from typing import Annotated

import typer

from raylift.about import __version__

app = typer.Typer(
    name="raylift",
    help="Lift a few X-rays into a CT-like 3D volume. Research software, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data_app = typer.Typer(help="Fetch public CT scans and prepare them for training.", no_args_is_help=True)
app.add_typer(data_app, name="data")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"raylift {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Lift a few X-rays into a CT-like 3D volume. Research software, not a medical device."""
