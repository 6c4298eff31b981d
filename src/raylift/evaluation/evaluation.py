"""Evaluation of weights on a prepared dataset: scores by a protocol, and those of the mean training volume."""

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
MOST_UNCERTAINTY_BYTES = 2**24  # of an `UNCERTAINTY` file that is read
MOST_SHOWN = 100  # most pictures in the report


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of one case, as a `CaseTask` of `raylift.parallel.cases`.

    It writes a picture and the sums of the reliability curve; the scores by method are in the case's record.

    Args:
        reconstructor: holds the weights; or the weights' path and the device, which other processes load.
        dataset: the prepared dataset; or its folder, which other processes read.
        protocol: key of `raylift.evaluation.protocols.PROTOCOLS`.
        views: of the stored X-rays.
        refine: score the volumes after refinement.
        baseline: the mean volume to be scored too; None for none.
    """

    reconstructor: Reconstructor | tuple[str, str | None]
    dataset: PreparedDataset | StoragePath
    protocol: str
    views: tuple[View, ...]
    refine: bool
    baseline: MeanVolume | None

    def depends_on(self, name: str) -> Any:
        """Return what the result depends on: weights, views, case, settings, and the code of the measures."""
        weights, views = self._reconstructor.weights.info.identity, [view.to_dict() for view in self.views]
        case = self._dataset.info.cases[name].sha256, self._dataset.fingerprint
        return [weights, views, case, self.protocol, self.refine, code_version()]

    def compute(self, name: str) -> tuple[str, list[CaseResult], tuple[Volume, Volume, Any], np.ndarray | None]:
        """Return the name, the scores, the volumes and X-rays to draw, and the sums of the reliability curve.

        Raises BadInput, through `PreparedDataset.case` and `Reconstructor`, where the case or its X-rays are unusable.
        """
        case, reconstructor = self._dataset.case(name), self._reconstructor
        xrays = stored_xrays(self._dataset, case, self.views)
        reconstruction, truth = reconstructor(xrays, refine=self.refine), case.truth
        extra = {"reprojection_error": reconstruction.reprojection_error, **clinical_case(reconstruction.volume, case)}
        if reconstruction.refinement is not None:
            extra["error_with_surroundings"] = reconstruction.refinement.error_after
        if reconstruction.ood_score is not None:
            extra["ood_score"] = reconstruction.ood_score
        sums = None
        if reconstruction.uncertainty is not None:
            errors = offsets(reconstruction.volume, reconstruction.uncertainty, truth)
            extra |= coverage(*errors, reconstructor.weights.info.uncertainty_widths)
            sums = tally(*errors)
        results = [CaseResult(name, score_case(reconstruction.volume, case, self.protocol), extra=extra)]
        if self.baseline is not None:
            mean = Volume(normalised_to_hu(self.baseline(case)), truth.grid)
            metrics = score_case(mean, case, self.protocol)
            results.append(CaseResult(name, metrics, BASELINE, clinical_case(mean, case)))
        pictures = [(view.name, image) for view, image in zip(xrays.views, xrays.images, strict=True)]
        return name, results, (truth, reconstruction.volume, pictures), sums

    def write(self, outcome: Any, folder: Path) -> tuple[dict[str, Any], list[str]]:
        """Write the picture and the sums of the reliability curve that `compute` returned.

        Returns:
            The entries of the case's record, and the names of the files written.
        """
        name, results, drawing, sums = outcome
        truth, volume, xrays = drawing
        montage(truth, volume, xrays, folder / PICTURE, name)
        if sums is not None:
            np.save(folder / UNCERTAINTY, sums)
        entries = [{"method": r.method, "metrics": r.metrics, "extra": r.extra} for r in results]
        return {"results": entries}, [PICTURE] if sums is None else [PICTURE, UNCERTAINTY]

    @property
    def _reconstructor(self) -> Reconstructor:
        """The reconstructor, loaded once for each process."""
        return self.reconstructor if isinstance(self.reconstructor, Reconstructor) else _load(*self.reconstructor)

    @property
    def _dataset(self) -> PreparedDataset:
        """The dataset, read once for each process."""
        return self.dataset if isinstance(self.dataset, PreparedDataset) else _read(self.dataset)


_load = lru_cache(1)(Reconstructor.from_pretrained)
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

    Scores are the protocol's and the measures of `raylift.evaluation.clinical`. Cases that were scored before with the
    same weights, data, settings and code are not scored again; cases that cannot be scored are left out and named in
    the report.

    Args:
        reconstructor: holds the weights.
        dataset: its cubes must be those of the weights.
        split: "train", "validation" or "all".
        protocol: key of `raylift.evaluation.protocols.PROTOCOLS`.
        folder: of the report: `cases.csv`, `summary.json`, `report.md`, and `cases/NAME/` with a picture.
        progress: called with the case's name, the number done and the total after each case.
        views: of the stored X-rays; those of the weights by default. Other views need weights trained on any views.
        refine: score the volumes after refinement (`raylift.reconstruction.refinement`).
        executor: where to compute; executors other than this process load the weights by their path.

    Returns:
        One result per case and method: "model", and "mean volume", that of the training split's other patients, where
        there are at least two.

    Raises:
        BadInput: the dataset's cubes, views or geometry are not those of the weights, or no case can be scored.
    """
    find_protocol(protocol)
    check_cubes(dataset, reconstructor)
    names = dataset.names(split)
    selected = tuple(views or reconstructor.lifted_network.views)
    dataset.view_indices(selected)
    baseline = mean_volume(dataset) if len(dataset.splits.get("train", [])) > 1 else None
    here = executor.name == "here"
    device = None if executor.name == "ray" else str(reconstructor.device)  # a cluster's worker chooses its own
    task = Evaluation(
        reconstructor if here else (str(reconstructor.weights.path.absolute()), device),
        dataset if here else dataset.folder.absolute(),
        protocol,
        selected,
        refine,
        baseline,
    )
    records = run_tasks(task, {name: name for name in names}, folder / "cases", executor, progress)
    scored = [name for name in names if records[name].status == "ok"]
    reasons = {name: record.reason for name, record in records.items() if record.status != "ok"}
    if not scored:
        name, reason = next(iter(reasons.items()))
        raise BadInput(name, reason, "no case can be scored")
    results = [CaseResult(name, **entry) for name in scored for entry in records[name].detail("results")]
    with atomic_write_folder(folder) as parts:
        images = [parts / "cases" / name / PICTURE for name in scored[:MOST_SHOWN]]
        uncertain = [name for name in scored if UNCERTAINTY in records[name].files]
        if uncertain:
            sums = sum(_read_sums(folder / "cases" / name) for name in uncertain)
            assert isinstance(sums, np.ndarray)
            images.insert(0, draw_reliability(sums, parts / "reliability.png", f"uncertainty, {split}"))
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
    """Return the notes of the report."""
    refinement = " Volumes were refined." if refine else ""
    notes = [f"Weights {weights.sha256[:12]}, split {split} of {dataset.folder.name}.{refinement}"]
    if seen := len(weights.training.seen_cases & set(scored)):
        notes.append(f"The weights were trained on {seen} of these cases: their scores say nothing about new ones.")
    calibration = weights.uncertainty
    if uncertainty and calibration is not None and (fitted := len({*calibration.cases} & {*scored})):
        notes.append(
            f"The uncertainty was calibrated on {fitted} of these cases, so their coverage is right by construction."
        )
    if uncertainty and refine:
        notes.append(
            "The uncertainty is that of the network's volumes before refinement; the errors are those after it."
        )
    if len(scored) > MOST_SHOWN:
        notes.append(
            f"The first {MOST_SHOWN} of {len(scored)} pictures are shown; the others are in the cases' folders."
        )
    return notes


def _read_sums(folder: StoragePath) -> np.ndarray:
    """Read the sums of a case's reliability curve.

    Returns:
        The sums (3, 1025), see `raylift.evaluation.calibration.tally`.
    """
    sums: np.ndarray = np.load(BytesIO(read_bytes(folder / UNCERTAINTY, MOST_UNCERTAINTY_BYTES)), allow_pickle=False)
    return sums
