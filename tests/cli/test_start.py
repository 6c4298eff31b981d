"""What a command loads before it knows what to do."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "monai", "numpy", "SimpleITK", "pydicom", "matplotlib", "numba", "kornia", "scipy", "skimage"}


def loaded(code: str) -> set[str]:
    """The modules that a program loads."""
    end = "\nimport sys; print('LOADED', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code + end], capture_output=True, text=True, check=True)
    return set(done.stdout.split("LOADED", 1)[1].split())


def test_recipes_are_checked_without_pytorch() -> None:
    modules = loaded("import raylift.config\nraylift.config.load_recipe('cpu')")
    assert "raylift.config.recipe" in modules
    assert "torch" not in modules


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["reconstruct", "--help"], ["data", "prepare", "--help"]]
)
def test_help_loads_nothing_that_computes(arguments: list[str]) -> None:
    code = f"import sys, contextlib\nsys.argv = ['raylift', *{arguments}]\nfrom raylift.cli import main\n"
    modules = loaded(f"{code}with contextlib.suppress(SystemExit):\n    main()")
    assert "raylift.cli.reconstruct" in modules
    assert not HEAVY & modules
