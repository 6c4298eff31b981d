"""A study's scores as tables in Markdown, CSV and LaTeX, with deviations over seeds and intervals over patients."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raylift.evaluation.intervals import EXPLAINED, LEVEL, mean_interval, paired_difference
from raylift.evaluation.protocols import find_protocol
from raylift.evaluation.report import HEADINGS, format_number, format_signed
from raylift.studies.results import CaseScores, RowResult

LOWER_IS_BETTER = ("mse", "mae", "mae_hu")


@dataclass(frozen=True)
class TableCell:
    """One number of a table.

    Args:
        mean: mean over the patients and seeds.
        std: standard deviation over the seeds of the mean over the patients; None for one seed.
        interval: interval of the mean over the patients, see `mean_interval`; None for one patient.
    """

    mean: float
    std: float | None
    interval: tuple[float, float] | None


def aggregate(results: Sequence[RowResult], test: str) -> dict[str, dict[str, TableCell]]:
    """Return the entries of a table for one test set, by row and metric.

    Args:
        results: results of cells, as `raylift.studies.run.read_results` reads them.
        test: name of the set; results that lack it are left out.
    """
    rows: dict[str, list[CaseScores]] = {}
    for result in results:
        if test in result.scores:
            rows.setdefault(result.row, []).append(result.scores[test])
    return {row: _entries(seeds) for row, seeds in rows.items()}


def _entries(seeds: list[CaseScores]) -> dict[str, TableCell]:
    cases = list(seeds[0])
    entries = {}
    for metric in seeds[0][cases[0]]:
        # (seeds, cases)
        values = np.array([[seed[case][metric] for case in cases] for seed in seeds])
        means, by_case = values.mean(1), values.mean(0)
        entries[metric] = TableCell(
            float(values.mean()),
            float(means.std(ddof=1)) if len(means) > 1 else None,
            mean_interval(by_case) if len(by_case) > 1 else None,
        )
    return entries


def best_rows(table: dict[str, dict[str, TableCell]]) -> dict[str, str]:
    """Return the row with the best mean for each metric."""
    metrics = next(iter(table.values()), {})
    return {
        metric: (min if metric in LOWER_IS_BETTER else max)(table, key=lambda row: table[row][metric].mean)
        for metric in metrics
    }


def markdown(results: Sequence[RowResult], tests: Sequence[str]) -> str:
    """Return a table per test set in Markdown, with the best mean of each column in bold."""
    protocol = find_protocol(results[0].protocol)
    blocks = [f"Protocol **{protocol.name}**: {protocol.description}."]
    for test in tests:
        table = aggregate(results, test)
        if not table:
            continue
        best, metrics = best_rows(table), list(next(iter(table.values())))
        patients = max(len(r.scores[test]) for r in results if test in r.scores)
        head = ["Method", "Seeds", "Parameters", "Updates of g", "Minutes", *(HEADINGS[m] for m in metrics)]
        lines = [head, ["---", *["---:"] * (len(head) - 1)]]
        for row, entries in table.items():
            numbers = [f"**{_text(m, entries[m])}**" if best[m] == row else _text(m, entries[m]) for m in metrics]
            seeds = [r for r in results if r.row == row and test in r.scores]
            lines.append([row, str(len(seeds)), *_cost(seeds), *numbers])
        blocks.append(f"## {test} ({patients} patients)")
        blocks.append(_table(lines))
        if len(table) > 1:
            blocks += [f"### Differences from the best row on {test}", _differences(results, test, best)]
    blocks.append(
        f"Mean over patients and seeds ± standard deviation over the seeds [{EXPLAINED}]; the best mean is bold. "
        "Differences are between the same patients and seeds: a difference whose interval contains 0, or that is "
        "smaller than the standard deviation over the seeds, may be chance."
    )
    return "\n\n".join(blocks) + "\n"


def _differences(results: Sequence[RowResult], test: str, best: dict[str, str]) -> str:
    """Return a table of each row's scores minus those of the metric's best row, patient by patient."""
    scores: dict[str, dict[int, CaseScores]] = {}
    for result in results:
        if test in result.scores:
            scores.setdefault(result.row, {})[result.seed] = result.scores[test]
    lines = [["Method", *(f"{HEADINGS[m]} − {best[m]}" for m in best)], ["---", *["---:"] * len(best)]]
    for row in scores:
        lines.append([row, *("" if row == best[m] else _difference(scores[row], scores[best[m]], m) for m in best)])
    return _table(lines)


def _difference(ours: dict[int, CaseScores], theirs: dict[int, CaseScores], metric: str) -> str:
    """Return mean ± standard deviation over the seeds [interval over the patients] of the differences, as text."""

    def by_case(seeds: dict[int, CaseScores], chosen: Sequence[int]) -> dict[str, float]:
        return {case: float(np.mean([seeds[k][case][metric] for k in chosen])) for case in seeds[chosen[0]]}

    # A method that is not trained has one seed, which is compared with all seeds of the other.
    shared = sorted(ours.keys() & theirs.keys())
    one_seed = len(ours) == 1 or len(theirs) == 1
    difference = paired_difference(
        by_case(ours, sorted(ours) if one_seed else shared), by_case(theirs, sorted(theirs) if one_seed else shared)
    )
    if difference is None:
        return ""
    text = format_signed(metric, difference.mean)
    if len(shared) > 1 and not one_seed:
        by_seed = [np.mean([ours[k][c][metric] - theirs[k][c][metric] for c in ours[k]]) for k in shared]
        text += f" ± {format_number(metric, float(np.std(by_seed, ddof=1)))}"
    if difference.interval is not None:
        low, high = difference.interval
        text += f" [{format_signed(metric, low)}, {format_signed(metric, high)}]"
    return text


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def latex(results: Sequence[RowResult], tests: Sequence[str]) -> str:
    """Return a `booktabs` table per test set in LaTeX."""
    blocks = []
    for test in tests:
        table = aggregate(results, test)
        if not table:
            continue
        best, metrics = best_rows(table), list(next(iter(table.values())))
        heads = [_escape(HEADINGS[m]).replace("↑", r"$\uparrow$").replace("↓", r"$\downarrow$") for m in metrics]
        lines = [
            rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}",
            r"\toprule",
            " & ".join(["Method", *heads]) + r" \\",
            r"\midrule",
        ]
        for row, entries in table.items():
            numbers = []
            for m in metrics:
                text = _text(m, entries[m]).replace("±", r"$\pm$")
                numbers.append(rf"\textbf{{{text}}}" if best[m] == row else text)
            lines.append(" & ".join([_escape(row), *numbers]) + r" \\")
        patients = max(len(r.scores[test]) for r in results if test in r.scores)
        footer = (
            rf"\multicolumn{{{1 + len(metrics)}}}{{l}}{{\footnotesize {_escape(test)} ({patients} patients), protocol "
            rf"{results[0].protocol}; mean $\pm$ standard deviation over seeds [{LEVEL * 100:.0f}\% interval "
            r"over patients]} \\"
        )
        blocks.append("\n".join([*lines, r"\bottomrule", footer, r"\end{tabular}"]))
    return "\n\n".join(blocks) + "\n"


def comma_separated(results: Sequence[RowResult]) -> str:
    """Return every score as CSV text, with columns method, seed, set, case, protocol and one per metric."""
    rows = [
        {"method": r.row, "seed": r.seed, "set": test, "case": case, "protocol": r.protocol, **metrics}
        for r in results
        for test, cases in r.scores.items()
        for case, metrics in cases.items()
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _cost(seeds: Sequence[RowResult]) -> tuple[str, str, str]:
    minutes = [result.minutes for result in seeds if result.minutes is not None]
    if seeds[0].parameters is None or not minutes:
        return "", "", ""
    return f"{seeds[0].parameters / 1e6:.1f} M", f"{seeds[0].g_updates:,}", f"{np.mean(minutes):.1f}"


def _text(metric: str, entry: TableCell) -> str:
    text = format_number(metric, entry.mean)
    if entry.std is not None:
        text += f" ± {format_number(metric, entry.std)}"
    if entry.interval is not None:
        low, high = entry.interval
        text += f" [{format_number(metric, low)}, {format_number(metric, high)}]"
    return text


def _escape(text: str) -> str:
    for character in "&%$#_":
        text = text.replace(character, f"\\{character}")
    return text
