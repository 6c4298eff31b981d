"""A study from its definition to its table or figure: resumable, and no failed cell loses the rest."""

from __future__ import annotations

import json
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raylift.about import NOT_MEDICAL, __version__
from raylift.data.dataset import PreparedDataset
from raylift.errors import BadInput, WrongUsage
from raylift.storage.atomic import atomic_write, write_json
from raylift.studies.cells import TWO_VIEWS, Budget, CaseSet, Cell, Progress, compute, read_json
from raylift.studies.definitions import Study
from raylift.studies.figures import draw, draw_scores
from raylift.studies.tables import comma_separated, latex, markdown


@dataclass(frozen=True)
class Outcome:
    """What a study came to.

    Args:
        results: of the finished cells, in the order of the rows.
        failures: cell -> why it failed, in one line.
        report: the page with the table, or None where no cell is finished.
    """

    results: list[dict[str, Any]]
    failures: dict[str, str]
    report: Path | None


def run_study(
    study: Study,
    data: PreparedDataset,
    folder: Path,
    budget: Budget,
    seeds: Sequence[int],
    sets: Sequence[CaseSet],
    protocol: str = "hu",
    only: Sequence[str] = (),
    progress: Progress = lambda note, done, total: None,
) -> Outcome:
    """Train what is missing, score it, and write the study's report.

    Args:
        study: what is compared.
        data: trained on, its `train` split.
        folder: of studies that share budget and data, so that what several need is trained once. `results/` holds a
            file per cell, `runs/` the training runs; NAME.md, NAME.csv and NAME.tex are written anew after every
            cell, NAME.png and NAME.svg at the end.
        budget: the same for every trained row.
        seeds: of the trainings; methods that are not trained are computed once.
        sets: scored on; more may be added later.
        protocol: of the scores.
        only: labels of the rows to train now; all by default.
        progress: called with a note, steps done and their number.

    Raises:
        WrongUsage: the folder holds studies with another budget, data or meaning of a set's name, or a set has other
            cubes or another X-ray unit.
        BadInput: a row needs X-rays of views that a dataset does not hold.
    """
    _check_sets(data, sets)
    rows = [row for row in study.rows if not only or row.label in only]
    _check_views([Cell(row, 0, folder) for row in rows], [data, *(test.dataset for test in sets)])
    _settle(folder, budget, data, sets)
    failures: dict[str, str] = {}
    cells = [Cell(row, seed, folder) for row in rows for seed in (seeds if row.recipe else seeds[:1])]
    for number, cell in enumerate(cells, 1):

        def tell(note: str, done: int, total: int, number: int = number) -> None:
            progress(f"cell {number} of {len(cells)}: {note}", done, total)

        reason = folder / "failures" / f"{cell.result.stem}.txt"
        try:
            compute(cell, budget, data, list(sets), protocol, tell)
            reason.unlink(missing_ok=True)
        except Exception as error:
            failures[f"{cell.row.label}, seed {cell.seed}"] = " ".join(str(error).split()) or type(error).__name__
            with atomic_write(reason) as temporary:
                temporary.write_text(traceback.format_exc())
        write_tables(folder, study, protocol)
    results = read_results(folder, study, protocol)
    if results:
        draw_scores(results, list(json.loads((folder / "settings.json").read_text())["sets"]), folder / study.name)
    if study.figure and results:
        try:
            _draw(study, folder, seeds, sets)
        except BadInput as error:
            failures["figure"] = str(error)
    return Outcome(results, failures, write_tables(folder, study, protocol))


def _draw(study: Study, folder: Path, seeds: Sequence[int], sets: Sequence[CaseSet]) -> None:
    """Draw a study's figure of what is finished, unless it shows that already."""
    cells = [Cell(row, seed, folder) for row in study.rows for seed in seeds]
    finished = [cell for cell in cells if cell.result.exists()]
    wanted = {"cells": [cell.result.stem for cell in finished], "sets": [test.name for test in sets]}
    note = figures_of(folder, study) / "drawn.json"  # written last
    drawn = json.loads(note.read_text()) if note.exists() else {"cells": [], "sets": []}
    if drawn["cells"] != wanted["cells"] or not set(wanted["sets"]) <= set(drawn["sets"]):
        draw(study.figure, figures_of(folder, study), finished, sets)
        write_json(wanted, note)


def figures_of(folder: Path, study: Study) -> Path:
    """Where a study's pictures go."""
    return folder / "figures" / study.name


def read_results(folder: Path, study: Study, protocol: str) -> list[dict[str, Any]]:
    """The finished cells of a study under a protocol, in the order of its rows and by seed."""
    results = []
    for row in study.rows:
        key = Cell(row, 0, folder).key
        found = [read_json(path) for path in (folder / "results").glob(f"{key}-seed-*.json")]
        results += [
            {**result, "row": row.label, "protocol": protocol, "scores": result["scores"][protocol]}
            for result in sorted(found, key=lambda r: r["seed"])
            if protocol in result["scores"]
        ]
    return results


def write_tables(folder: Path, study: Study, protocol: str) -> Path | None:
    """The study's page, CSV and LaTeX of what is finished; the page's path, or None."""
    results = read_results(folder, study, protocol)
    if not results:
        return None
    name, settings = study.name, json.loads((folder / "settings.json").read_text())
    tests, budget = list(settings["sets"]), settings["budget"]
    spent = f"{budget['minutes']:g} minutes" if budget["minutes"] else f"{budget['samples']:,} training pairs"
    page = [
        f"# {study.title}",
        study.about,
        f"Each trained method had {spent} per seed, on {len(settings['trained_on'])} patients.",
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
    """Raise WrongUsage unless all sets have the training's cubes and X-ray unit."""
    for test in sets:
        for what in ("voxels", "cube_mm", "geometry"):
            ours, theirs = data.info[what], test.dataset.info[what]
            if ours != theirs:
                raise WrongUsage(f"the set '{test.name}' has another {what} ({theirs}) than the training data ({ours})")


def _settle(folder: Path, budget: Budget, data: PreparedDataset, sets: Sequence[CaseSet]) -> None:
    """Write what all studies of a folder have in common; sets may be added. Raises WrongUsage if it is another."""
    path = folder / "settings.json"
    before = read_json(path) if path.exists() else {}
    settings = {"budget": asdict(budget), "data": data.fingerprint, "trained_on": data.names("train")}
    now = {test.name: f"{test.split} of {test.dataset.fingerprint}" for test in sets}
    different = [key for key, value in settings.items() if before and before.get(key) != value]
    different += [f"set '{name}'" for name in now if before.get("sets", {}).get(name, now[name]) != now[name]]
    if different:
        raise WrongUsage(
            f"{folder} holds studies with another {different[0]}: give the same options to go on, or another folder"
        )
    write_json({**settings, "sets": before.get("sets", {}) | now}, path)


def _check_views(cells: Sequence[Cell], datasets: Sequence[PreparedDataset]) -> None:
    """Raise BadInput if a dataset lacks X-rays; it names all views that the cells need."""
    needed = {cell.row.label: cell.recipe().view_list if cell.row.recipe else TWO_VIEWS for cell in cells}
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
