"""The files of a study's folder as typed records: each cell's result, and the settings that all studies share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from raylift.errors import BadInput
from raylift.storage.records import Record, Typed, read_record

CaseScores = dict[str, dict[str, float]]  # by case and metric


class _Result(Typed):
    """A result's seed, and the training's cost, which a method that is not trained lacks.

    Args:
        seed: seed of the training.
        recipe: the recipe as it was trained.
        parameters: number of g's parameters.
        g_updates: number of g's updates.
        minutes: wall-clock time of the training.
    """

    seed: int = 0
    recipe: dict[str, Any] | None = None
    parameters: int | None = None
    g_updates: int | None = None
    minutes: float | None = None


class CellResult(_Result):
    """The content of a cell's file in `results/`.

    Args:
        raylift: the version that computed a method that is not trained.
        budget: the training's budget.
        scores: by protocol, set, case and metric.
    """

    raylift: str | None = None
    budget: dict[str, int | float | None] | None = None
    scores: dict[str, dict[str, CaseScores]] = Field(default_factory=dict)


class RowResult(_Result):
    """A cell's scores under one protocol, for a row of a table.

    Args:
        row: the row's label.
        protocol: name of the scores' protocol.
        scores: by set, case and metric.
    """

    row: str
    protocol: str
    scores: dict[str, CaseScores]

    @classmethod
    def of(cls, cell: CellResult, row: str, protocol: str) -> RowResult:
        """Return a cell's result for a row and a protocol that it has scores of."""
        cost = cell.model_dump(include=set(_Result.model_fields))
        return cls(row=row, protocol=protocol, scores=cell.scores[protocol], **cost)


class StudySettings(Typed):
    """The content of `settings.json`, which all studies of a folder share.

    Args:
        budget: the training budget of every row.
        data: fingerprint of the dataset to train on.
        trained_on: names of its training cases.
        sets: the split and the dataset's fingerprint of each set to score on, by the set's name.
    """

    budget: dict[str, int | float | None]
    data: str
    trained_on: list[str]
    sets: dict[str, str] = Field(default_factory=dict)


def read_study_file(path: Path, kind: type[Record]) -> Record:
    """Read a file that a study wrote.

    Returns:
        The record.

    Raises:
        BadInput: the file is damaged.
    """
    try:
        return read_record(path, kind)
    except (OSError, ValueError) as error:
        raise BadInput(path, f"damaged ({error})", "delete it, and run the study again") from None
