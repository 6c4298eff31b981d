"""The HTML report of a reconstruction: one file that contains its pictures."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from raylift.about import NOT_MEDICAL, __version__
from raylift.images.tone_curve import ToneCurve
from raylift.model.weights_info import WeightsInfo
from raylift.plots.montages import agreement, uncertainty_planes
from raylift.radiographs.out_of_distribution import OOD_THRESHOLD
from raylift.reconstruction.reconstructor import Reconstruction
from raylift.storage.atomic import atomic_write


def write_page(
    reconstruction: Reconstruction, report: dict[str, Any], weights: WeightsInfo, inputs: Sequence[str], path: Path
) -> Path:
    """Write the report as an HTML file that contains its pictures.

    Args:
        reconstruction: to report on.
        report: its description by `raylift.reconstruction.outputs.describe`, with the names of its files.
        weights: the content of `weights.json`.
        inputs: names of the X-rays' files, in the order of the views; may be empty.
        path: of the HTML file.

    Returns:
        The path of the file.
    """
    views = [view.name for view in reconstruction.xrays.views]
    # Autoescape, since file names, which notes may quote, are not trusted.
    environment = Environment(
        loader=PackageLoader("raylift.reconstruction"), autoescape=True, undefined=StrictUndefined
    )
    text = environment.get_template("page.html").render(
        report=report,
        weights=weights,
        inputs=list(inputs) if len(inputs) == len(views) else [],
        views=reconstruction.xrays.views,
        geometry=reconstruction.xrays.geometry,
        tones=[
            (view, *_drawn(tone))
            for view, tone in zip(views, reconstruction.xrays.tones or [None] * len(views), strict=True)
            if tone is not None
        ],
        agreement=_embed(
            lambda file: agreement(views, reconstruction.xrays.images, reconstruction.reprojected, file), path.parent
        ),
        planes=_embed(
            lambda file: uncertainty_planes(reconstruction.volume, reconstruction.uncertainty, file), path.parent
        ),
        ood_threshold=OOD_THRESHOLD,
        not_medical=NOT_MEDICAL,
        version=__version__,
        created_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _drawn(tone: ToneCurve) -> tuple[str, str, float]:
    """Return the points of a tone curve's band and line in a frame of 200 × 120, and its largest line integral."""
    deviation = np.zeros_like(tone.integrals) if tone.deviation is None else tone.deviation
    most = max(float((tone.integrals + deviation).max()), 1e-6)
    x = 200 * (tone.levels - tone.levels[0]) / max(float(np.ptp(tone.levels)), 1e-6)
    low, middle, high = (
        [f"{a:.1f},{120 - 120 * max(b, 0) / most:.1f}" for a, b in zip(x, tone.integrals + k * deviation, strict=True)]
        for k in (-1, 0, 1)
    )
    return " ".join([*low, *reversed(high)]), " ".join(middle), most


def _embed(draw: Callable[[Path], object], beside: Path) -> str:
    """Return a picture as a data URL; it is drawn to a temporary file in the folder `beside`."""
    with tempfile.TemporaryDirectory(dir=beside) as folder:
        file = Path(folder) / "picture.png"
        draw(file)
        return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
