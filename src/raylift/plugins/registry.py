"""Registries of names that other packages extend by entry points. Nothing is imported before it is used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry]):
    """Map names to entries: Raylift's own, then those of installed packages, whose names cannot replace ours.

    A package adds a name by an entry point, in its `pyproject.toml`:

        [project.entry-points."raylift.networks"]
        my_unet = "my_package.networks:MyUNet"

    Only installed packages can: recipes and weights, which may come from strangers, say names and never modules.

    Args:
        group: of the entry points.
        own: Raylift's entries, by name.
        entry_of: makes an entry of an entry point's value, like "my_package.networks:MyUNet".
    """

    def __init__(self, group: str, own: Mapping[str, Entry], entry_of: Callable[[str], Entry]) -> None:
        self.group, self.own, self._entry_of = group, dict(own), entry_of

    @cached_property
    def others(self) -> dict[str, Entry]:
        """The entries of installed packages, by name."""
        from importlib.metadata import entry_points  # slow to import

        found = {point.name: self._entry_of(point.value) for point in entry_points(group=self.group)}
        return {name: entry for name, entry in sorted(found.items()) if name not in self.own}

    def __getitem__(self, name: str) -> Entry:
        """Return an entry. Raises KeyError."""
        return self.own[name] if name in self.own else self.others[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from self.others

    def __len__(self) -> int:
        return len(self.own) + len(self.others)


def load(path: str) -> Any:
    """Import what "module:attribute", or "module" alone, names."""
    module, _, attribute = path.partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found
