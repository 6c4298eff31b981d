"""Running a study, from its definition to its tables and figures.

A study can be resumed, and a cell that fails does not stop the others.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from raylift.about import NOT_MEDICAL, __version__
from raylift.data.dataset import PreparedDataset
from raylift.errors import BadInput, WrongUsage
from raylift.parallel.cases import Progress
from raylift.storage.atomic import atomic_write, write_json
from raylift.studies.cells import FRONTAL_AND_LATERAL, Budget, CaseSet, Cell, compute
from raylift.studies.definitions import StudyDefinition
from raylift.studies.figures import draw_figures, draw_scores
from raylift.studies.results import CellResult, RowResult, StudySettings, read_study_file
from raylift.studies.tables import comma_separated, latex, markdown

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a study.

    Args:
        results: results of the finished cells, in the order of the rows.
        failures: why cells failed, in one line each, by the cell's name.
        report: path of the page with the table, or None where no cell is finished.
    """

    results: list[RowResult]
    failures: dict[str, str]
    report: Path | None


def run_study(
    study: StudyDefinition,
    data: PreparedDataset,
    folder: Path,
    budget: Budget,
    seeds: Sequence[int],
    sets: Sequence[CaseSet],
    protocol: str = "hu",
    only: Sequence[str] = (),
    progress: Progress = lambda note, done, total: None,
) -> Outcome:
    """Train and score the cells that are missing, and write the study's report.

    It raises WrongUsage where the folder holds studies with another budget, other data or another set of the same
    name, or where a set has other cubes or another X-ray geometry; and BadInput where a dataset lacks the X-rays of a
    view that a row needs.

    Args:
        study: the study.
        data: the dataset to train on, its `train` split.
        folder: folder of studies with the same budget and data, which share trained cells. `results/` holds a file
            per cell, `runs/` the training runs; NAME.md, NAME.csv and NAME.tex are written after every cell, NAME.png
            and NAME.svg at the end.
        budget: the training budget of every row.
        seeds: seeds of the trainings; methods that are not trained are computed once.
        sets: the sets to score on; more can be added later.
        protocol: name of the scores' protocol.
        only: labels of the rows to train now; all by default.
        progress: called with a note, the steps done and their number.

    Returns:
        The results and failures of the study, and its page.
    """
    _check_sets(data, sets)
    rows = [row for row in study.rows if not only or row.label in only]
    _check_views([Cell(row, 0, folder) for row in rows], [data, *(test.dataset for test in sets)])
    _write_settings(folder, budget, data, sets)
    failures: dict[str, str] = {}
    cells = [Cell(row, seed, folder) for row in rows for seed in (seeds if row.recipe else seeds[:1])]
    for number, cell in enumerate(cells, 1):

        def report(note: str, done: int, total: int, number: int = number) -> None:
            progress(f"cell {number} of {len(cells)}: {note}", done, total)

        failure_file = folder / "failures" / f"{cell.result.stem}.txt"
        try:
            compute(cell, budget, data, list(sets), protocol, report)
            failure_file.unlink(missing_ok=True)
        except Exception as error:
            failures[f"{cell.row.label}, seed {cell.seed}"] = " ".join(str(error).split()) or type(error).__name__
            with atomic_write(failure_file) as temporary:
                temporary.write_text(traceback.format_exc())
        write_tables(folder, study, protocol)
    results = read_results(folder, study, protocol)
    if results:
        draw_scores(results, list(_read_settings(folder).sets), folder / study.name)
    if study.figure and results:
        try:
            _draw(study, folder, seeds, sets)
        except BadInput as error:
            failures["figure"] = str(error)
    return Outcome(results, failures, write_tables(folder, study, protocol))


def _draw(study: StudyDefinition, folder: Path, seeds: Sequence[int], sets: Sequence[CaseSet]) -> None:
    """Draw a study's figure of its finished cells, unless it was drawn of the same cells and sets before."""
    cells = [Cell(row, seed, folder) for row in study.rows for seed in seeds]
    finished = [cell for cell in cells if cell.result.exists()]
    wanted = {"cells": [cell.result.stem for cell in finished], "sets": [test.name for test in sets]}
    drawn_file = figures_folder(folder, study) / "drawn.json"  # written last
    drawn = json.loads(drawn_file.read_text()) if drawn_file.exists() else {"cells": [], "sets": []}
    if drawn["cells"] != wanted["cells"] or not set(wanted["sets"]) <= set(drawn["sets"]):
        draw_figures(study.figure, figures_folder(folder, study), finished, sets)
        write_json(wanted, drawn_file)


def figures_folder(folder: Path, study: StudyDefinition) -> Path:
    """Return the folder of a study's figures of trained rows."""
    return folder / "figures" / study.name


def read_results(folder: Path, study: StudyDefinition, protocol: str) -> list[RowResult]:
    """Read the results of a study's finished cells.

    Returns:
        The results with scores under the protocol, in the order of the rows and then of the seeds.
    """
    results = []
    for row in study.rows:
        key = Cell(row, 0, folder).key
        cells = [read_study_file(path, CellResult) for path in (folder / "results").glob(f"{key}-seed-*.json")]
        results += [
            RowResult.of(cell, row.label, protocol)
            for cell in sorted(cells, key=lambda c: c.seed)
            if protocol in cell.scores
        ]
    return results


def write_tables(folder: Path, study: StudyDefinition, protocol: str) -> Path | None:
    """Write the tables of a study's finished cells, as a page in Markdown, CSV and LaTeX.

    Returns:
        The path of the page, or None where no cell is finished.
    """
    results = read_results(folder, study, protocol)
    if not results:
        return None
    name, settings = study.name, _read_settings(folder)
    tests, minutes, samples = list(settings.sets), settings.budget["minutes"], settings.budget["samples"]
    spending = f"{minutes:g} minutes" if minutes else f"{samples:,} training pairs"
    page = [
        f"# {study.title}",
        study.about,
        f"Each trained method had {spending} per seed, on {len(settings.trained_on)} patients.",
        markdown(results, tests),
        f"Raylift {__version__}. {NOT_MEDICAL}",
    ]
    for file, text in (
        (f"{name}.md", "\n\n".join(page) + "\n"),
        (f"{name}.csv", comma_separated(results)),
        (f"{name}.tex", latex(results, tests)),
    ):
        with atomic_write(folder / file) as temporary:
            temporary.write_text(text)
    return folder / f"{name}.md"


def _check_sets(data: PreparedDataset, sets: Sequence[CaseSet]) -> None:
    """Check that all sets have the cubes and the X-ray geometry of the training data.

    Raises:
        WrongUsage: a set has others.
    """
    for test in sets:
        for key in ("voxels", "cube_mm", "geometry"):
            ours, theirs = getattr(data.info, key), getattr(test.dataset.info, key)
            if ours != theirs:
                raise WrongUsage(f"the set '{test.name}' has another {key} ({theirs}) than the training data ({ours})")


def _write_settings(folder: Path, budget: Budget, data: PreparedDataset, sets: Sequence[CaseSet]) -> None:
    """Write the settings that all studies of a folder share; later studies may add sets.

    Raises:
        WrongUsage: the folder's settings are others.
    """
    settings = StudySettings(budget=asdict(budget), data=data.fingerprint, trained_on=data.names("train"))
    now = {test.name: f"{test.split} of {test.dataset.fingerprint}" for test in sets}
    different: list[str] = []
    if (folder / SETTINGS).exists():
        before = _read_settings(folder)
        different += [key for key in ("budget", "data", "trained_on") if getattr(before, key) != getattr(settings, key)]
        different += [f"set '{name}'" for name in now if before.sets.get(name, now[name]) != now[name]]
        settings.sets = before.sets
    if different:
        raise WrongUsage(
            f"{folder} holds studies with another {different[0]}: give the same options to go on, or another folder"
        )
    settings.sets = settings.sets | now
    write_json(settings.model_dump(), folder / SETTINGS)


def _read_settings(folder: Path) -> StudySettings:
    """Return the settings that all studies of a folder share."""
    return read_study_file(folder / SETTINGS, StudySettings)


def _check_views(cells: Sequence[Cell], datasets: Sequence[PreparedDataset]) -> None:
    """Check that the datasets hold the X-rays of all views that the cells need.

    Raises:
        BadInput: a dataset lacks some; the message names all views that are needed.
    """
    needed = {cell.row.label: cell.recipe().view_list if cell.row.recipe else FRONTAL_AND_LATERAL for cell in cells}
    every = sorted({view.angle for views in needed.values() for view in views})
    for dataset in datasets:
        for label, views in needed.items():
            try:
                dataset.view_indices(views)
            except BadInput as error:
                raise BadInput(
                    dataset.folder,
                    f"'{label}' needs other X-rays ({error})",
                    f"prepare it with --views {','.join(f'{angle:g}' for angle in every)}",
                ) from None
