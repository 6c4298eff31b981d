"""The report of a reconstruction for people: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from raylift.about import NOT_MEDICAL, __version__
from raylift.model.weights_info import WeightsInfo
from raylift.plots.montages import agreement, uncertainty_planes
from raylift.radiographs.out_of_distribution import OOD_THRESHOLD
from raylift.reconstruction.reconstructor import Reconstruction
from raylift.storage.atomic import atomic_write


def write_page(
    made: Reconstruction, report: dict[str, Any], weights: WeightsInfo, inputs: Sequence[str], path: Path
) -> Path:
    """Write the report as HTML, its pictures inside.

    Args:
        made: the reconstruction.
        report: what `raylift.reconstruction.outputs.describe` says of it.
        weights: the content of `weights.json`.
        inputs: names of the X-rays' files, in the order of the views; or none.
        path: of the HTML file.

    Returns:
        The path written.
    """
    views = [view.name for view in made.xrays.views]
    # Autoescape: names of files, and notes that hold them, are a stranger's.
    environment = Environment(
        loader=PackageLoader("raylift.reconstruction"), autoescape=True, undefined=StrictUndefined
    )
    text = environment.get_template("page.html").render(
        report=report,
        weights=weights,
        inputs=list(inputs) if len(inputs) == len(views) else [],
        views=made.xrays.views,
        unit=made.xrays.geometry,
        agreement=_embedded(lambda file: agreement(views, made.xrays.images, made.reprojected, file), path.parent),
        planes=_embedded(lambda file: uncertainty_planes(made.volume, made.uncertainty, file), path.parent),
        flagged=made.ood_score is not None and made.ood_score > OOD_THRESHOLD,
        strange=OOD_THRESHOLD,
        not_medical=NOT_MEDICAL,
        version=__version__,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _embedded(draw: Callable[[Path], object], beside: Path) -> str:
    """Draw a picture as the text of a data URL, by way of a file beside the page."""
    with tempfile.TemporaryDirectory(dir=beside) as folder:
        file = Path(folder) / "picture.png"
        draw(file)
        return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
