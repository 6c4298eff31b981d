"""Any number of methods side by side on the same cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from raylift.data.dataset import Case, PreparedDataset
from raylift.evaluation.figures import gallery
from raylift.evaluation.methods import CaseMethod, score_cases
from raylift.evaluation.report import CaseResult, write_report
from raylift.volumes import Volume

TRUTH = "truth"


def compare(
    methods: dict[str, CaseMethod],
    dataset: PreparedDataset,
    split: str,
    protocol: str,
    folder: Path,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> list[CaseResult]:
    """Score methods on every case of a split; write the report with a gallery per case.

    Args:
        methods: by the name of their rows.
        dataset: with the true cubes and stored X-rays.
        split: of the dataset, or "all".
        protocol: key of `raylift.evaluation.protocols.PROTOCOLS`.
        folder: of the report: `cases.csv`, `summary.json`, `report.md`, one PNG and SVG per case.
        progress: called with a method's name, the number of volumes done and their total.

    Returns:
        One result per case and method.
    """
    cases = dataset.cases(split)
    volumes: dict[str, dict[str, Volume]] = {case.name: {TRUTH: case.truth} for case in cases}
    results: list[CaseResult] = []
    done = 0
    for name, method in methods.items():

        def keep(case: Case, volume: Volume, name: str = name) -> None:
            nonlocal done
            volumes[case.name][name] = volume
            done += 1
            progress(name, done, len(methods) * len(cases))

        results += score_cases(name, method, dataset, split, protocol, keep)
    images = []
    for case in cases:
        images.append(gallery(volumes[case.name], folder / f"{case.name}.png", case.name))
        gallery(volumes[case.name], folder / f"{case.name}.svg", case.name)
    write_report(results, protocol, folder, f"Comparison on {split}", [f"Dataset {dataset.folder.name}."], images)
    return results
