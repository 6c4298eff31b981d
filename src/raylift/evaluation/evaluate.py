"""Weights against a prepared dataset: scores by protocol, beside the baseline of the mean training volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from raylift.data.dataset import PreparedDataset
from raylift.evaluation.doubt import coverage, draw_reliability, offsets
from raylift.evaluation.figures import montage
from raylift.evaluation.methods import check_cubes, clinical_case, mean_volume, score_case, stored_xrays
from raylift.evaluation.protocols import find_protocol
from raylift.evaluation.report import CaseResult, write_report
from raylift.files import replacing_together
from raylift.geometry import View
from raylift.reconstruction import Reconstructor
from raylift.volumes import Volume, unit_to_hu
from raylift.weights import seen_cases

BASELINE = "mean volume"


def evaluate(
    reconstructor: Reconstructor,
    dataset: PreparedDataset,
    split: str,
    protocol: str,
    folder: Path,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
    views: Sequence[View] | None = None,
    refine: bool = False,
) -> list[CaseResult]:
    """Reconstruct every case of a split from its stored X-rays, score it, and write the report with montages.

    Scores are the protocol's and the measures of `raylift.evaluation.clinical`.

    Args:
        reconstructor: holds the weights.
        dataset: its cubes must be those of the weights.
        split: "train", "validation" or "all".
        protocol: key of `raylift.evaluation.protocols.PROTOCOLS`.
        folder: of the report: `cases.csv`, `summary.json`, `report.md`, one PNG per case.
        progress: called with the case's name, the number done and the total after each case.
        views: of the stored X-rays; those of the weights by default. Others are for weights of any views.
        refine: score the volumes after refinement (`raylift.refinement`).

    Returns:
        One result per case and method: "model", and the mean volume of the training split's other patients, where
        there are two.

    Raises:
        BadInput: the dataset's cubes, views or unit are not those of the weights.
    """
    find_protocol(protocol)
    check_cubes(dataset, reconstructor)
    baseline = mean_volume(dataset) if len(dataset.splits.get("train", [])) > 1 else None
    results, images, errors = [], [], list[tuple[np.ndarray, np.ndarray]]()
    info = reconstructor.weights.info
    widths = info.get("doubt", {}).get("widths")
    cases = dataset.cases(split)
    with replacing_together(folder) as parts:
        for done, case in enumerate(cases, 1):
            xrays = stored_xrays(dataset, case, views or reconstructor.mapping.views)
            made = reconstructor(xrays, refine=refine)
            extra = {"reprojection_error": made.reprojection_error, **clinical_case(made.volume, case)}
            if made.refined is not None:
                extra["error_with_surroundings"] = made.refined.error_after
            if made.strangeness is not None:
                extra["strangeness"] = made.strangeness
            if made.doubt is not None:
                errors.append(offsets(made.volume, made.doubt, case.truth))
                extra |= coverage(*errors[-1], widths)
            results.append(CaseResult(case.name, score_case(made.volume, case, protocol), extra=extra))
            if baseline is not None:
                mean = Volume(unit_to_hu(baseline(case)), case.truth.grid)
                metrics = score_case(mean, case, protocol)
                results.append(CaseResult(case.name, metrics, BASELINE, clinical_case(mean, case)))
            named = [(view.name, image) for view, image in zip(xrays.views, xrays.images, strict=True)]
            images.append(montage(case.truth, made.volume, named, parts / f"{case.name}.png", case.name))
            progress(case.name, done, len(cases))
        refined = " Volumes were refined." if refine else ""
        notes = [f"Weights {info['sha256'][:12]}, split {split} of {dataset.folder.name}.{refined}"]
        names = {case.name for case in cases}
        if seen := len(seen_cases(info) & names):
            notes.append(f"The weights were trained on {seen} of these cases: their scores say nothing of new ones.")
        if errors and (fitted := len(set(info.get("doubt", {}).get("cases", ())) & names)):
            notes.append(f"The doubt was calibrated on {fitted} of these cases, so their coverage had to be right.")
        if errors and refine:
            notes.append("The doubt is that of the network's volumes, before refinement, beside the errors after it.")
        if errors:
            error, deviation = (np.concatenate(each) for each in zip(*errors, strict=True))
            images.insert(0, draw_reliability(error, deviation, parts / "reliability.png", f"doubt, {split}"))
        write_report(results, protocol, parts, f"Evaluation on {split}", notes, images)
    return results
