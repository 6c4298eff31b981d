"""Checkpoints that survive a crash at any moment: safetensors files named in an index, both replaced as a whole.

A checkpoint holds everything that resuming needs, as named tensors and a JSON header; nothing is ever unpickled.
A file counts once the index lists it with its checksum, so one cut off while it was written is never taken for good.
Where the index is lost, files that are whole and finite count by themselves. A checkpoint with NaN is none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from raylift.errors import BadInput
from raylift.storage.full_disk import detect_full_disk
from raylift.storage.paths import size_of
from raylift.storage.records import PlainName, Sha256, Typed, file_inside, parse_json, parse_record, read_json

INDEX = "index.json"
MOST_CHECKPOINT_BYTES = 64 * 2**30  # of a checkpoint
MOST_STATE = 2**24  # letters of a checkpoint's state
PREFIX = ".partial-"


LOG = logging.getLogger("raylift.training")


class NotFinite(ValueError):
    """Something that is to be kept holds NaN or infinite values."""


class CheckpointEntry(Typed):
    """A checkpoint in the index: its file's name, its step, the validation's score, and the file's checksum."""

    name: PlainName
    step: Annotated[int, Field(ge=0, le=10**12)]
    score: float | None
    sha256: Sha256


class _Index(Typed):
    entries: Annotated[list[CheckpointEntry], Field(max_length=10_000)]


class Checkpoints:
    """The `checkpoints/` folder of a run.

    Args:
        folder: made if it does not exist.
        keep: how many of the last checkpoints stay, besides the best.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.damaged: set[str] = set()  # names that `load` passed over; the next index leaves them out
        folder.mkdir(parents=True, exist_ok=True)

    def entries(self) -> list[CheckpointEntry]:
        """Return the index, oldest first: that of the file or, where it is lost or damaged, of the checkpoints there.

        Raises:
            BadInput: the index cannot be read though it is there.
        """
        path = self.folder / INDEX
        try:
            listed = parse_record({"entries": read_json(path)}, _Index).entries
        except FileNotFoundError:
            listed = []
        except ValueError as error:
            LOG.warning("%s is damaged (%s): the checkpoints beside it are looked at", path.name, error)
            listed = []
        except OSError as error:
            raise BadInput(
                path, f"cannot be read ({error})", "make it readable, or train into another folder"
            ) from None
        return listed or self._list_good()

    def _list_good(self) -> list[CheckpointEntry]:
        """Return entries for the good checkpoints in the folder, oldest first, from the files alone."""
        entries = []
        for path in sorted(self.folder.glob("step-*.safetensors")):
            try:
                _, state = _read(path)
                entry = CheckpointEntry(name=path.name, step=state["step"], score=None, sha256=_sha256(path))
            except (OSError, SafetensorError, ValueError, KeyError, TypeError):
                continue
            entries.append(entry)
        if entries:
            LOG.warning("%s lists no checkpoint, but there are %d: they are used", INDEX, len(entries))
        return sorted(entries, key=lambda entry: entry.step)

    def save(self, tensors: Mapping[str, Tensor], state: dict[str, Any], step: int, score: float | None) -> Path:
        """Write a checkpoint, then the index; drop those that are neither among the last `keep` nor the best.

        Args:
            tensors: by name.
            state: JSON-ready.
            step: number of finished steps.
            score: of the validation, the higher the better; None if not validated at this step. NaN is none.

        Returns:
            The path of the checkpoint.

        Raises:
            NotFinite: a tensor holds NaN or infinite values; nothing is written.
        """
        check_finite_state(tensors)
        score = score if score is not None and math.isfinite(score) else None
        path = self.folder / f"step-{step:07d}.safetensors"
        temporary = path.with_name(PREFIX + path.name)
        contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        try:
            with detect_full_disk(path, self.folder):
                save_file(contiguous, temporary, metadata={"state": json.dumps(state)})
                _sync(temporary)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        entry = CheckpointEntry(name=path.name, step=step, score=score, sha256=_sha256(temporary))
        before = self.entries()
        os.replace(temporary, path)
        gone = {*self.damaged, path.name}
        entries = [*(e for e in before if e.name not in gone), entry]
        self.damaged.clear()
        kept = entries[-self.keep :]
        scored = [(e.score, e) for e in entries if e.score is not None]
        if scored:
            _, best = max(scored, key=lambda pair: pair[0])
            kept = kept if best in kept else [best, *kept]
        self._write_index(kept)
        names = {e.name for e in kept}
        for file in self.folder.glob("*.safetensors"):
            if file.name not in names:
                file.unlink()
        return path

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return tensors and state of the newest checkpoint whose checksum holds; None if none was finished.

        Raises:
            BadInput: there are checkpoints, and none is good.
        """
        entries = self.entries()
        finished = len(entries)
        while entries:
            newest = max(entries, key=lambda e: e.step)
            try:
                path = file_inside(self.folder, newest.name)
                if _sha256(path) == newest.sha256:
                    return _read(path)
            except (OSError, SafetensorError, ValueError):
                pass
            entries.remove(newest)
            self.damaged.add(newest.name)
        if finished:
            raise BadInput(self.folder, f"none of {finished} checkpoints is good", "train into another folder")
        return None

    def newest_step(self) -> int | None:
        """Return the step of the newest checkpoint; None without one."""
        return max((entry.step for entry in self.entries()), default=None)

    def _write_index(self, entries: list[CheckpointEntry]) -> None:
        temporary = self.folder / (PREFIX + INDEX)
        temporary.write_text(json.dumps([entry.model_dump() for entry in entries], indent=2) + "\n")
        _sync(temporary)
        os.replace(temporary, self.folder / INDEX)
        _sync(self.folder)


def module_tensors(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """Return a module's state as named tensors."""
    return {f"{prefix}/{name}": tensor for name, tensor in module.state_dict().items()}


def load_module(prefix: str, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load named tensors into a module."""
    start = prefix + "/"
    module.load_state_dict({n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)})


def optimizer_tensors(prefix: str, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's state as named tensors; its hyper-parameters are the recipe's."""
    return {
        f"{prefix}/{index}/{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
    }


def load_optimizer(prefix: str, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load named tensors into an optimizer, laid out in memory as its parameters are: others make it slow."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix + "/"):
            index, key = name.removeprefix(prefix + "/").split("/")
            like = parameters[int(index)]
            alike = tensor.shape == like.shape
            state.setdefault(int(index), {})[key] = torch.empty_like(like).copy_(tensor) if alike else tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def check_finite_state(tensors: Mapping[str, Tensor]) -> None:
    """Check that tensors are finite.

    Raises:
        NotFinite: one holds NaN or infinite values.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise NotFinite(f"{name} holds NaN or infinite values")


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a checkpoint's tensors and state.

    Raises:
        ValueError: it is not a good one; so do OSError and SafetensorError of what reads it.
    """
    with safe_open(path, "pt") as file:
        header = (file.metadata() or {}).get("state", "")
        if len(header) > MOST_STATE:
            raise ValueError("too long a state")
        state = parse_json(header)
        if not isinstance(state, dict):
            raise ValueError("no state")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    check_finite_state(tensors)
    return tensors, state


def _sha256(path: Path) -> str:
    if size_of(path) > MOST_CHECKPOINT_BYTES:
        raise ValueError("too large for a checkpoint")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
