"""The training loop: the alternating updates of g and d, and the bookkeeping around them."""

from __future__ import annotations

import csv
import io
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from filelock import FileLock, Timeout
from lightning_fabric import Fabric
from torch import nn
from torch.optim import AdamW, Optimizer

from raylift.config.earlier_names import existing_file
from raylift.config.files import load_recipe
from raylift.config.recipe import Recipe, TrainConfig
from raylift.data.dataset import PreparedDataset
from raylift.data.pairs import Batch, OfflinePairs, OnlinePairs
from raylift.errors import BadInput, Failed, WrongUsage
from raylift.evaluation.scores import score
from raylift.images.hounsfield import hu_to_normalised, normalised_to_hu
from raylift.images.volume import Volume
from raylift.losses import GeneratorOutput, build_objective
from raylift.model.lifted_network import LiftedNetwork
from raylift.model.weights import Weights, describe, save_weights, seen_cases
from raylift.networks.layers.per_sample import PerSampleParallel
from raylift.plots.montages import montage
from raylift.storage.atomic import atomic_write, write_json
from raylift.storage.paths import StoragePath
from raylift.storage.records import read_json
from raylift.training.checkpoint import (
    Checkpoints,
    NotFinite,
    load_module,
    load_optimizer,
    module_tensors,
    optimizer_tensors,
)
from raylift.training.out_of_distribution import fit_ood_detector
from raylift.training.tracking import Tracker, import_mlflow, name_run

INIT_FROM = "init-from.json"
MOST_VALIDATED = 100  # cases, spread over those held out
LEAST_TAKEN = 0.1  # share of a network that weights must hold to begin with them

Progress = Callable[[int, int, dict[str, float]], None]


@dataclass
class Scored:
    """Cases that are scored while training goes on, read once: X-rays (B, N, rows, columns), truth in [0, 1]."""

    names: list[str]
    xrays: torch.Tensor
    truth: np.ndarray


def learning_rate(step: int, train: TrainConfig) -> float:
    """Factor of the learning rate at a step: a linear rise that is never 0, a plateau, a fall towards 0."""
    if step < train.warmup:
        return (step + 1) / (train.warmup + 1)
    done = (step - train.decay_from) / max(1, train.steps - train.decay_from)
    if done <= 0:
        return 1.0
    return 1 - done if train.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))


class Diverged(Failed):
    """Something of a training is NaN or infinite.

    Args:
        step: at which it was.
        what: its names.
        cases: that the batch was of, where that is known.
        last_good: step of the newest checkpoint, None without one.
    """

    def __init__(self, step: int, what: str, cases: list[str], last_good: int | None) -> None:
        of = f" on the cases {', '.join(cases[:10])}" if cases else ""
        kept = f"the state of step {last_good} is kept" if last_good is not None else "no state was kept yet"
        remedy = "look at these cases, or begin anew with a lower train.lr or with train.clip_norm"
        super().__init__(f"step {step}: {what} is NaN or infinite{of}; {kept}; {remedy}")


class Run:
    """One training run in its folder.

    Args:
        recipe: what to train.
        dataset: prepared scans.
        folder: of the run: `recipe.yaml`, `run.json`, `metrics.csv`, `timing.csv`, TensorBoard events, `previews/`,
            `checkpoints/`, `init-from.json` where it began with other weights, and at the end `weights.safetensors`
            and `weights.json`.
        resume: go on from the newest good checkpoint; else the folder must not hold a run.
        init_from: weights that g begins with, where its tensors have the same name and shape; the same for `resume`.
        mlflow: tell MLflow of the run too (`training.tracking`).
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: PreparedDataset,
        folder: Path,
        *,
        resume: bool = False,
        init_from: Weights | None = None,
        mlflow: bool = False,
    ) -> None:
        self.recipe, self.dataset, self.folder, self.mlflow = recipe, dataset, folder, mlflow
        train = recipe.train
        if (folder / "recipe.yaml").exists() and not resume:
            raise WrongUsage(f"{folder} holds a run already: go on with --resume, or name another folder")
        if resume:
            check_same(recipe, folder)
        if mlflow:
            import_mlflow()  # before any other process waits for this one
        devices, nodes = processes()
        self.fabric = Fabric(devices=devices, num_nodes=nodes, precision=supported(train.precision))
        self.fabric.launch()
        torch.manual_seed(train.seed)
        geometry = dataset.geometry.with_pixels(recipe.data.xray_pixels)
        self.mapping = LiftedNetwork.from_recipe(recipe, geometry, dataset.voxels, dataset.cube_mm)
        self.init_info = self._begin(init_from)
        self.average = torch.optim.swa_utils.AveragedModel(
            self.mapping.network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(train.ema_decay)
        ).to(self.fabric.device)
        self.objective = build_objective(recipe, geometry, self.mapping.grid).to(self.fabric.device)
        g = self.mapping.network
        self.g, self.g_optimizer = self.fabric.setup(PerSampleParallel(g), self._adamw(g, train.lr))
        self.d: nn.Module | None = self.objective.d
        self.d_optimizer: Optimizer | None = None
        if self.d is not None:
            self.d, self.d_optimizer = self.fabric.setup(self.d, self._adamw(self.d, train.d_lr or train.lr))
        pairs = OnlinePairs if recipe.data.pairs == "online" else OfflinePairs
        cases = dataset.cases(recipe.data.split)
        if train.batch_size % self.fabric.world_size:
            raise WrongUsage(
                f"{self.fabric.world_size} processes cannot share batches of {train.batch_size} pairs evenly"
            )
        self.pairs = pairs(
            dataset,
            cases,
            recipe.view_list,
            recipe.data,
            self.fabric.device,
            train.seed,
            self.fabric.global_rank,
            self.fabric.world_size,
        )
        dataset.view_indices(recipe.view_list)  # previews and validation show stored X-rays
        self.scored = self._read_scored()
        self.checkpoints = Checkpoints(folder / "checkpoints", train.keep)
        self.step, self.batches, self.seconds = 0, 0, 0.0
        self.stamp = dataset.stamp(recipe.data.split)
        self.made: list[GeneratorOutput] = []  # by g's last update, where d learns from the same
        self.means = Means()  # of what was measured since the last row of metrics.csv
        if resume:
            self._resume()

    def _begin(self, weights: Weights | None) -> dict[str, Any] | None:
        """Take weights over; a run that is resumed says what it began with."""
        begun, noted = (self.folder / "recipe.yaml").exists(), existing_file(self.folder / INIT_FROM)
        if begun and noted.exists():
            known: dict[str, Any] = read_json(noted)
            if weights is None or weights.info["sha256"] != known["sha256"]:
                raise WrongUsage(f"--resume: {self.folder} began with other weights: name them with --init-from")
        elif begun and weights is not None:
            raise WrongUsage(f"--resume: {self.folder} began without other weights: leave --init-from out")
        return None if weights is None else load_matching(self.mapping.network, weights)

    def _note(self) -> None:
        """Say in the folder what is trained there."""
        if self.init_info is not None:
            write_json(self.init_info, self.folder / INIT_FROM)
        with atomic_write(self.folder / "recipe.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(self.recipe.model_dump(mode="json"), sort_keys=False))

    def _tracker(self) -> Tracker:
        told = name_run(self.recipe, self.dataset, self.folder, self.step, self.fabric.world_size)
        return Tracker(self.folder, told, self.recipe, self.step, self.mlflow)

    def train(self, progress: Progress = lambda step, steps, numbers: None) -> None:
        """Train to the recipe's last step, then write the averaged weights."""
        tracker = None
        if self.fabric.is_global_zero:
            tracker = self._tracker()
            self._note()
        try:
            self._steps(tracker, progress)
        finally:
            if tracker is not None:
                tracker.close(self.step == self.recipe.train.steps)
        if tracker is not None and not self._written():
            self.write_weights()

    def _steps(self, tracker: Tracker | None, progress: Progress) -> None:
        """Those that are left."""
        train = self.recipe.train
        table = Table(self.folder / "metrics.csv", self.step)
        timing = Table(self.folder / "timing.csv", self.step)
        started = saved = previewed = time.monotonic()
        before = self.seconds
        while self.step < train.steps:
            for optimizer, rate in self._optimizers():
                for group in optimizer.param_groups:
                    group["lr"] = rate * learning_rate(self.step, train)
            for _ in range(self.objective.g_updates):
                self.means.add(self._update_g())
            for _ in range(self.objective.d_updates):
                self.means.add(self._update_d())
            if self.step % train.ema_every == 0:
                self.average.update_parameters(self.mapping.network)
            self.step += 1
            self.seconds = before + time.monotonic() - started

            last = self.step == train.steps
            numbers: dict[str, float] = {}
            if self.step % train.log_every == 0 or last:
                numbers = {name: self._over_ranks(value) for name, value in self.means.take().items()}
            validated = bool(self.scored) and (self.step % train.validate_every == 0 or last)
            if validated:
                numbers |= self.validate() | self.validate_g()
            if numbers and tracker is not None:
                table.write({"step": self.step, **numbers})
                timing.write({"step": self.step, "seconds": round(self.seconds, 2)})
                tracker.write(numbers, self.step)
            if self.fabric.is_global_zero:
                progress(self.step, train.steps, numbers)
            now = time.monotonic()
            if last or validated or now - saved > 60 * train.checkpoint_minutes:
                self.save(numbers.get("validation/ssim"))
                saved = time.monotonic()
            if tracker is not None and (last or validated or now - previewed > 60 * train.preview_minutes):
                self.preview()
                previewed = time.monotonic()

    def _update_g(self) -> dict[str, float]:
        """One update of g on fresh minibatches, d frozen."""
        accumulate, numbers = self.recipe.train.accumulate, Means()
        self.made.clear()
        if self.d is not None:
            self.d.requires_grad_(False)
        for k in range(accumulate):
            batch = self._next_batch()
            with self.fabric.no_backward_sync(self.g, enabled=k < accumulate - 1):
                made = self._translate(batch)
                self._check({"the volumes' sum": float(made.fake.detach().sum())}, batch)
                terms = self.objective.generator_terms(made)
                loss = torch.stack(list(terms.values())).sum()
                self.fabric.backward(loss / accumulate)
            if self.objective.d_shares:
                self.made.append(made.detach())
            told = {"loss": float(loss.detach()), **{n: float(t.detach()) for n, t in terms.items()}}
            self._check(told, batch)
            numbers.add(told)
        self._apply(self.g, self.g_optimizer)
        return numbers.take()

    def _update_d(self) -> dict[str, float]:
        """One update of d, g frozen."""
        assert self.d is not None
        accumulate, numbers = self.recipe.train.accumulate, Means()
        self.d.requires_grad_(True)
        for k in range(accumulate):
            if self.objective.d_shares:
                made = self.made[k]
            else:
                batch = self._next_batch()
                with torch.no_grad():
                    made = self._translate(batch)
            loss = self.objective.discriminator_loss(made)
            assert loss is not None
            self.fabric.backward(loss / accumulate)
            told = {"d_loss": float(loss.detach())}
            self._check(told, None if self.objective.d_shares else batch)
            numbers.add(told)
        for parameter in self.d.parameters():  # the objective calls d itself, past the wrapper that would do this
            if parameter.grad is not None:
                parameter.grad = torch.as_tensor(self.fabric.all_reduce(parameter.grad))
        self._apply(self.d, self.d_optimizer)
        return numbers.take()

    def _check(self, numbers: dict[str, float], batch: Batch | None) -> None:
        """End the training where a number is not finite; no process goes on alone. Raises Diverged."""
        wrong = [name for name, value in numbers.items() if not math.isfinite(value)]
        if self._over_ranks(float(bool(wrong))) == 0:
            return
        cases = sorted({self.pairs.cases[k].name for k in batch.patients}) if batch is not None else []
        what = ", ".join(wrong) or "something of another process"
        raise Diverged(self.step + 1, what, cases, self.checkpoints.newest_step())

    def _translate(self, batch: Batch) -> GeneratorOutput:
        """g(V_cat) of a batch; class maps or the uncertainty where g says them besides.

        Where g is asked more than once, V_cat holds what it made in none to all of the passes before, at random.
        """
        xrays, views, geometry = batch.xrays, batch.views, batch.geometry
        before = int(torch.randint(self.mapping.iterations, (1,))) if self.mapping.iterations > 1 else 0
        with torch.no_grad():
            made = self.mapping.translate(self.g, xrays, views, geometry, before)
        volume = None if made is None else made[:, :1].float().clamp(0, 1)
        v_cat = self.mapping.inputs(xrays, views, geometry, volume, batch.patients)
        out, class_maps = out if isinstance(out := self.g(v_cat), tuple) else (out, None)
        fake, *spread = self.mapping.finish(out).float().split(1, 1)
        return GeneratorOutput(
            fake,
            batch.truth,
            v_cat,
            views,
            geometry,
            None if class_maps is None else class_maps.float(),
            spread[0] if spread else None,
        )

    def _apply(self, module: nn.Module, optimizer: Optimizer | None) -> None:
        assert optimizer is not None
        if self.recipe.train.clip_norm is not None:
            self.fabric.clip_gradients(module, optimizer, max_norm=self.recipe.train.clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    def _next_batch(self) -> Batch:
        self.batches += 1
        return self.pairs.batch(self.batches - 1, self.recipe.train.batch_size)

    def _over_ranks(self, value: float) -> float:
        """The mean of a number over the processes that train together."""
        return float(torch.as_tensor(self.fabric.all_reduce(torch.tensor(value, dtype=torch.float64))))

    def _optimizers(self) -> list[tuple[Optimizer, float]]:
        train = self.recipe.train
        both = [(self.g_optimizer, train.lr), (self.d_optimizer, train.d_lr or train.lr)]
        return [(optimizer, rate) for optimizer, rate in both if optimizer is not None]

    def _adamw(self, module: nn.Module, rate: float) -> AdamW:
        train = self.recipe.train
        parameters = [p for p in module.parameters() if p.requires_grad]
        return AdamW(parameters, rate, betas=train.betas, eps=train.eps, weight_decay=train.weight_decay)

    @torch.no_grad()
    def predict(self, xrays: torch.Tensor, network: nn.Module | None = None) -> np.ndarray:
        """X-rays (B, N, rows, columns) of the recipe's views → volumes (B, D, H, W) in [0, 1], by g's average or g."""
        network = (network or self.average.module).eval()
        volumes = []
        for images in xrays:
            seen = self.mapping.preprocess(images[None].to(self.fabric.device))
            out = self.mapping.translate(network, seen, None, None, self.mapping.iterations)
            assert out is not None
            volumes.append(out[0, 0])
        return torch.stack(volumes).float().clamp(0, 1).cpu().numpy()

    def validate(self) -> dict[str, float]:
        """Means of the `hu` protocol for the averaged weights: over held-out cases, and over cases trained on."""
        return {f"{name}/{of}": value for name in self.scored for of, value in self._score(name, None).items()}

    def validate_g(self) -> dict[str, float]:
        """What `validate` says, for g itself: its average lags behind while g still learns fast."""
        network = self.mapping.network
        of_g = {f"{name}/{of}_of_g": value for name in self.scored for of, value in self._score(name, network).items()}
        network.train()
        return of_g

    def _score(self, name: str, network: nn.Module | None) -> dict[str, float]:
        means, cases = Means(), self.scored[name]
        for prediction, truth in zip(self.predict(cases.xrays, network), cases.truth, strict=True):
            means.add(score(prediction, truth, "hu"))
        return means.take()

    def preview(self) -> None:
        """Pictures of one held-out case (of a training pair, where nothing is held out), by g's average and by g."""
        if self.scored:
            xrays, truth = self.scored["validation"].xrays[:1], self.scored["validation"].truth[0]
        else:
            case = self.dataset.cases(self.recipe.data.split)[0]
            indices = self.dataset.view_indices(self.recipe.view_list)
            xrays = torch.from_numpy(case.xrays[indices])[None]
            truth = hu_to_normalised(case.truth.array.astype(np.float32))
        grid, network = self.mapping.grid, self.mapping.network
        for ending, by in (("", None), ("-g", network)):
            montage(
                Volume(normalised_to_hu(truth), grid),
                Volume(normalised_to_hu(self.predict(xrays, by)[0]), grid),
                [(v.name, x.numpy()) for v, x in zip(self.recipe.view_list, xrays[0], strict=True)],
                self.folder / "previews" / f"step-{self.step:07d}{ending}.png",
                f"step {self.step}",
            )
        network.train()

    def save(self, validation_score: float | None) -> None:
        """Checkpoint: g, its average, d, f, the optimizers, the random state and the counters."""
        if not self.fabric.is_global_zero:
            return
        tensors = {
            **module_tensors("g", self.mapping.network),
            **module_tensors("average", self.average),
            **module_tensors("objective", self.objective),
            **optimizer_tensors("g_optimizer", self.g_optimizer),
            "random": torch.get_rng_state(),
        }
        if self.d_optimizer is not None:
            tensors |= optimizer_tensors("d_optimizer", self.d_optimizer)
        state = {"step": self.step, "batches": self.batches, "seconds": self.seconds, "means": self.means.values}
        state |= {"dataset": self.dataset.fingerprint, "stamp": self.stamp}
        try:
            self.checkpoints.save(tensors, state, self.step, validation_score)
        except NotFinite as error:
            raise Diverged(self.step, str(error).split()[0], [], self.checkpoints.newest_step()) from None

    def _resume(self) -> None:
        loaded = self.checkpoints.load()
        if loaded is None:
            return
        tensors, state = loaded
        if state["dataset"] != self.dataset.fingerprint:
            raise WrongUsage(f"--resume: {self.folder} was begun with another dataset: give it the same")
        if state.get("stamp", self.stamp) != self.stamp and (changed := self.dataset.changed(self.recipe.data.split)):
            few = ", ".join(changed[:10])
            raise BadInput(few, "its files have changed since the training began", "prepare the dataset again")
        load_module("g", self.mapping.network, tensors)
        load_module("average", self.average, tensors)
        load_module("objective", self.objective, tensors)
        load_optimizer("g_optimizer", self.g_optimizer, tensors)
        if self.d_optimizer is not None:
            load_optimizer("d_optimizer", self.d_optimizer, tensors)
        torch.set_rng_state(tensors["random"])
        self.step, self.batches, self.seconds = state["step"], state["batches"], state["seconds"]
        self.means.values = state["means"]

    def _written(self) -> bool:
        """Whether the folder holds the weights of this step, and perhaps their calibration, from an earlier call."""
        described = self.folder / "weights.json"
        return described.exists() and bool(read_json(described)["training"]["steps"] == self.step)

    def write_weights(self) -> Path:
        """The averaged weights with their description, and what the X-rays looked like."""
        mapping = self.mapping
        mapping.network.load_state_dict(self.average.module.state_dict())
        training = {
            "cases": self.dataset.names(self.recipe.data.split),
            "source": self.dataset.info["source"],
            "licence": self.dataset.info["licence"],
            "steps": self.step,
            "hours": round(self.seconds / 3600, 2),
            "validation": self._validated(),
        }
        if self.init_info is not None:
            training["init_from"] = self.init_info
        info = describe(
            self.recipe.model_dump(mode="json"),
            mapping.geometry,
            self.dataset.voxels,
            self.dataset.cube_mm,
            training,
        )
        return save_weights(mapping, info, self.folder, fit_ood_detector(self.recipe, self.dataset))

    def _validated(self) -> dict[str, Any] | None:
        """What `weights.json` says of the held-out cases."""
        if not self.scored:
            return None
        return {"hu": self._score("validation", None), "cases": self.scored["validation"].names}

    def _read_scored(self) -> dict[str, Scored]:
        """Held-out cases, `validation`, and as many of those trained on, `seen`; none where nothing is held out."""
        split = self.recipe.data.split
        if split == "all" or not self.dataset.splits.get("validation"):
            return {}
        most, scored = MOST_VALIDATED, {}
        for name, cases in (("validation", self.dataset.cases("validation")), ("seen", self.dataset.cases(split))):
            chosen = cases[:: math.ceil(len(cases) / most)]
            indices = self.dataset.view_indices(self.recipe.view_list)
            xrays = torch.from_numpy(np.stack([case.xrays[indices] for case in chosen]))
            truth = np.stack([hu_to_normalised(case.truth.array.astype(np.float32)) for case in chosen])
            scored[name] = Scored([case.name for case in chosen], xrays, truth)
            most = len(chosen)
        return scored


class Means:
    """Running means of named numbers."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, numbers: dict[str, float]) -> None:
        """Take one value of each number."""
        for name, value in numbers.items():
            self.values.setdefault(name, []).append(value)

    def take(self) -> dict[str, float]:
        """The means so far; starts anew."""
        means = {name: sum(values) / len(values) for name, values in self.values.items()}
        self.values = {}
        return means


class Table:
    """A CSV file that grows by rows; its columns are those seen so far.

    Args:
        path: of the file; rows after step `resume_from` are dropped, since they will be written again.
        resume_from: number of finished steps.
    """

    def __init__(self, path: Path, resume_from: int) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if resume_from and path.exists():
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            self.rows = [row for row in rows if int(row["step"]) <= resume_from]

    def write(self, row: dict[str, Any]) -> None:
        """Add a row."""
        self.rows.append(row)
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        with atomic_write(self.path) as temporary:
            temporary.write_text(text.getvalue())


def supported(precision: Literal["32-true", "bf16-mixed"]) -> Literal["32-true", "bf16-mixed"]:
    """Return a recipe's precision, or float32 where bfloat16 would be emulated.

    x86 processors without instructions for it take a hundred times as long over a convolution (PyTorch 2.13).
    """
    if torch.cuda.is_available():
        return precision
    processor: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch 2.10 and later tell
    emulated = processor.get("architecture") == "x86_64" and not (
        processor.get("avx512_bf16") or processor.get("amx_bf16")
    )
    return "32-true" if emulated else precision


def processes() -> tuple[int, int]:
    """Processes on each machine, and machines: as torchrun or srun say; one each by default."""
    told = os.environ.get
    if "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["LOCAL_WORLD_SIZE"]), int(told("GROUP_WORLD_SIZE", "1"))
    nodes = int(told("SLURM_STEP_NUM_NODES", "1"))
    return int(told("SLURM_STEP_NUM_TASKS", "1")) // nodes, nodes


def load_matching(network: nn.Module, weights: Weights) -> dict[str, Any]:
    """Copy those tensors of weights into a network that it has too, of the same name and shape.

    Returns:
        What `weights.json` says of it: the SHA-256 of the weights, the share of the network's values taken over, and
        the cases that these have seen.

    Raises:
        BadInput: it is less than `LEAST_TAKEN` of the network.
    """
    own, given = network.state_dict(), weights.lifted_network.network.state_dict()
    taken = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    share = sum(tensor.numel() for tensor in taken.values()) / sum(tensor.numel() for tensor in own.values())
    if share < LEAST_TAKEN:
        raise BadInput(weights.path, f"holds {share:.0%} of the recipe's network", "give weights of the same network")
    network.load_state_dict(own | taken)
    return {"sha256": weights.info["sha256"], "share": round(share, 3), "cases": sorted(seen_cases(weights.info))}


def check_same(recipe: Recipe, folder: Path) -> None:
    """Raise WrongUsage where a run was begun with a recipe that differs in more than its length and checkpointing."""
    if not (folder / "recipe.yaml").exists():
        return
    begun, now = load_recipe(folder / "recipe.yaml").model_dump(), recipe.model_dump()
    begun["train"]["steps"] = now["train"]["steps"]
    begun["network"]["checkpointing"] = now["network"]["checkpointing"]
    for name, value in now.items():
        if begun[name] != value:
            raise WrongUsage(f"--resume: {folder} was begun with another '{name}': give it the same recipe")


def peak_memory(device: torch.device) -> int:
    """The most memory in bytes that this process has held: on the GPU if that is the device, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else 1024 * kilobytes


def train(
    recipe: Recipe,
    data: str | StoragePath,
    folder: str | Path,
    *,
    resume: bool = False,
    init_from: Weights | None = None,
    mlflow: bool = False,
    progress: Progress = lambda step, steps, numbers: None,
) -> Run:
    """Train a recipe on a prepared dataset.

    Args:
        recipe: what to train.
        data: folder of the prepared dataset.
        folder: of the run.
        resume: go on from the newest good checkpoint.
        init_from: weights that g begins with, see `Run`.
        mlflow: tell MLflow of the run too.
        progress: called after each step with its number, the number of steps, and what was measured.

    Raises:
        BadInput: the dataset is not usable, or does not hold the recipe's views; the weights have nothing of the
            network.
        WrongUsage: the folder holds a run and `resume` is not set, or another process trains there.
    """
    run = Run(recipe, PreparedDataset(data), Path(folder), resume=resume, init_from=init_from, mlflow=mlflow)
    with _alone(run):
        torch.set_flush_denormal(True)  # some processors take many times as long over such numbers
        try:
            run.train(progress)
        finally:
            torch.set_flush_denormal(False)
    return run


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """While no other process trains in the run's folder, but its own ranks; a process that dies gives it free."""
    lock = FileLock(run.folder / "checkpoints" / f".lock-{run.fabric.global_rank}")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WrongUsage(f"{run.folder}: another process trains there: wait for it, or name another folder") from None
    try:
        yield
    finally:
        lock.release()
