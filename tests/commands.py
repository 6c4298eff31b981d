"""Commands of Raylift, run in this process."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest

from raylift.cli import main


def raylift(*arguments: object, code: int = 0) -> tuple[str, str]:
    """Standard output and standard error of a command that ends with the code."""
    out, err = io.StringIO(), io.StringIO()
    found: Any = 0
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        patched.setattr(sys, "argv", ["raylift", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            found = end.code or 0
    assert found == code, err.getvalue()
    return out.getvalue(), err.getvalue()


def raylift_json(*arguments: object, code: int = 0) -> Any:
    return json.loads(raylift(*arguments, "--json", code=code)[0])
