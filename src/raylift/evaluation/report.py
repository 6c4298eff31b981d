"""An evaluation as files: every case, the summary for programs, and a page for people."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from raylift._version import __version__
from raylift.evaluation.protocols import Protocol, bootstrap_interval, find_protocol
from raylift.places import replacing, write_json

LEVEL = 0.95  # of the bootstrap intervals
HEADINGS = {
    "ssim": "SSIM ↑",
    "psnr": "PSNR (dB) ↑",
    "mse": "MSE ↓",
    "mae": "MAE ↓",
    "mae_hu": "MAE (HU) ↓",
}
# Those of `raylift.evaluation.clinical`, which stand in tables of their own.
CLINICAL_HEADINGS = {
    "mae_lung_hu": "Lung MAE (HU) ↓",
    "mae_fat_hu": "Fat MAE (HU) ↓",
    "mae_soft_tissue_hu": "Soft tissue MAE (HU) ↓",
    "mae_bone_hu": "Bone MAE (HU) ↓",
    "dice_lungs": "Lungs Dice ↑",
    "lung_volume_error": "Lung volume error → 0",
    "dice_bones": "Bones Dice ↑",
    "bone_volume_error": "Bone volume error → 0",
    "heart_width_error_mm": "Heart width error (mm) → 0",
    "vif": "VIF ↑",
    "sharpness": "Sharpness → 1",
}
FORMATS = {
    "ssim": ".3f",
    "psnr": ".2f",
    "mse": ".4f",
    "mae": ".4f",
    "mae_hu": ".1f",
    **dict.fromkeys(("mae_lung_hu", "mae_fat_hu", "mae_soft_tissue_hu", "mae_bone_hu", "heart_width_error_mm"), ".1f"),
    **dict.fromkeys(("dice_lungs", "dice_bones", "vif", "sharpness"), ".3f"),
    **dict.fromkeys(("lung_volume_error", "bone_volume_error"), ".1%"),
}
NOT_MEDICAL = "Raylift is research software, not a medical device; its volumes are not for diagnosis or treatment."


@dataclass(frozen=True)
class CaseResult:
    """What one method scored on one case.

    Args:
        name: of the case.
        metrics: what `raylift.evaluation.protocols.score` returned.
        method: what made the volume, such as "model" or "mean volume"; each has its row in the summary.
        extra: more numbers beside the protocol's, such as "reprojection_error"; a method may lack some.
    """

    name: str
    metrics: dict[str, float]
    method: str = "model"
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        """All numbers, the protocol's first."""
        return {**self.metrics, **self.extra}


def summarise(cases: Sequence[CaseResult]) -> dict[str, dict[str, dict[str, Any]]]:
    """Statistics over the cases, by method and metric, in order of first appearance.

    Args:
        cases: results of one protocol.

    Returns:
        ``summary[method][metric]`` with "n", "mean", "sd" (of the sample, n - 1) and "interval" (95 %
        bootstrap interval of the mean); the last two are None for a single case.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for case in cases:
        for metric, value in case.values.items():
            if not math.isfinite(value):
                raise ValueError(f"{metric} of {case.name} by {case.method} is {value}")
            values.setdefault(case.method, {}).setdefault(metric, []).append(float(value))
    return {
        method: {
            metric: {
                "n": len(numbers),
                "mean": float(np.mean(numbers)),
                "sd": float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None,
                "interval": list(bootstrap_interval(numbers, LEVEL)) if len(numbers) > 1 else None,
            }
            for metric, numbers in columns.items()
        }
        for method, columns in values.items()
    }


def write_report(
    cases: Sequence[CaseResult],
    protocol: str,
    folder: str | Path,
    title: str = "Evaluation",
    notes: Sequence[str] = (),
    images: Sequence[Path] = (),
) -> Path:
    """Write `cases.csv`, `summary.json` and `report.md`, each as a whole or not at all.

    Args:
        cases: at least one; those of several methods stand side by side.
        protocol: the name of the protocol that all metrics were computed by.
        folder: made if missing.
        title: heading of the report.
        notes: sentences to print under the summary, such as the weights and data that were used.
        images: pictures to show in `report.md`, in or near the folder.

    Returns:
        The path of `report.md`.

    Raises:
        WrongUsage: the protocol is unknown.
        ValueError: there are no cases, or a value is NaN or infinite.
    """
    folder = Path(folder)
    chosen = find_protocol(protocol)
    if not cases:
        raise ValueError("a report needs at least one case")
    summary = summarise(cases)
    columns = list(dict.fromkeys(key for case in cases for key in case.values))

    with (
        replacing(folder / "cases.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        table = csv.DictWriter(file, ["case", "method", *columns])
        table.writeheader()
        table.writerows({"case": case.name, "method": case.method, **case.values} for case in cases)

    write_json(
        {
            "title": title,
            "protocol": {"name": chosen.name, "description": chosen.description},
            "n": len({case.name for case in cases}),
            "interval_level": LEVEL,
            "methods": summary,
            "notes": list(notes),
            "raylift": __version__,
        },
        folder / "summary.json",
    )

    shown = [Path(os.path.relpath(image, folder)).as_posix() for image in images]
    with replacing(folder / "report.md") as temporary:
        temporary.write_text(_markdown(cases, chosen, summary, columns, title, notes, shown), encoding="utf-8")
    return folder / "report.md"


def _markdown(
    cases: Sequence[CaseResult],
    protocol: Protocol,
    summary: dict[str, dict[str, dict[str, Any]]],
    columns: Sequence[str],
    title: str,
    notes: Sequence[str],
    images: Sequence[str],
) -> str:
    scores = [column for column in columns if column not in CLINICAL_HEADINGS]
    clinical = [column for column in CLINICAL_HEADINGS if column in columns]

    def means(title: str, columns: Sequence[str]) -> str:
        rows = [
            [method, str(max(s["n"] for s in row.values())), *(_statistics(c, row.get(c)) for c in columns)]
            for method, row in summary.items()
        ]
        return _table([title, "Cases", *map(_heading, columns)], rows)

    def each(title: str, columns: Sequence[str]) -> str:
        rows = [
            [case.name, case.method, *(format_number(c, case.values[c]) if c in case.values else "" for c in columns)]
            for case in cases
        ]
        return _table([title, "Method", *map(_heading, columns)], rows)

    blocks = [
        f"# {title}",
        f"Protocol **{protocol.name}**: {protocol.description}.",
        "Numbers of other protocols are not comparable with these.",
        means(f"Protocol {protocol.name}", scores),
        means("Clinical measures", clinical) if clinical else "",
        f"Mean ± standard deviation over the cases [{LEVEL:.0%} bootstrap interval of the mean].",
        "A case that lacks a clinical measure is left out of its mean; `summary.json` has each mean's number of cases."
        if clinical
        else "",
        "\n".join(f"- {note}" for note in notes),
        "## Cases",
        each(f"Case (protocol {protocol.name})", scores),
        each("Case (clinical measures)", clinical) if clinical else "",
        "## Images" if images else "",
        *(f"![{image}](<{image}>)" for image in images),
        f"Raylift {__version__}. {NOT_MEDICAL}",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _heading(column: str) -> str:
    return {**HEADINGS, **CLINICAL_HEADINGS}.get(column, column.replace("_", " "))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", "---", *["---:"] * (len(header) - 2)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _statistics(column: str, statistics: dict[str, Any] | None) -> str:
    if statistics is None:
        return ""
    text = format_number(column, statistics["mean"])
    if statistics["sd"] is not None:
        sd, low, high = (format_number(column, x) for x in (statistics["sd"], *statistics["interval"]))
        text += f" ± {sd} [{low}, {high}]"
    return text


def format_number(column: str, value: float) -> str:
    """A metric's value with as many digits as tables give it."""
    return format(value, FORMATS.get(column, ".4g"))
