"""The files of an evaluation: a table of all cases, a summary in JSON, and a report in Markdown."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from raylift.about import NOT_MEDICAL, __version__
from raylift.evaluation.intervals import EXPLAINED, LEVEL, Difference, mean_interval, paired_difference
from raylift.evaluation.protocols import Protocol, find_protocol
from raylift.storage.atomic import atomic_write, write_json

HEADINGS = {
    "ssim": "SSIM ↑",
    "psnr": "PSNR (dB) ↑",
    "mse": "MSE ↓",
    "mae": "MAE ↓",
    "mae_hu": "MAE (HU) ↓",
}
# Measures of `raylift.evaluation.clinical`, which have tables of their own.
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
NUMBER_FORMATS = {
    "ssim": ".3f",
    "psnr": ".2f",
    "mse": ".4f",
    "mae": ".4f",
    "mae_hu": ".1f",
    **dict.fromkeys(("mae_lung_hu", "mae_fat_hu", "mae_soft_tissue_hu", "mae_bone_hu", "heart_width_error_mm"), ".1f"),
    **dict.fromkeys(("dice_lungs", "dice_bones", "vif", "sharpness"), ".3f"),
    **dict.fromkeys(("lung_volume_error", "bone_volume_error"), ".1%"),
}


@dataclass(frozen=True)
class CaseResult:
    """The scores of one method on one case.

    Args:
        name: of the case.
        metrics: as returned by `raylift.evaluation.scores.score`.
        method: that computed the volume, such as "model" or "mean volume"; each method has a row in the summary.
        extra: further measures, such as "reprojection_error"; a method may lack some.
    """

    name: str
    metrics: dict[str, float]
    method: str = "model"
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        """All measures by name, the protocol's first."""
        return {**self.metrics, **self.extra}


def summarise(cases: Sequence[CaseResult]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return statistics over the cases, by method and metric, in order of first appearance.

    Args:
        cases: results of one protocol.

    Returns:
        ``summary[method][metric]`` with "n", "mean", "sd" (of the sample, n - 1) and "interval" (95 %, of
        the mean, see `mean_interval`); the last two are None for a single case.

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
                "interval": list(mean_interval(numbers)) if len(numbers) > 1 else None,
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
    """Write `cases.csv`, `summary.json` and `report.md`, each completely or not at all.

    Raises WrongUsage, through `find_protocol`, where the protocol is unknown.

    Args:
        cases: at least one; several methods are compared.
        protocol: name of the protocol that computed all metrics.
        folder: where to write the files; created if missing.
        title: heading of the report.
        notes: sentences to print under the summary, such as the weights and data that were used.
        images: pictures to show in `report.md`, in or near the folder.

    Returns:
        The path of `report.md`.

    Raises:
        ValueError: there are no cases, or a value is NaN or infinite.
    """
    folder = Path(folder)
    scoring = find_protocol(protocol)
    if not cases:
        raise ValueError("a report needs at least one case")
    summary = summarise(cases)
    columns = list(dict.fromkeys(key for case in cases for key in case.values))

    with (
        atomic_write(folder / "cases.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        table = csv.DictWriter(file, ["case", "method", *columns])
        table.writeheader()
        table.writerows({"case": case.name, "method": case.method, **case.values} for case in cases)

    write_json(
        {
            "title": title,
            "protocol": {"name": scoring.name, "description": scoring.description},
            "n": len({case.name for case in cases}),
            "interval_level": LEVEL,
            "methods": summary,
            "differences": {
                method: {metric: asdict(difference) for metric, difference in row.items()}
                for method, row in differences(cases, list(_metrics(cases))).items()
            },
            "notes": list(notes),
            "raylift": __version__,
        },
        folder / "summary.json",
    )

    pictures = [Path(os.path.relpath(image, folder)).as_posix() for image in images]
    with atomic_write(folder / "report.md") as temporary:
        temporary.write_text(_markdown(cases, scoring, summary, columns, title, notes, pictures), encoding="utf-8")
    return folder / "report.md"


def _metrics(cases: Sequence[CaseResult]) -> dict[str, None]:
    """Return the protocol's metrics that the cases have, in order."""
    return dict.fromkeys(metric for case in cases for metric in case.metrics)


def differences(cases: Sequence[CaseResult], metrics: Sequence[str]) -> dict[str, dict[str, Difference]]:
    """Compare each method with the first, case by case.

    Args:
        cases: results of one protocol.
        metrics: to compare.

    Returns:
        The difference, method minus first method, by method and metric; methods that share no case with the first are
        left out.
    """
    values: dict[str, dict[str, dict[str, float]]] = {}
    for case in cases:
        for metric in metrics:
            if metric in case.values:
                values.setdefault(case.method, {}).setdefault(metric, {})[case.name] = case.values[metric]
    first, *others = values
    rows = {
        method: {
            metric: difference
            for metric, by_case in values[method].items()
            if (difference := paired_difference(by_case, values[first].get(metric, {}))) is not None
        }
        for method in others
    }
    return {method: row for method, row in rows.items() if row}


def _markdown(
    cases: Sequence[CaseResult],
    protocol: Protocol,
    summary: dict[str, dict[str, dict[str, Any]]],
    columns: Sequence[str],
    title: str,
    notes: Sequence[str],
    images: Sequence[str],
) -> str:
    """Return the text of `report.md`; its arguments are those of `write_report`, summarised."""
    scores = [column for column in columns if column not in CLINICAL_HEADINGS]
    clinical = [column for column in CLINICAL_HEADINGS if column in columns]

    def means(title: str, columns: Sequence[str]) -> str:
        """Return the table of each method's means."""
        rows = [
            [method, str(max(s["n"] for s in row.values())), *(_statistics(c, row.get(c)) for c in columns)]
            for method, row in summary.items()
        ]
        return _table([title, "Cases", *map(_heading, columns)], rows)

    def differences_table(columns: Sequence[str]) -> str:
        """Return the table of each method's differences from the first; empty for a single method."""
        rows = [
            [method, str(max(d.cases for d in row.values())), *(_difference(c, row.get(c)) for c in columns)]
            for method, row in differences(cases, columns).items()
        ]
        first = next(iter(summary))
        return (
            _table([f"Protocol {protocol.name}, minus {first}", "Cases", *map(_heading, columns)], rows) if rows else ""
        )

    def all_cases(title: str, columns: Sequence[str]) -> str:
        """Return the table of all cases."""
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
        differences_table(scores),
        f"Mean ± standard deviation over the cases [{EXPLAINED}]; differences are of the same cases.",
        "A case that lacks a clinical measure is left out of its mean; `summary.json` has each mean's number of cases."
        if clinical
        else "",
        "\n".join(f"- {note}" for note in notes),
        "## Cases",
        all_cases(f"Case (protocol {protocol.name})", scores),
        all_cases("Case (clinical measures)", clinical) if clinical else "",
        "## Images" if images else "",
        *(f"![{image}](<{image}>)" for image in images),
        f"Raylift {__version__}. {NOT_MEDICAL}",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _heading(column: str) -> str:
    """Return the heading of a measure's column."""
    return {**HEADINGS, **CLINICAL_HEADINGS}.get(column, column.replace("_", " "))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, its columns from the third on aligned to the right."""
    lines = [header, ["---", "---", *["---:"] * (len(header) - 2)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _statistics(column: str, statistics: dict[str, Any] | None) -> str:
    """Return a table's cell with mean, standard deviation and interval; empty for None."""
    if statistics is None:
        return ""
    text = format_number(column, statistics["mean"])
    if statistics["sd"] is not None:
        sd, low, high = (format_number(column, x) for x in (statistics["sd"], *statistics["interval"]))
        text += f" ± {sd} [{low}, {high}]"
    return text


def _difference(column: str, difference: Difference | None) -> str:
    """Return a table's cell with a difference and its interval; empty for None."""
    if difference is None:
        return ""
    text = format_signed(column, difference.mean)
    if difference.interval is not None:
        low, high = (format_signed(column, end) for end in difference.interval)
        text += f" [{low}, {high}]"
    return text


def format_signed(column: str, value: float) -> str:
    """Return a difference of a metric's values as text, with its sign."""
    return format(value, "+" + NUMBER_FORMATS.get(column, ".4g"))


def format_number(column: str, value: float) -> str:
    """Return a metric's value as text, with the number of digits used in tables."""
    return format(value, NUMBER_FORMATS.get(column, ".4g"))
