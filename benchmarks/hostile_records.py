"""Records of strangers: weights, recipes, datasets, cases, checkpoints and X-ray sets that are wrong in every way.

python benchmarks/hostile_records.py [KIND ...]

Each is read in a process of its own, in which reading may take 20 seconds. Prints by kind how many were tried, refused
in one line, and read since they are right; how many ended in another exception, without end, or took more than 2 GB;
and ends with 1 if any did. Takes a minute or two.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import logging
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
import yaml
from safetensors.torch import load_file, save_file

from raylift.cli.console import print_table
from raylift.config.files import load_recipe, parse_recipe
from raylift.data.dataset import PreparedDataset
from raylift.data.phantom import thorax_phantom
from raylift.data.preparation import PreparationSettings, prepare
from raylift.errors import BadInput, WrongUsage
from raylift.geometry import Geometry, View
from raylift.images.xray_set import XraySet
from raylift.io.volumes import write_volume
from raylift.model.weights import build_lifted_network, load_weights, save_weights
from raylift.model.weights_info import Training, WeightsDescription
from raylift.parallel.executors import HERE
from raylift.radiographs.sets import read_xrays, write_xrays
from raylift.training.checkpoint import Checkpoints

SECONDS = 20
MOST_MEMORY = 2 * 2**30
EACH = 60  # records of a kind that differ in one value, besides those that are named
VALUES: list[Any] = [
    None, True, "x", "", "../../etc/passwd", -1, 0, 0.5, 1e308, 10**30, math.nan, math.inf, [], {}, [[]], ["x"] * 3,
    {"a": 1}, "9" * 5000, list(range(1000)),
]  # fmt: skip


@dataclass
class Kind:
    """A kind of record.

    Args:
        make: writes a good one into an empty folder.
        read: reads one from a folder; what it returns or raises is judged.
        records: files below the folder that hold JSON or YAML.
        others: further files, which are damaged as files.
    """

    make: Callable[[Path], None]
    read: Callable[[Path], None]
    records: tuple[str, ...]
    others: tuple[str, ...]


def make_weights(folder: Path) -> None:
    recipe = {
        "name": "tiny",
        "network": {"name": "unet", "feature_size": 4},
        "objective": {"name": "paired"},
        "train": {"steps": 1},
    }
    training = Training(cases=["a"])
    geometry = Geometry.preset("chest-stand", 32)
    info = WeightsDescription.of(parse_recipe(recipe, "benchmark"), geometry, 32, 320.0, training)
    save_weights(build_lifted_network(info), info, folder)


def read_weights(folder: Path) -> None:
    network = load_weights(folder).lifted_network.network
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise AssertionError("NaN was read")


def make_recipe(folder: Path) -> None:
    text = yaml.safe_dump(load_recipe("paper-cpu").model_dump(mode="json"))
    (folder / "recipe.yaml").write_text(text)


def read_recipe(folder: Path) -> None:
    load_recipe(folder / "recipe.yaml").model_dump_json()


def make_dataset(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scans:
        for seed in range(2):
            write_volume(thorax_phantom(seed, 8.0), Path(scans) / f"phantom-{seed}.nii.gz")
        settings = PreparationSettings(32, (View(0.0), View(90.0)), Geometry.preset("chest-stand", 32))
        prepare(Path(scans), folder, settings, validation=["phantom-1"], executor=HERE)


def read_dataset(folder: Path) -> None:
    dataset = PreparedDataset(folder)
    for split in dataset.splits:
        if dataset.splits[split]:
            for case in dataset.cases(split):
                if not all(np.isfinite(part).all() for part in (case.truth.array, case.xrays, case.context)):
                    raise AssertionError("NaN was read")


def make_checkpoints(folder: Path) -> None:
    checkpoints = Checkpoints(folder / "checkpoints", 2)
    for step in (1, 2):
        checkpoints.save({"g/weight": torch.full((8, 8), float(step))}, {"step": step}, step, step / 10)


def read_checkpoints(folder: Path) -> None:
    loaded = Checkpoints(folder / "checkpoints", 2).load()
    if loaded is not None and not all(value.isfinite().all() for value in loaded[0].values()):
        raise AssertionError("NaN was read")


def make_xrays(folder: Path) -> None:
    images = np.random.default_rng(0).uniform(0.1, 5, (2, 32, 32)).astype(np.float32)
    geometry = Geometry.preset("chest-stand", 32)
    write_xrays(XraySet(images, (View(0.0), View(90.0)), geometry, (1.0, 2.0, 3.0)), folder, "torch")


def read_xray_set(folder: Path) -> None:
    if not np.isfinite(read_xrays(folder).images).all():
        raise AssertionError("NaN was read")


CASE = "cases/phantom-0"
KINDS = {
    "weights": Kind(make_weights, read_weights, ("weights.json",), ("weights.safetensors",)),
    "recipes": Kind(make_recipe, read_recipe, ("recipe.yaml",), ()),
    "datasets": Kind(make_dataset, read_dataset, ("dataset.json", "splits.json"), ()),
    "cases": Kind(
        make_dataset,
        read_dataset,
        (f"{CASE}/case.json",),
        tuple(f"{CASE}/{name}" for name in ("ct.nii.gz", "context.npy", "xrays.mha")),
    ),
    "checkpoints": Kind(
        make_checkpoints, read_checkpoints, ("checkpoints/index.json",), ("checkpoints/step-0000002.safetensors",)
    ),
    "X-ray sets": Kind(make_xrays, read_xray_set, ("xrays.json",), ("ap.mha",)),
}


def leaves(data: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Ways to all values in lists and objects."""
    yield way
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield from leaves(value, (*way, key))


def changed(data: Any, way: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value somewhere; the value `Missing` takes it away."""
    if not way:
        return value
    made = copy.deepcopy(data)
    inner = made
    for key in way[:-1]:
        inner = inner[key]
    if value is Missing:
        del inner[way[-1]]
    else:
        inner[way[-1]] = value
    return made


class Missing:
    """In place of a value: none."""


def attacks(kind: Kind, good: Path, chance: random.Random) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """What is done to a good record, by name."""
    yield "nothing", lambda folder: None
    for name in kind.records:
        text = (good / name).read_text()
        data = yaml.safe_load(text) if name.endswith(".yaml") else json.loads(text)
        ways = list(leaves(data))
        tried = [(way, value) for way in ways for value in [*VALUES, Missing] if way or value is not Missing]
        for way, value in chance.sample(tried, min(EACH, len(tried))):
            said = f"{name}: {'.'.join(map(str, way))} is {str(value)[:20]}"
            yield said, lambda f, n=name, w=way, v=value, d=data: put(f / n, written(n, changed(d, w, v)))  # type: ignore[misc]
        yield f"{name}: nested", lambda f, n=name: put(f / n, "[" * 200_000)  # type: ignore[misc]
        yield f"{name}: nested objects", lambda f, n=name: put(f / n, '{"a":' * 100_000)  # type: ignore[misc]
        yield f"{name}: a key twice", lambda f, n=name, t=text: put(f / n, twice(t))  # type: ignore[misc]
        yield f"{name}: a long number", lambda f, n=name: put(f / n, '{"voxels": ' + "9" * 10**6 + "}")  # type: ignore[misc]
    if "recipe.yaml" in kind.records:
        yield from recipe_attacks()
    for name in (*kind.records, *kind.others):
        yield from file_attacks(name, chance)
    yield from own_attacks(kind)


def written(name: str, data: Any) -> str:
    """Plain data as the text of a file of that name."""
    return yaml.safe_dump(data) if name.endswith(".yaml") else json.dumps(data)


def put(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def twice(text: str) -> str:
    """The first key once more, with nothing."""
    if text.lstrip().startswith("{"):
        key = text.split('"')[1]
        return "{" + f'"{key}": null, ' + text.lstrip()[1:]
    return f"{text.partition(':')[0]}: 1\n{text}"


def recipe_attacks() -> Iterator[tuple[str, Callable[[Path], None]]]:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + k)}: &{chr(98 + k)} [{', '.join([f'*{chr(97 + k)}'] * 9)}]\n" for k in range(20)
    )
    texts = {
        "aliases without end": bomb,
        "an alias of itself": "name: &a [*a]\n",
        "code": "name: !!python/object/apply:os.system ['true']\n",
        "extends a device": "extends: /dev/zero\n",
        "extends a file of the system": "extends: /etc/passwd\n",
        "extends itself": "extends: recipe.yaml\n",
        "extends a pipe": "extends: pipe.yaml\n",
        "extends a number": "extends: 5\n",
        "a chain": "extends: chain-0.yaml\n",
        "a date": "name: 2020-01-01\n",
        "binary": "name: !!binary aGVsbG8=\n",
        "a set": "name: !!set {a, b}\n",
        "sixty": "name: 1:2:3:4\n",
        "keys that are lists": "? [a, b]\n: c\n",
        "many documents": "name: a\n---\nname: b\n",
        "merge": "<<: {name: a}\n",
    }
    for said, text in texts.items():

        def write(folder: Path, text: str = text) -> None:
            put(folder / "recipe.yaml", text)
            os.mkfifo(folder / "pipe.yaml")
            for number in range(200):
                (folder / f"chain-{number}.yaml").write_text(f"extends: chain-{number + 1}.yaml\n")

        yield said, write


def file_attacks(name: str, chance: random.Random) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """What can be wrong with any file."""

    def replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
        def act(folder: Path) -> None:
            content = (folder / name).read_bytes()
            (folder / name).unlink()
            (folder / "before").write_bytes(content)
            make(folder / name)
            (folder / "before").unlink(missing_ok=True)

        return act

    def before(path: Path) -> bytes:
        return next(parent / "before" for parent in path.parents if (parent / "before").exists()).read_bytes()

    def cut(path: Path) -> None:
        content = before(path)
        path.write_bytes(content[: chance.randrange(1, len(content))])

    def flipped(path: Path) -> None:
        content = bytearray(before(path))
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)

    def sparse(path: Path) -> None:
        path.write_bytes(before(path))
        os.truncate(path, 2**40)

    yield f"{name} is missing", replaced(lambda path: None)
    yield f"{name} is empty", replaced(lambda path: path.write_bytes(b""))
    yield f"{name} is a folder", replaced(lambda path: path.mkdir())
    yield f"{name} is a pipe", replaced(os.mkfifo)
    yield f"{name} is a device", replaced(lambda path: path.symlink_to("/dev/zero"))
    yield f"{name} is a dead link", replaced(lambda path: path.symlink_to("nowhere"))
    yield f"{name} is a link in a circle", replaced(lambda path: path.symlink_to(path.name))
    yield f"{name} is another file", replaced(lambda path: path.symlink_to("/etc/passwd"))
    yield f"{name} is noise", replaced(lambda path: path.write_bytes(chance.randbytes(5000)))
    yield f"{name} is no UTF-8", replaced(lambda path: path.write_bytes(b"\xff\xfe{}"))
    yield f"{name} is a terabyte", replaced(sparse)
    for number in range(4):
        yield f"{name} is cut ({number})", replaced(cut)
        yield f"{name} has a bit flipped ({number})", replaced(flipped)


def own_attacks(kind: Kind) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """What is wrong with tensors and arrays."""
    if "weights.safetensors" in kind.others:

        def with_tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
            def act(folder: Path) -> None:
                import hashlib

                path = folder / "weights.safetensors"
                tensors = load_file(path)
                change(tensors)
                path.unlink()
                save_file(tensors, path)
                info = json.loads((folder / "weights.json").read_text())
                info["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
                put(folder / "weights.json", json.dumps(info))

            return act

        first = next(iter(load_file_names()))
        yield "NaN", with_tensors(lambda t: t[first].view(-1)[0].fill_(math.nan))
        yield "infinity", with_tensors(lambda t: t[first].view(-1)[0].fill_(math.inf))
        yield "a tensor less", with_tensors(lambda t: t.pop(first))
        yield "a tensor more", with_tensors(lambda t: t.update(more=torch.ones(3)))
        yield "another shape", with_tensors(lambda t: t.update({first: torch.ones(3)}))
        yield "integers", with_tensors(lambda t: t.update({first: t[first].long()}))
        yield "float64", with_tensors(lambda t: t.update({first: t[first].double()}))
        yield "no tensors", with_tensors(lambda t: t.clear())
        for key, value in (("members", 10**6), ("members", 64), ("voxels", 512), ("voxels", 10**12)):
            yield (
                f"{key} {value}",
                lambda f, k=key, v=value: put(  # type: ignore[misc]
                    f / "weights.json", json.dumps(json.loads((f / "weights.json").read_text()) | {k: v})
                ),
            )
        for key, value in (("feature_size", 512), ("feature_size", 10**9), ("window_size", 64), ("name", "swin_unetr")):
            yield f"{key} {value}", lambda f, k=key, v=value: network(f, k, v)  # type: ignore[misc]
    if f"{CASE}/context.npy" in kind.others:
        arrays = {
            "of text": np.full((4, 4, 4), "a"),
            "of objects": None,
            "of float": np.zeros((4, 4, 4)),
            "of another shape": np.zeros((4, 4, 4), np.int16),
        }
        for said, array in arrays.items():

            def write(folder: Path, array: Any = array) -> None:
                path = folder / CASE / "context.npy"
                path.unlink()
                if array is None:
                    np.save(path, np.array([{}]), allow_pickle=True)
                else:
                    np.save(path, array)

            yield f"context {said}", write
        header = b"\x93NUMPY\x01\x00v\x00{'descr': '<i2', 'fortran_order': False, 'shape': (100000, 100000, 100), }"
        yield (
            "context of a promise",
            lambda f: (f / CASE / "context.npy").write_bytes(header.ljust(128) + b"xx") and None,
        )
        for said, image in (("small", np.zeros((4, 4, 4), np.int16)), ("flat", np.zeros((64, 64), np.int16))):
            yield (
                f"truth that is {said}",
                lambda f, i=image: sitk.WriteImage(  # type: ignore[misc]
                    sitk.GetImageFromArray(i), str(f / CASE / "ct.nii.gz")
                ),
            )
        yield (
            "X-rays of NaN",
            lambda f: sitk.WriteImage(
                sitk.GetImageFromArray(np.full((2, 32, 32), np.nan, np.float32)), str(f / CASE / "xrays.mha")
            ),
        )
        yield "a truth that unpacks without end", lambda f: bomb_nifti(f / CASE / "ct.nii.gz")
    if "ap.mha" in kind.others:
        yield (
            "X-rays of NaN",
            lambda f: sitk.WriteImage(sitk.GetImageFromArray(np.full((32, 32), np.nan, np.float32)), str(f / "ap.mha")),
        )
        names = ("../ap.mha", "/etc/passwd", "ap.mha\0", "", ".", "xrays.json", "ap.mha/", "a" * 300)
        for name in names:

            def rename(folder: Path, name: str = name) -> None:
                told = json.loads((folder / "xrays.json").read_text())
                told["xrays"][0]["file"] = name
                put(folder / "xrays.json", json.dumps(told))

            yield f"a file called {name[:20]!r}", rename


def load_file_names() -> list[str]:
    with tempfile.TemporaryDirectory() as place:
        make_weights(Path(place))
        return list(load_file(Path(place) / "weights.safetensors"))


def network(folder: Path, key: str, value: Any) -> None:
    info = json.loads((folder / "weights.json").read_text())
    info["recipe"]["network"] |= {"name": "swin_unetr", "feature_size": 12, key: value}
    put(folder / "weights.json", json.dumps(info))


def bomb_nifti(path: Path) -> None:
    content = gzip.decompress(path.read_bytes())
    with gzip.open(path, "wb", 1) as file:
        file.write(content)
        for _ in range(200):
            file.write(bytes(2**24))


def tried(kind: Kind, folder: Path) -> tuple[str, str]:
    """Read a record in a process of its own: what came of it, and what was said."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(here)
        signal.alarm(SECONDS)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            kind.read(folder)
            said = "read", ""
        except (BadInput, WrongUsage) as error:
            text = str(error)
            said = ("refused", text) if len(text.splitlines()) == 1 and len(text) < 1500 else ("raw", text)
        except BaseException as error:
            said = "raw", f"{type(error).__name__}: {error}"
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        os.write(
            there, json.dumps(["large", f"{grown / 2**30:.1f} GB"] if grown > MOST_MEMORY else said).encode()[:60000]
        )
        os._exit(0)
    os.close(there)
    with os.fdopen(here, "rb") as file:
        content = file.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return ("endless" if os.WTERMSIG(status) == signal.SIGALRM else "raw"), f"signal {os.WTERMSIG(status)}"
    what, said = json.loads(content)
    return what, said


def main() -> None:
    parser = argparse.ArgumentParser(description="Records of strangers that are wrong in every way.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"one of {', '.join(KINDS)}; all by default")
    chosen = parser.parse_args().kinds or list(KINDS)
    torch.set_num_threads(1)
    logging.disable()
    rows, bad = [], 0
    for name in chosen:
        kind, begun = KINDS[name], time.monotonic()
        counts = Counter[str]()
        with tempfile.TemporaryDirectory() as place:
            good = Path(place) / "good"
            good.mkdir()
            kind.make(good)
            for what, attack in attacks(kind, good, random.Random(0)):
                folder = Path(place) / "tried"
                shutil.copytree(good, folder, symlinks=True)
                attack(folder)
                outcome, said = tried(kind, folder)
                counts[outcome] += 1
                if outcome not in ("refused", "read") or (what == "nothing" and outcome != "read"):
                    bad += 1
                    print(f"{name}: {what}: {outcome}: {said[:300]}", file=sys.stderr)
                if os.environ.get("SHOW"):
                    print(f"{name}: {what}: {outcome}: {said[:200]}", file=sys.stderr)
                shutil.rmtree(folder)
        rows.append(
            {
                "records": name,
                "tried": counts.total(),
                "refused in one line": counts["refused"],
                "read": counts["read"],
                "raw": counts["raw"],
                "without end": counts["endless"],
                "above 2 GB": counts["large"],
                "took": f"{time.monotonic() - begun:.0f} s",
            }
        )
    print_table(rows)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
