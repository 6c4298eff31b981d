"""Measured numbers on their way into CSV files."""

import csv
import io
from pathlib import Path
from typing import Any

from raylift.storage.atomic import atomic_write


class RunningMeans:
    """Running means of named numbers."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, numbers: dict[str, float]) -> None:
        """Add one value of each number."""
        for name, value in numbers.items():
            self.values.setdefault(name, []).append(value)

    def pop(self) -> dict[str, float]:
        """Return the means so far, and start anew."""
        means = {name: sum(values) / len(values) for name, values in self.values.items()}
        self.values = {}
        return means


class MetricsTable:
    """A CSV file that grows by rows; its columns are those of all rows so far.

    Args:
        path: of the file; rows after step `resume_from` are dropped, since they will be written again.
        resume_from: number of finished steps.
    """

    def __init__(self, path: Path, resume_from: int) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if resume_from and path.exists():
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            self.rows = [row for row in rows if int(row["step"]) <= resume_from]

    def write(self, row: dict[str, Any]) -> None:
        """Add a row, and replace the file."""
        self.rows.append(row)
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        with atomic_write(self.path) as temporary:
            temporary.write_text(text.getvalue())
