"""Options that several commands share, as the package's own types."""

from __future__ import annotations

from collections.abc import Collection

from raylift.errors import WrongUsage
from raylift.geometry import Geometry, View


def parse_views(text: str) -> tuple[View, ...]:
    """ "0,90" or "pa,lateral-left". Raises WrongUsage."""
    try:
        views = tuple(View.parse(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise WrongUsage(f"--views: {error}") from None
    if not views or len(set(views)) != len(views):
        raise WrongUsage(f"--views {text}: give different views, like 0,90")
    return views


def parse_geometry(name: str, pixels: int) -> Geometry:
    """A preset's name, or SAD/SDD/detector in mm like "1000/1500/400". Raises WrongUsage."""
    try:
        if "/" in name:
            sad, sdd, detector = (float(part) for part in name.split("/"))
            return Geometry(sad, sdd, detector, pixels)
        return Geometry.preset(name, pixels)
    except ValueError as error:
        raise WrongUsage(f"--geometry {name}: {error}") from None


def check_choice(option: str, value: object, choices: Collection[object]) -> None:
    """Raise WrongUsage unless the value is one of the choices."""
    if value not in choices:
        raise WrongUsage(f"{option} {value}: choose one of {', '.join(map(str, choices))}")
