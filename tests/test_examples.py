"""The examples in the docstrings of what packages export do what they show."""

import doctest
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import raylift
from radiograph_files import grey, write_dicom
from raylift.data.phantom import thorax_phantom
from raylift.drr.projector import project_volume
from raylift.geometry import Geometry, View
from raylift.images.xray_set import XraySet
from raylift.io.volumes import write_volume
from raylift.radiographs.sets import write_xrays

PACKAGES = [raylift.__name__, *(f"raylift.{one.name}" for one in pkgutil.iter_modules(raylift.__path__) if one.ispkg)]


def examples() -> Iterator[doctest.DocTest]:
    """Those of all exported names, each once."""
    finder, seen = doctest.DocTestFinder(exclude_empty=True), set[str]()
    for package in map(importlib.import_module, PACKAGES):
        for name in getattr(package, "__all__", ()):
            thing = getattr(package, name)
            where = f"{getattr(thing, '__module__', package.__name__)}.{name}"
            if where not in seen and (isinstance(thing, type) or callable(thing)):
                seen.add(where)
                yield from (test for test in finder.find(thing, where) if test.examples)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that examples name."""
    folder, scan = tmp_path_factory.mktemp("examples"), thorax_phantom(0, 5.0)
    geometry, views = Geometry.preset("chest-stand", 64), (View(0.0), View(90.0))
    write_volume(scan, folder / "chest.nii.gz")
    write_xrays(XraySet(project_volume(scan, geometry, views, (0, 0, 0)), views, geometry), folder / "xrays", "torch")
    Image.fromarray(grey(8)).save(folder / "pa.png")
    write_dicom(folder / "lateral.dcm", grey(16) // 16, ViewPosition="LL")
    write_dicom(folder / "chest-pa.dcm", grey(16, 500, 500) // 16, ImagerPixelSpacing=[0.8, 0.8], ViewPosition="PA")
    return folder


ALL = list(examples())


def test_there_are_some() -> None:
    named = {test.name.rpartition(".")[2] for test in ALL}
    assert {"ProjectionOperator", "Reconstructor", "View", "VolumeGrid", "read_radiograph", "read_volume"} <= named


@pytest.mark.parametrize("example", ALL, ids=lambda test: test.name)
def test_does_what_it_shows(example: doctest.DocTest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    example.globs = {**example.globs, "np": np, "torch": torch}
    lines: list[str] = []
    doctest.DocTestRunner().run(example, out=lines.append, clear_globs=False)
    assert not lines, "".join(lines)
