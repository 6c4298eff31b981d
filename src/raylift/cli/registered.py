"""The command line with all of its commands, which register themselves when they are imported."""

from raylift.cli import commands, data, studies
from raylift.cli.app import app

__all__ = ["app", "commands", "data", "studies"]
