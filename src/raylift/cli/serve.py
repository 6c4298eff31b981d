"""`raylift serve` and `raylift doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raylift.cli.app import app
from raylift.cli.console import print_json, say
from raylift.cli.options import (
    Json,
    WeightsOption,
)


@app.command()
def serve(
    folder: Annotated[Path, typer.Option("--folder", help="For jobs and their results.")] = Path("raylift-server"),
    host: Annotated[str, typer.Option(help="Address to listen at; others than this machine's own need a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token that every request has to bring; or set RAYLIFT_TOKEN to the token."),
    ] = None,
    weights: WeightsOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that reconstruct, which divide cores or GPUs.")] = 1,
    waiting: Annotated[int, typer.Option(min=1, help="How many jobs may wait.")] = 50,
    seconds: Annotated[float, typer.Option(min=1, help="That a job may take.")] = 600.0,
    root_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="RAYLIFT_ROOT_URL",
            help="Address that users see where a proxy is in front, like https://xray.example.org/raylift.",
        ),
    ] = None,
) -> None:
    r"""Serve reconstructions over HTTP, and a web page for them. Needs pip install 'raylift\[server]'.

    Jobs and results lie in the folder, and outlive the server.

    Example: raylift serve --port 8000
    """
    from raylift.cli.parsing import check_output, prepare_tmpdir, read_token

    prepare_tmpdir(folder)
    from raylift.model.weights import load_weights
    from raylift.server.root_url import RootUrl
    from raylift.server.settings import ServerSettings

    seen = None if root_url is None else RootUrl.parse(root_url)
    check_output(folder, folder=True)
    token, named = read_token(token_file), None if weights is None else str(weights)
    settings = ServerSettings(folder.resolve(), host, port, token, named, workers, waiting, seconds, root_url=seen)
    load_weights(weights)
    from raylift.server.run import run

    run(settings, say)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Print versions, devices, threads, engines and the state of the embedded weights.

    Example: raylift doctor
    """
    from raylift.cli.doctor import examine

    findings = examine()
    if as_json:
        print_json(findings)
    else:
        for name, value in findings.items():
            text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            print(f"{name:10} {', '.join(text) if isinstance(text, list) else text}")
    if not all(state.startswith("good") for state in findings["weights"].values()):
        raise typer.Exit(1)
