from .definitions import STUDIES as STUDIES
from .definitions import Row as Row
from .definitions import StudyDefinition as StudyDefinition
from .run import run_study as run_study

__all__ = [
    "STUDIES",
    "Row",
    "StudyDefinition",
    "run_study",
]
