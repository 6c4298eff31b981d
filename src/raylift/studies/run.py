"""A study from its definition to its table or figure: resumable, and no failed cell loses the rest."""

from __future__ import annotations

import json
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raylift._version import __version__
from raylift.data.dataset import PreparedDataset
from raylift.errors import BadInput, WrongUsage
from raylift.evaluation.report import NOT_MEDICAL
from raylift.recipe import Recipe
from raylift.studies.cells import TWO_VIEWS, Budget, CaseSet, Cell, Progress, compute
from raylift.studies.definitions import STUDIES, Row
from raylift.studies.figures import draw
from raylift.studies.tables import comma_separated, latex, markdown
from raylift.volumes import replacing, write_json


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
    name: str,
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
        name: key of `STUDIES`.
        data: trained on, its `train` split.
        folder: of studies that share budget, data and sets, so that what several need is trained once. `results/`
            holds a file per cell, `runs/` the training runs; NAME.md, NAME.csv and NAME.tex are written anew after
            every cell.
        budget: the same for every trained row.
        seeds: of the trainings; methods that are not trained are computed once.
        sets: scored on.
        protocol: of the scores.
        only: labels of the rows to train now; all by default.
        progress: called with a note, steps done and their number.

    Raises:
        WrongUsage: the folder holds studies with other settings.
        BadInput: a row needs X-rays of views that a dataset does not hold.
    """
    study = STUDIES[name]
    settings = {
        "budget": asdict(budget),
        "protocol": protocol,
        "sets": {test.name: [test.dataset.folder.name, test.split] for test in sets},
        "cases": {test.name: test.dataset.names(test.split) for test in sets},
        "trained_on": data.names("train"),
    }
    _check_settings(folder, settings)
    rows = [row for row in study.rows if not only or row.label in only]
    cells = [Cell(row, seed, folder) for row in rows for seed in (seeds if row.recipe else seeds[:1])]
    for row in rows:
        _check_views(row, Cell(row, 0, folder), [data, *(test.dataset for test in sets)])
    write_json(settings, folder / "settings.json")
    failures: dict[str, str] = {}
    for number, cell in enumerate(cells, 1):
        label = f"{cell.row.label}, seed {cell.seed}"
        if cell.result.exists():
            continue

        def tell(note: str, done: int, total: int, number: int = number) -> None:
            progress(f"cell {number} of {len(cells)}: {note}", done, total)

        try:
            compute(cell, budget, data, list(sets), protocol, tell)
        except Exception as error:
            failures[label] = " ".join(str(error).split()) or type(error).__name__
            with replacing(folder / "failures" / f"{cell.result.stem}.txt") as temporary:
                temporary.write_text(traceback.format_exc())
        write_tables(folder, name)
    results = read_results(folder, name)
    if study.figure and results:
        draw(study.figure, folder, [cell for cell in cells if cell.result.exists()], sets)
    return Outcome(results, failures, write_tables(folder, name))


def read_results(folder: Path, name: str) -> list[dict[str, Any]]:
    """The finished cells of a study, in the order of its rows and by seed."""
    results = []
    for row in STUDIES[name].rows:
        found = [json.loads(path.read_text()) for path in (folder / "results").glob(f"{row.key}-seed-*.json")]
        results += [{"row": row.label, **result} for result in sorted(found, key=lambda r: r["seed"])]
    return results


def write_tables(folder: Path, name: str) -> Path | None:
    """The study's page, CSV and LaTeX of what is finished; the page's path, or None."""
    results = read_results(folder, name)
    if not results:
        return None
    study, settings = STUDIES[name], json.loads((folder / "settings.json").read_text())
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
        with replacing(folder / file) as temporary:
            temporary.write_text(text)
    return folder / f"{name}.md"


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    kept = folder / "settings.json"
    if not kept.exists():
        return
    before = json.loads(kept.read_text())
    different = [key for key, value in settings.items() if before.get(key) != value]
    if different:
        raise WrongUsage(
            f"{folder} holds studies with another {different[0]}: give the same options to go on, or another folder"
        )


def _check_views(row: Row, cell: Cell, datasets: Sequence[PreparedDataset]) -> None:
    recipe: Recipe | None = cell.recipe() if row.recipe else None
    views = recipe.view_list if recipe else TWO_VIEWS
    for dataset in datasets:
        try:
            dataset.view_indices(views)
        except BadInput as error:
            wanted = ",".join(f"{view.angle:g}" for view in views)
            raise BadInput(
                dataset.folder, f"'{row.label}' needs other X-rays ({error})", f"prepare it with --views {wanted}"
            ) from None
