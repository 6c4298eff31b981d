"""`raylift` that knows the tiny network: python tiny_run.py [--die-at STEP] train RECIPE ...

With --die-at, the process of rank 1 is killed when it begins that step.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from raylift.cli import main
from raylift.training.run import Run

sys.path.append(str(Path(__file__).parents[1]))  # of the tiny network
if sys.argv[1] == "--die-at":
    fatal, update = int(sys.argv[2]), Run._update_g
    del sys.argv[1:3]

    def update_or_die(run: Run) -> Any:
        if run.step == fatal and run.fabric.global_rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return update(run)

    Run._update_g = update_or_die  # type: ignore[method-assign]
main()
