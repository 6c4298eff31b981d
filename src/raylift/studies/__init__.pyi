from .definitions import STUDIES as STUDIES
from .definitions import Row as Row
from .definitions import Study as Study
from .run import run_study as run_study

__all__ = [
    "STUDIES",
    "Row",
    "Study",
    "run_study",
]
