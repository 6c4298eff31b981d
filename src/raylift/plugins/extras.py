"""Packages that only some of Raylift's work needs."""

import importlib
from types import ModuleType

from raylift.errors import WrongUsage


def import_extra(module: str, extra: str, wanted_for: str) -> ModuleType:
    """Return a module of a package that one of Raylift's extras installs.

    Args:
        module: to import, such as "ray".
        extra: that installs it.
        wanted_for: what needs it, such as an option, for the message.

    Raises:
        WrongUsage: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise WrongUsage(f"{wanted_for}: {package} is not installed: pip install 'raylift[{extra}]'") from None
