"""Comparison of any number of methods on the same cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from raylift.data.dataset import PreparedDataset
from raylift.evaluation.methods import CaseMethod, clinical_case, score_case
from raylift.evaluation.report import CaseResult, write_report
from raylift.plots.montages import gallery

TRUTH = "truth"


def compare(
    methods: dict[str, CaseMethod],
    dataset: PreparedDataset,
    split: str,
    protocol: str,
    folder: Path,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> list[CaseResult]:
    """Score methods on every case of a split, with clinical measures; write the report with a gallery per case.

    Args:
        methods: by name, which labels their rows.
        dataset: with the cases' true cubes and stored X-rays.
        split: of the dataset, or "all".
        protocol: key of `raylift.evaluation.protocols.PROTOCOLS`.
        folder: of the report: `cases.csv`, `summary.json`, `report.md`, one PNG and SVG per case.
        progress: called with a method's name, the number of volumes done and their total.

    Returns:
        One result per case and method.
    """
    cases = dataset.cases(split)
    results: list[CaseResult] = []
    images = []
    for case in cases:
        volumes = {TRUTH: case.truth}
        for name, method in methods.items():
            volumes[name] = method(dataset, case)
            metrics, extra = score_case(volumes[name], case, protocol), clinical_case(volumes[name], case)
            results.append(CaseResult(case.name, metrics, name, extra))
            progress(name, len(results), len(methods) * len(cases))
        images.append(gallery(volumes, folder / f"{case.name}.png", case.name))
        gallery(volumes, folder / f"{case.name}.svg", case.name)
    write_report(results, protocol, folder, f"Comparison on {split}", [f"Dataset {dataset.folder.name}."], images)
    return results
