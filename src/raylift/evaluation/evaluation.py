"""Weights against a prepared dataset: scores by protocol, beside the baseline of the mean training volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from raylift.about import code_version
from raylift.data.dataset import PreparedDataset
from raylift.errors import BadInput
from raylift.evaluation.calibration import coverage, draw_reliability, offsets, tally
from raylift.evaluation.methods import (
    MeanVolume,
    check_cubes,
    clinical_case,
    mean_volume,
    score_case,
    stored_xrays,
)
from raylift.evaluation.protocols import find_protocol
from raylift.evaluation.report import CaseResult, write_report
from raylift.geometry import View
from raylift.images.hounsfield import normalised_to_hu
from raylift.images.volume import Volume
from raylift.model.weights_info import WeightsInfo
from raylift.parallel.cases import run_tasks
from raylift.parallel.executors import HERE, Executor
from raylift.plots.montages import montage
from raylift.reconstruction.reconstructor import Reconstructor
from raylift.storage.atomic import atomic_write_folder
from raylift.storage.paths import StoragePath, read_bytes

BASELINE = "mean volume"
PICTURE, UNCERTAINTY = "montage.png", "uncertainty.npy"
MOST_BYTES = 2**24  # of it
SHOWN = 100  # pictures on the report's page


@dataclass(frozen=True)
class Evaluation:
    """One case scored: a picture, what its uncertainty is worth, and in the record the scores by method.

    Args:
        reconstructor: holds the weights; or their path and the device, for other processes to load.
        dataset: the prepared dataset; or its folder, for other processes to read.
        protocol: key of `raylift.evaluation.protocols.PROTOCOLS`.
        views: of the stored X-rays.
        refine: score the volumes after refinement.
        baseline: to be scored beside.
    """

    reconstructor: Reconstructor | tuple[str, str | None]
    dataset: PreparedDataset | StoragePath
    protocol: str
    views: tuple[View, ...]
    refine: bool
    baseline: MeanVolume | None

    def depends_on(self, name: str) -> Any:
        """Weights, case and settings, and the code, as measures change with it."""
        weights, views = self._reconstructor.weights.info.identity, [view.to_dict() for view in self.views]
        case = self._dataset.info.cases[name].sha256, self._dataset.fingerprint
        return [weights, views, case, self.protocol, self.refine, code_version()]

    def compute(self, name: str) -> tuple[str, list[CaseResult], tuple[Volume, Volume, Any], np.ndarray | None]:
        """Return scores, what to draw, and a tally of the uncertainty.

        Raises:
            BadInput: the case or its X-rays do not serve.
        """
        case, reconstructor = self._dataset.case(name), self._reconstructor
        xrays = stored_xrays(self._dataset, case, self.views)
        made, truth = reconstructor(xrays, refine=self.refine), case.truth
        extra = {"reprojection_error": made.reprojection_error, **clinical_case(made.volume, case)}
        if made.refinement is not None:
            extra["error_with_surroundings"] = made.refinement.error_after
        if made.ood_score is not None:
            extra["ood_score"] = made.ood_score
        tallied = None
        if made.uncertainty is not None:
            errors = offsets(made.volume, made.uncertainty, truth)
            extra |= coverage(*errors, reconstructor.weights.info.uncertainty_widths)
            tallied = tally(*errors)
        results = [CaseResult(name, score_case(made.volume, case, self.protocol), extra=extra)]
        if self.baseline is not None:
            mean = Volume(normalised_to_hu(self.baseline(case)), truth.grid)
            metrics = score_case(mean, case, self.protocol)
            results.append(CaseResult(name, metrics, BASELINE, clinical_case(mean, case)))
        named = [(view.name, image) for view, image in zip(xrays.views, xrays.images, strict=True)]
        return name, results, (truth, made.volume, named), tallied

    def write(self, made: Any, folder: Path) -> tuple[dict[str, Any], list[str]]:
        """The picture and the tally."""
        name, results, shown, tallied = made
        truth, volume, xrays = shown
        montage(truth, volume, xrays, folder / PICTURE, name)
        if tallied is not None:
            np.save(folder / UNCERTAINTY, tallied)
        told = [{"method": r.method, "metrics": r.metrics, "extra": r.extra} for r in results]
        return {"results": told}, [PICTURE] if tallied is None else [PICTURE, UNCERTAINTY]

    @property
    def _reconstructor(self) -> Reconstructor:
        return self.reconstructor if isinstance(self.reconstructor, Reconstructor) else _loaded(*self.reconstructor)

    @property
    def _dataset(self) -> PreparedDataset:
        return self.dataset if isinstance(self.dataset, PreparedDataset) else _read(self.dataset)


_loaded = lru_cache(1)(Reconstructor.from_pretrained)
_read = lru_cache(1)(PreparedDataset)


def evaluate(
    reconstructor: Reconstructor,
    dataset: PreparedDataset,
    split: str,
    protocol: str,
    folder: StoragePath,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
    views: Sequence[View] | None = None,
    refine: bool = False,
    executor: Executor = HERE,
) -> list[CaseResult]:
    """Reconstruct every case of a split from its stored X-rays, score it, and write the report with montages.

    Scores are the protocol's and the measures of `raylift.evaluation.clinical`. Cases that were scored before, with
    the same weights, data, settings and code, are not scored again; those that cannot be are left out, and named.

    Args:
        reconstructor: holds the weights.
        dataset: its cubes must be those of the weights.
        split: "train", "validation" or "all".
        protocol: key of `raylift.evaluation.protocols.PROTOCOLS`.
        folder: of the report: `cases.csv`, `summary.json`, `report.md`, and `cases/NAME/` with a picture.
        progress: called with the case's name, the number done and the total after each case.
        views: of the stored X-rays; those of the weights by default. Others are for weights of any views.
        refine: score the volumes after refinement (`raylift.reconstruction.refinement`).
        engine: where; other engines than this process load the weights by their path.

    Returns:
        One result per case and method: "model", and the mean volume of the training split's other patients, where
        there are two.

    Raises:
        BadInput: the dataset's cubes, views or unit are not those of the weights, or no case can be scored.
    """
    find_protocol(protocol)
    check_cubes(dataset, reconstructor)
    names = dataset.names(split)
    chosen = tuple(views or reconstructor.lifted_network.views)
    dataset.view_indices(chosen)
    baseline = mean_volume(dataset) if len(dataset.splits.get("train", [])) > 1 else None
    here = executor.name == "here"
    device = None if executor.name == "ray" else str(reconstructor.device)  # what a worker of a cluster is given
    work = Evaluation(
        reconstructor if here else (str(reconstructor.weights.path.absolute()), device),
        dataset if here else dataset.folder.absolute(),
        protocol,
        chosen,
        refine,
        baseline,
    )
    records = run_tasks(work, {name: name for name in names}, folder / "cases", executor, progress)
    scored = [name for name in names if records[name]["status"] == "ok"]
    reasons = {name: record["reason"] for name, record in records.items() if record["status"] != "ok"}
    if not scored:
        name, reason = next(iter(reasons.items()))
        raise BadInput(name, reason, "no case can be scored")
    results = [CaseResult(name, **told) for name in scored for told in records[name]["results"]]
    with atomic_write_folder(folder) as parts:
        images = [parts / "cases" / name / PICTURE for name in scored[:SHOWN]]
        uncertain = [name for name in scored if UNCERTAINTY in records[name]["files"]]
        if uncertain:
            tallied = sum(_tally(folder / "cases" / name) for name in uncertain)
            assert isinstance(tallied, np.ndarray)
            images.insert(0, draw_reliability(tallied, parts / "reliability.png", f"uncertainty, {split}"))
        notes = _notes(reconstructor.weights.info, dataset, split, scored, refine, bool(uncertain))
        if baseline is not None and baseline.unread:
            notes.append(f"The mean volume is without {', '.join(baseline.unread)}, which cannot be read.")
        notes += [f"Left out: {name}: {reason}" for name, reason in reasons.items()]
        write_report(results, protocol, parts, f"Evaluation on {split}", notes, images)
    return results


def _notes(
    weights: WeightsInfo,
    dataset: PreparedDataset,
    split: str,
    scored: Sequence[str],
    refine: bool,
    uncertainty: bool,
) -> list[str]:
    """What a reader of the report has to know."""
    refined = " Volumes were refined." if refine else ""
    notes = [f"Weights {weights.sha256[:12]}, split {split} of {dataset.folder.name}.{refined}"]
    if seen := len(weights.training.seen_cases & set(scored)):
        notes.append(f"The weights were trained on {seen} of these cases: their scores say nothing of new ones.")
    if uncertainty and weights.uncertainty and (fitted := len({*weights.uncertainty.cases} & {*scored})):
        notes.append(f"The uncertainty was calibrated on {fitted} of these cases, so their coverage had to be right.")
    if uncertainty and refine:
        notes.append("The uncertainty is that of the network's volumes, before refinement, beside the errors after it.")
    if len(scored) > SHOWN:
        notes.append(f"The first {SHOWN} of {len(scored)} pictures are shown; the others are in the cases' folders.")
    return notes


def _tally(folder: StoragePath) -> np.ndarray:
    tallied: np.ndarray = np.load(BytesIO(read_bytes(folder / UNCERTAINTY, MOST_BYTES)), allow_pickle=False)
    return tallied
