"""Checkpoints that survive a crash at any moment: safetensors files named in an index, both replaced as a whole.

A checkpoint holds everything that resuming needs, as named tensors and a JSON header; nothing is ever unpickled.
A file counts once the index lists it with its checksum, so one cut off while it was written is never taken for good.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from raylift.errors import BadInput

INDEX = "index.json"
PREFIX = ".partial-"


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

    def entries(self) -> list[dict[str, Any]]:
        """The index: name, step, score, sha256 of each checkpoint, oldest first.

        Raises:
            BadInput: it is damaged; taking it for empty would throw the checkpoints away.
        """
        path = self.folder / INDEX
        if not path.exists():
            return []
        try:
            entries: list[dict[str, Any]] = json.loads(path.read_text())
            return [{key: entry[key] for key in ("name", "step", "score", "sha256")} for entry in entries]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise BadInput(path, f"damaged ({error})", "restore it, or train into another folder") from None

    def save(self, tensors: Mapping[str, Tensor], state: dict[str, Any], step: int, score: float | None) -> Path:
        """Write a checkpoint, then the index; drop those that are neither among the last `keep` nor the best.

        Args:
            tensors: by name.
            state: JSON-ready.
            step: number of finished steps.
            score: of the validation, the higher the better; None if not validated at this step.
        """
        path = self.folder / f"step-{step:07d}.safetensors"
        temporary = path.with_name(PREFIX + path.name)
        contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_file(contiguous, temporary, metadata={"state": json.dumps(state)})
        _sync(temporary)
        entry = {"name": path.name, "step": step, "score": score, "sha256": _sha256(temporary)}
        os.replace(temporary, path)
        gone = {*self.damaged, path.name}
        entries = [*(e for e in self.entries() if e["name"] not in gone), entry]
        self.damaged.clear()
        kept = entries[-self.keep :]
        scored = [e for e in entries if e["score"] is not None]
        if scored:
            best = max(scored, key=lambda e: e["score"])
            kept = kept if best in kept else [best, *kept]
        self._write_index(kept)
        names = {e["name"] for e in kept}
        for file in self.folder.glob("*.safetensors"):
            if file.name not in names:
                file.unlink()
        return path

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest checkpoint whose checksum holds; None if none was finished.

        Raises:
            BadInput: there are checkpoints, and none is good.
        """
        entries = self.entries()
        finished = len(entries)
        while entries:
            newest = max(entries, key=lambda e: e["step"])
            path = self.folder / newest["name"]
            try:
                if _sha256(path) == newest["sha256"]:
                    return _read(path)
            except (OSError, SafetensorError, ValueError):
                pass
            entries.remove(newest)
            self.damaged.add(newest["name"])
        if finished:
            raise BadInput(self.folder, f"none of {finished} checkpoints is good", "train into another folder")
        return None

    def _write_index(self, entries: list[dict[str, Any]]) -> None:
        temporary = self.folder / (PREFIX + INDEX)
        temporary.write_text(json.dumps(entries, indent=2) + "\n")
        _sync(temporary)
        os.replace(temporary, self.folder / INDEX)
        _sync(self.folder)


def module_tensors(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """A module's state as named tensors."""
    return {f"{prefix}/{name}": tensor for name, tensor in module.state_dict().items()}


def load_module(prefix: str, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put named tensors back into a module."""
    start = prefix + "/"
    module.load_state_dict({n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)})


def optimizer_tensors(prefix: str, optimizer: Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as named tensors: its hyper-parameters are the recipe's."""
    return {
        f"{prefix}/{index}/{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
    }


def load_optimizer(prefix: str, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put named tensors back into an optimizer, laid out in memory as its parameters are: others make it slow."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix + "/"):
            index, key = name.removeprefix(prefix + "/").split("/")
            like = parameters[int(index)]
            alike = tensor.shape == like.shape
            state.setdefault(int(index), {})[key] = torch.empty_like(like).copy_(tensor) if alike else tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, "pt") as file:
        state = json.loads(file.metadata()["state"])
        return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
