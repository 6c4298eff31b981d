from .cases import CaseTask as CaseTask
from .cases import run_case as run_case
from .cases import run_tasks as run_tasks
from .executors import HERE as HERE
from .executors import LOCAL as LOCAL
from .executors import Executor as Executor
from .executors import run_cases as run_cases

__all__ = [
    "HERE",
    "LOCAL",
    "CaseTask",
    "Executor",
    "run_case",
    "run_cases",
    "run_tasks",
]
