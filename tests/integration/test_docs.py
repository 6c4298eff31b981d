"""Every command of README.md and docs/*.md runs as it is written, page by page and in the order of the page.

Taken are the lines of fenced blocks, Python blocks, and inline code that is a whole command. They run in a folder like
a reader's clone, which holds the scans and radiographs that the pages name, so what one command makes the next one
takes. Files that a comment names, and paths below an output, must be there afterwards; so must paths of the repository.

Tables say how the commands differ from the pages: `MEANT` and `LEFT_OUT` have values for placeholders, `SMALLER` has
options that make them short. The benchmarks all.py, alignment.py, costs.py, engines.py, hostile_records.py,
many_cases.py, memory.py, projector.py, radiographs.py, reconstruction.py, siege.py, siege_disk.py, sizes.py,
sources.py, step.py and swin_unetr.py measure for minutes: their options are parsed, and nothing more; so are those of
modules that train (`python -m`). An unknown placeholder or kind of command fails. Besides:

- Collections are fetched from a store on this machine, `Download?` is answered with yes. Refinement ends after one
  iteration, a study's trial after three steps; a training learns what X-rays look like from 24 sets of them; pictures
  are blank.
- An engine's cases, Ray's too, are prepared in this process; `tests/parallel/test_executors.py` has the engines.
- `pip install` asks for an extra that exists; `make` is asked what it would do (`make -n`), and `raylift demo` runs for
  `make demo`; `git clone` is of this checkout, and the reader stays in the folder, which is laid out like it.
- `raylift serve` gets a free port, which stands for 8000 in what follows; what `torchrun` and
  `srun` would start is run once, in this process.
- Where a page trains a second time into a folder, or combines weights there, it is emptied first. A training to be
  resumed is begun.
- A command's bare name, or name and options alone, is a mention: it must exist. So must the options of a synopsis
  (`[--option]`, or DIR), which has to name all that are required.
- A Python block that begins with `# FILE` is that module, one with `# in NAME of FILE` adds entries to that dictionary.
"""

from __future__ import annotations

import argparse
import html
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from PIL import Image

from helpers import describe_tiny, described, torch_threads
from live_server import Server
from object_store import BUCKET, Store, index_of
from raylift.cli import main
from raylift.cli.registered import app
from raylift.config import files
from raylift.config.recipe import Recipe
from raylift.data import collections
from raylift.data import preparation as preparing
from raylift.data.phantom import thorax_phantom
from raylift.data.thorax import find_thorax
from raylift.drr.projector import project_volume
from raylift.geometry import Camera, Geometry, View
from raylift.images.xray_set import XraySet
from raylift.io.volumes import write_volume
from raylift.model.weights import build_lifted_network, save_weights
from raylift.parallel import executors as engines
from raylift.radiographs.sets import write_xrays
from raylift.reconstruction import refinement
from raylift.storage.paths import storage_path
from raylift.studies import cells
from raylift.training.run import train
from repository import ROOT

# `extending.md` needs its package: `tests/plugins` runs it.
NOT_HERE = ("commands.md", "extending.md")
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").glob("*.md") if p.name not in NOT_HERE)]

MEANT = {
    "<this repository>": str(ROOT),
    "$(which raylift)": "raylift-by-path",
    "COMMAND": "train",
    "COLLECTION": "lidc_idri",
    "PATIENT": "LIDC-IDRI-0001",
    "RECIPE": "recipes/cpu.yaml",
    "PREPARED": "prepared",
    "PREPARED32": "prepared32",
    "WEIGHTS": "runs/any-views",
    "RUN": "interrupted",
    "CHECKOUT-BEFORE": ".",
    "ROW": "'mean training volume'",
    "BUCKET": BUCKET,
    "http://tracking:5000": "file:mlruns",
}
# What "..." leaves out, by the command.
LEFT_OUT = {"raylift reconstruct": "xrays -o volume.mha", "raylift study": "--data prepared -o studies"}

SETTINGS = (
    "data.xray_pixels=64",
    "data.projection_spacing=8",
    "network.feature_size=4",
    "train.batch_size=1",
    "train.precision=32-true",
    "train.warmup=0",
)
TRAIN = " ".join(f"--set {setting}" for setting in SETTINGS)
PAPER = (
    "--set network.name=residual_unet --set objective.features=false --set objective.g_updates=1 "
    "--set objective.potential=compact"
)
# The first that fits is put behind the command.
SMALLER = {
    r"raylift drr ": "--pixels 64",
    r"raylift data prepare .* --voxels 128": "--pixels 64 --voxels 64",
    r"raylift data prepare ": "--pixels 64",
    r"raylift train (recipes/)?cpu.*--resume": f"{TRAIN} --set network.name=residual_unet --set train.steps=2",
    r"raylift train .* network\.name=": TRAIN,
    r"raylift train (recipes|reproduction)/paper": f"{TRAIN} {PAPER} --set train.steps=1",
    r"raylift train (recipes/)?cpu": f"{TRAIN} --set train.steps=1 --set network.name=residual_unet",
    r"raylift train ": f"{TRAIN} --set train.steps=1",
    r"raylift study methods": "--minutes 0.01 --seeds 1 --only 'mean training volume'",
    r"raylift study lift": "--minutes 0.01 --seeds 1 --set unseen=validation --only 'repeat, paired'",
    r"raylift study alignment": "--minutes 0.01 --seeds 1 --set unseen=validation --only 'ours: 2 views, backproject'",
    r"raylift study (views|gradients)": "--minutes 0.01 --seeds 1 --set unseen=validation --only 'ours: 2 views'",
    r"raylift export ": "--weights runs/any-views",
    r"torchrun ": f"{TRAIN} {PAPER} --set train.steps=1",
}
ONLY_PARSED = (
    "all",
    "alignment",
    "costs",
    "engines",
    "hostile_records",
    "many_cases",
    "memory",
    "projector",
    "radiographs",
    "reconstruction",
    "siege",
    "siege_disk",
    "sizes",
    "sources",
    "step",
    "swin_unetr",
)

WHOLE = re.compile(
    r"([A-Z_]+=\S+ )?(raylift|python benchmarks/\S+|torchrun|make|curl|pip install|git clone|tensorboard)( .*)?"
)
SYNOPSIS = re.compile(r"\[-|\[[A-Z]|\bDIR\b")
OPTION = re.compile(r"(?<![\w-])--?[a-z][\w-]*")
PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9-]+|\.\.\.|<.*>|\$.*")
OURS = re.compile(r"(src|recipes|benchmarks|tests|slicer)/|.*\.py$")
FILE = re.compile(r"(?<![\w./*-])[\w/-]+\.(?:mha|html|png|svg|json|csv|md|safetensors)\b")


# --- What stands on a page ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """Something of a page to be run or checked: a "command", "python" code, or a "path"."""

    kind: str
    text: str
    comment: str = ""


def pieces(page: Path) -> Iterator[Piece]:
    """What a page has to be run or checked, in its order."""
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == "fence":
            yield from block(token.info.strip(), token.content)
        for child in token.children or ():
            if child.type == "code_inline":
                text = " ".join(child.content.split())
                if WHOLE.fullmatch(text):
                    yield Piece("command", text)
                elif re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?", text):
                    yield Piece("path", text)


def block(language: str, content: str) -> Iterator[Piece]:
    """A fenced block's commands, or its code."""
    if language in ("{eval-rst}", "{toctree}", "{mermaid}"):
        return
    if language == "python":
        yield Piece("python", content)
        return
    if language == "bash":  # a job's script, of which what is ours is run
        lines = (line.partition(" #")[0].strip().removeprefix("srun ") for line in content.splitlines())
        yield from (Piece("command", line) for line in lines if WHOLE.fullmatch(line))
        return
    if language in ("nginx", "caddy"):  # tests/server/test_proxy.py runs them
        return
    if language == "json":  # an `xrays.json` with cameras
        assert all(Camera.from_dict(xray["camera"]) for xray in json.loads(content)["xrays"])
        return
    assert language == "", f"a block of {language}"
    lines = iter(re.sub(r"\\\n\s*", "", content).splitlines())
    for line in lines:
        command, _, comment = re.sub(r"\s+# ", " # ", line).strip().partition(" # ")
        if loop := re.fullmatch(r"for (\w+) in (.+); do", command):
            body = [inner.strip() for inner in iter(lambda: next(lines), "done")]
            for value in loop[2].split():
                yield from (Piece("command", inner.replace(f"${loop[1]}", value)) for inner in body)
        elif command:
            yield from (Piece("command", part, comment) for part in command.split(" && "))


def complete(command: str, job: str | None) -> str:
    """The command with values for its placeholders."""
    meant = MEANT if job is None else MEANT | {"ID": job}
    for name in sorted(meant, key=len, reverse=True):
        command = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", lambda _, name=name: meant[name], command)
    for start, rest in LEFT_OUT.items():
        if command.startswith(start):
            command = command.replace(" ... ", f" {rest} ").removesuffix(" ...")
    words = [part for word in shlex.split(command) for part in re.split("[/=:]", word)]
    unknown = [part for part in words if PLACEHOLDER.fullmatch(part) and part not in meant.values()]
    assert not unknown, f"what are {unknown} to be? MEANT and LEFT_OUT say it"
    return command


# --- Running it -----------------------------------------------------------------------------------------------------


@dataclass
class Reader:
    """Who works through a page, in a folder that is the working directory."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    start: Callable[[str], Server]
    demo: Callable[[], Path]
    server: Server | None = None
    job: str | None = None
    outputs: set[str] = field(default_factory=set)
    names: dict[str, Any] = field(default_factory=dict)

    def do(self, piece: Piece) -> None:
        """Run or check one piece of the page."""
        if piece.kind == "python":
            self.python(piece.text)
        elif piece.kind == "path":
            if piece.text.split("/")[0] in self.outputs:
                assert (self.folder / piece.text).exists(), "no such output"
            elif OURS.match(piece.text):
                assert any((place / piece.text).exists() for place in (ROOT, ROOT / "src" / "raylift")), "no such file"
        else:
            self.command(piece.text)
            for name in FILE.findall(piece.comment):
                assert (self.folder / name).exists(), f"{name} is not there"

    def command(self, text: str) -> None:
        """Run one command."""
        settings = re.match(r"([A-Z_]+)=(\S+) ", text)
        if settings:
            self.monkeypatch.setenv(settings[1], MEANT.get(settings[2], settings[2]))
            text = text[settings.end() :]
        program, *words = shlex.split(text)
        if program == "raylift" and self.is_mention(text, words):
            return
        text = complete(text, self.job)
        if " --resume" in text:
            self.command(text.replace(" --resume", ""))
        if more := next((more for start, more in SMALLER.items() if re.match(start, text)), None):
            text += f" {more}"
        program, *words = shlex.split(text)
        kinds: dict[str, Callable[[list[str]], None]] = {
            "raylift": self.raylift,
            "python": self.benchmark,
            "torchrun": self.torchrun,
            "curl": self.curl,
            "pip": self.pip,
            "make": self.make,
            "git": self.git,
            "cd": self.cd,
            ".": self.activate,
            "tensorboard": lambda _: None if shutil.which("tensorboard", path=PATH) else pytest.fail("not installed"),
        }
        assert program in kinds, f"'{program}': this test knows no such kind of command"
        kinds[program](words)

    def is_mention(self, text: str, words: list[str]) -> bool:
        """Whether a command is a name, or a synopsis; what it names must exist then."""
        command: Any = typer.main.get_command(app)
        while words and hasattr(command, "commands") and not words[0].startswith("-") and words[0] != "COMMAND":
            assert words[0] in command.commands, f"'{words[0]}' is no command"
            command, words = command.commands[words[0]], words[1:]
        known = {option for one in command.params for option in one.opts}
        named = set(OPTION.findall(" ".join(words)))
        if SYNOPSIS.search(text):
            required = [one.opts for one in command.params if one.required and one.param_type_name == "option"]
            assert named <= known, f"no options {named - known}"
            assert all(named & set(opts) for opts in required), f"of {required} not all are named"
            return True
        needs_more = any(one.required for one in command.params) or hasattr(command, "commands")
        if words == ["--help"] or not needs_more or not all(word.startswith("--") for word in words):
            return False
        assert named <= known, f"no options {named - known}"
        return True

    def raylift(self, words: list[str]) -> None:
        if words[0] == "serve":
            self.server = self.start(shlex.join(words))
            return
        output = next(
            (storage_path(b) for a, b in zip(words[::-1][1:], words[::-1], strict=False) if a in ("-o", "--output")),
            None,
        )
        if output is not None and words[0] in ("train", "ensemble") and "--resume" not in words:
            if output.is_symlink():
                output.unlink()
            shutil.rmtree(output, ignore_errors=True)
        self.monkeypatch.setattr(sys, "argv", ["raylift", *words])
        self.monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
        self.ends_well(main)
        if output is not None:
            assert output.exists(), f"no {output}"
            self.outputs.add(output.parts[0])

    def ends_well(self, run: Callable[[], object]) -> None:
        code = None
        try:
            run()
        except SystemExit as end:
            code = end.code
        assert not code, f"exit code {code}"

    def benchmark(self, words: list[str]) -> None:
        module = words[0] == "-m"
        script, *rest = words[1:] if module else words
        run = runpy.run_module if module else runpy.run_path
        only_parsed = module or Path(script).stem in ONLY_PARSED
        self.monkeypatch.setattr(sys, "argv", [script, *rest])
        with self.monkeypatch.context() as patched:
            if only_parsed:
                parse = argparse.ArgumentParser.parse_args

                def parse_and_end(*args: Any, **options: Any) -> None:
                    parse(*args, **options)
                    raise SystemExit

                patched.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
            self.ends_well(lambda: run(script, run_name="__main__"))
        if "-o" in rest and not only_parsed:
            assert Path(rest[rest.index("-o") + 1]).exists()

    def torchrun(self, words: list[str]) -> None:
        assert shutil.which("torchrun", path=PATH)
        self.raylift(words[words.index("raylift-by-path") + 1 :])
        assert Path("run", "weights.safetensors").exists()

    def curl(self, words: list[str]) -> None:
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        assert self.server is not None, "no server was started"
        url = words[-1].replace("http://127.0.0.1:8000", self.server.url)
        assert url != words[-1]
        said = self.program("curl", *words[:-1], url)
        if url.endswith("/jobs"):
            self.job = json.loads(said)["id"]
        elif url.endswith("/events"):
            assert '"done"' in said
        elif "-O" in words:
            assert Path(url.rpartition("/")[2]).exists()

    def program(self, *words: str) -> str:
        environment = {**os.environ, "PATH": PATH, "CURL_HOME": str(self.folder), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pip(self, words: list[str]) -> None:
        install, *packages = words
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert install == "install"
        for package in packages:
            wanted = re.fullmatch(r"raylift\[([\w,]+)\]", package)
            assert wanted, f"{package} is not Raylift"
            assert set(wanted[1].split(",")) <= set(extras), f"no extra {wanted[1]}"

    def make(self, words: list[str]) -> None:
        would = self.program("make", "-n", *words)
        if words == ["demo"]:
            assert "raylift demo -o demo-output" in would
            shutil.copytree(self.demo(), "demo-output", dirs_exist_ok=True)
            self.outputs.add("demo-output")

    def git(self, words: list[str]) -> None:
        assert words[:2] == ["clone", str(ROOT)]
        if (ROOT / ".git").exists() and shutil.which("git"):
            (self.folder / ".gitconfig").write_text("[safe]\n\tdirectory = *\n")
            self.monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(self.folder / ".gitconfig"))
            self.program("git", *words)
            assert Path(words[2], "Makefile").exists()

    def cd(self, words: list[str]) -> None:
        assert words == ["raylift"]

    def activate(self, words: list[str]) -> None:
        made = re.search(r"^VENV := (.+)$", (ROOT / "Makefile").read_text(), re.M)
        assert made, "the Makefile makes no environment"
        assert words == [f"{made[1]}/bin/activate"]

    def python(self, code: str) -> None:
        """Run a block; one with a first line for it is a module, or entries of a dictionary."""
        first = code.partition("\n")[0]
        if place := re.fullmatch(r"# in (\w+) of (\S+)\.py", first):
            module = sys.modules[module_name(place[2])]
            for name, value in eval("{" + code + "}", vars(module)).items():
                self.monkeypatch.setitem(getattr(module, place[1]), name, value)
        elif place := re.fullmatch(r"# (\S+)\.py", first):
            module = types.ModuleType(module_name(place[1]))
            exec(code, vars(module))
            self.monkeypatch.setitem(sys.modules, module.__name__, module)
        else:
            exec(code, self.names)


def module_name(path: str) -> str:
    return path.removeprefix("src/").replace("/", ".")


PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


class Terminal(io.StringIO):
    """Where somebody answers."""

    def isatty(self) -> bool:
        return True


def in_this_process(engine: engines.Executor, work: Callable[[Any], Any], cases: int) -> engines.Workers:
    """In place of processes, each of which would import PyTorch."""
    return engines._Here(work)


# --- What a reader has ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clone(phantom_scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has before the first command: a clone, scans, radiographs, and what other pages made."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("Makefile", "benchmarks", "constraints.txt", "pyproject.toml", "recipes", "src", "web"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "token").write_text("0123456789abcdef\n")
    (folder / ".curlrc").write_text("fail\nsilent\nshow-error\n")
    scans = sorted(phantom_scans.iterdir())
    for name, cases in {
        "scans": [scan.name for scan in scans],
        "my-cts": ["hospital-a-1.nii.gz", "hospital-a-2.nii.gz", "hospital-b-1.nii.gz"],
        ".": ["ct.nii.gz", "chest-ct.nii.gz"],
    }.items():
        (folder / name).mkdir(exist_ok=True)
        for case, scan in zip(cases, scans, strict=False):
            shutil.copy(scan, folder / name / case)
    chest = thorax_phantom(2, 5.0)
    (folder / "their-volumes").mkdir()
    for case in ("hospital-b-1", *(f"{name}{k}" for name in ("LIDC-IDRI-000", "phantom-") for k in range(4))):
        write_volume(chest, folder / "their-volumes" / f"{case}.nii.gz")

    def project(views: list[str], pixels: int) -> XraySet:
        chosen, unit = tuple(map(View.parse, views)), Geometry.preset("chest-stand", pixels)
        centre = find_thorax(chest).centre
        return XraySet(project_volume(chest, unit, chosen, centre), chosen, unit, centre)

    write_xrays(project(["0", "90"], 64), folder / "xrays", "torch")
    films = project(["pa", "lateral-left"], 128)
    for file, name in zip(write_xrays(films, folder, "torch", dicom=True), ("pa.dcm", "lateral.dcm"), strict=True):
        file.rename(folder / name)
    levels = 255 * (1 - np.exp(-films.images[0] / 3))
    for name in ("pa", "pa-1", "pa-2"):
        Image.fromarray(levels.astype(np.uint8)).save(folder / f"{name}.png")

    info = describe_tiny(cases=["phantom-0", "phantom-1"])
    info["recipe"]["network"] |= {"name": "residual_unet", "feature_size": 4}
    for run in ("runs/cpu", "other-run"):
        save_weights(build_lifted_network(described(info)), described(info), folder / run)
    (folder / "run-1").symlink_to("run")  # trained again with another seed
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Several would wait for one another in what is so small."""
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def workspace(clone: Path) -> Path:
    """The clone with a prepared dataset of eight views, and weights of any views."""
    views = tuple(View(45.0 * k) for k in range(8))
    settings = preparing.PreparationSettings(64, views, Geometry.preset("chest-stand", 64))
    for voxels, name in ((64, "prepared"), (32, "prepared32")):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(engines, "_begin", in_this_process)
            preparing.prepare(clone / "scans", clone / name, replace(settings, voxels=voxels), validation=["phantom-2"])
    recipe = files.load_recipe("any-views", [*SETTINGS, "train.steps=1"])
    train(recipe, clone / "prepared", clone / "runs" / "any-views")
    for name in ("run", "sharp", "runs/before", "runs/now"):
        (clone / name).symlink_to("any-views" if name.startswith("runs/") else "runs/any-views")
    return clone


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """The folder that `raylift demo` writes, made once."""
    from raylift.evaluation.demo import demo as run

    folder = tmp_path_factory.mktemp("demo") / "demo-output"

    def made() -> Path:
        if not folder.exists():
            run(folder)
        return folder

    return made


@pytest.fixture(scope="module")
def start(clone: Path) -> Iterator[Callable[[str], Server]]:
    """Starts `raylift serve` with some options once."""
    servers: dict[str, Server] = {}

    def started(command: str) -> Server:
        if command not in servers:
            _, *options = shlex.split(command)
            servers[command] = Server(clone / f"raylift-server-{len(servers)}", None, *options)
        return servers[command]

    yield started
    for server in servers.values():
        server.stop()


@pytest.fixture(scope="module")
def collection_store(phantom_scans: Path) -> Iterator[Store]:
    """The collections that the pages fetch, of phantoms, and a bucket with scans."""
    store = Store()
    rows = [store.add(f"LIDC-IDRI-000{k}", thorax_phantom(k, 8.0), collection="lidc_idri") for k in (1, 2, 3)]
    rows.append(store.add("LCTSC-1", thorax_phantom(3, 8.0), collection="lctsc"))
    rows.append(store.add("PD-1-Lung-00008", collection="anti_pd_1_lung"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(collections, "read_index", lambda: index_of(*rows))
        patched.setattr(collections, "FEWEST_SLICES", 5)
        patched.setenv("S3_ENDPOINT_URL", store.url)
        for path in sorted(phantom_scans.iterdir()):
            store.put(f"scans/{path.name}", path.read_bytes())
        for name, value in {"ENDPOINT_URL": store.url, "ACCESS_KEY_ID": "-", "SECRET_ACCESS_KEY": "-"}.items():
            patched.setenv(f"AWS_{name}", value)
        patched.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        yield store
    store.close()


@pytest.fixture
def reader(
    workspace: Path,
    collection_store: Store,
    start: Callable[[str], Server],
    demo: Callable[[], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Reader:
    """A reader of a page, with a folder of their own."""
    folder = tmp_path / "workspace"
    shutil.copytree(workspace, folder, symlinks=True, ignore=shutil.ignore_patterns("raylift-server-*"))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(engines, "_begin", in_this_process)
    monkeypatch.setattr(Figure, "savefig", save_blank)
    monkeypatch.setattr(refinement, "ITERATIONS", 1)
    monkeypatch.setattr(cells, "TRIAL_STEPS", 3)
    monkeypatch.setattr(cells, "load_recipe", load_small)
    return Reader(folder, monkeypatch, start, demo)


SAVE = Figure.savefig


def save_blank(figure: Figure, *args: Any, **options: Any) -> None:
    """In place of the picture, whose drawing would take as long as all else."""
    SAVE(Figure((1, 1)), *args, **options)


def load_small(place: str, changes: list[str]) -> Recipe:
    """The recipe of a study's row; cpu.yaml, of those that are trained here, in small."""
    smaller = [*SETTINGS, "network.name=residual_unet"] if place == "cpu" else []
    return files.load_recipe(place, [*changes, *smaller])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_runs(page: Path, reader: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    for piece in pieces(page):
        try:
            reader.do(piece)
        except Exception as error:
            output = "".join(capsys.readouterr())[-2000:]
            pytest.fail(f"{page.name}: {piece.text}\n{type(error).__name__}: {error}\n{output}", pytrace=False)


def test_the_page_of_commands_has_them_all() -> None:
    """As `make docs` writes it."""
    would = subprocess.run(["make", "-n", "docs"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = (line for line in would.splitlines() if "-m typer" in line)
    words = line.partition("-m ")[2].partition(" --output")[0].split()
    page = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=True).stdout
    group: Any = typer.main.get_command(app)
    names = [*group.commands, *(f"data {name}" for name in group.commands["data"].commands)]
    assert [name for name in names if f"## `raylift {name}`" not in page] == []
    assert "pip install 'raylift[server]'" in html.unescape(page)
