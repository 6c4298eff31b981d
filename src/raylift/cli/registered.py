"""The command line with all of its commands, which register themselves when they are imported: help lists them so."""

# ruff: isort: off
from raylift.cli.app import app
from raylift.cli import reconstruct
from raylift.cli import project
from raylift.cli import weights
from raylift.cli import evaluate
from raylift.cli import studies
from raylift.cli import serve
from raylift.cli import data

__all__ = ["app", "data", "evaluate", "project", "reconstruct", "serve", "studies", "weights"]
