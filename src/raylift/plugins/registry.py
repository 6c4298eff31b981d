"""Registries of names that other packages can extend by entry points. Nothing is imported before it is used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar

Item = TypeVar("Item")


class Registry(Mapping[str, Item]):
    """A mapping of names to entries: first Raylift's own, then those of installed packages, which cannot replace them.

    A package adds a name by an entry point in its `pyproject.toml`:

        [project.entry-points."raylift.networks"]
        my_unet = "my_package.networks:MyUNet"

    Only installed packages can add names. Recipes and weights, which may come from strangers, contain names only,
    never modules to import.

    Args:
        group: name of the group of entry points.
        own: Raylift's entries, by name.
        entry_of: makes an entry from an entry point's value, such as "my_package.networks:MyUNet".
    """

    def __init__(self, group: str, own: Mapping[str, Item], entry_of: Callable[[str], Item]) -> None:
        self.group, self.own, self._entry_of = group, dict(own), entry_of

    @cached_property
    def others(self) -> dict[str, Item]:
        """The entries of installed packages, by name."""
        from importlib.metadata import entry_points  # slow to import

        entries = {point.name: self._entry_of(point.value) for point in entry_points(group=self.group)}
        return {name: entry for name, entry in sorted(entries.items()) if name not in self.own}

    def __getitem__(self, name: str) -> Item:
        """Return an entry by name; raises KeyError if there is none."""
        return self.own[name] if name in self.own else self.others[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from self.others

    def __len__(self) -> int:
        return len(self.own) + len(self.others)


def load(path: str) -> Any:
    """Import a module, or an attribute of one.

    Args:
        path: "module:attribute", or "module" alone.

    Returns:
        The attribute, or the module.
    """
    module_name, _, attribute = path.partition(":")
    module = importlib.import_module(module_name)
    return getattr(module, attribute) if attribute else module
