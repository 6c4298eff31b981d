"""The training loop: g and d learn in turns (equations 3 and 4), and what is kept of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout
from lightning_fabric import Fabric
from torch import nn
from torch.optim import AdamW, Optimizer

from raylift.config.recipe import Recipe
from raylift.data.dataset import PreparedDataset
from raylift.data.pairs import Batch, OfflinePairs, OnlinePairs
from raylift.errors import BadInput, Failed, WrongUsage
from raylift.losses import GeneratorOutput, build_objective
from raylift.model.lifted_network import LiftedNetwork
from raylift.model.weights import Weights, save_weights
from raylift.model.weights_info import Training, WeightsDescription, WeightsInfo
from raylift.networks.layers.per_sample import PerSampleParallel
from raylift.storage.atomic import atomic_write, write_json
from raylift.storage.paths import StoragePath
from raylift.storage.records import read_record
from raylift.training.checkpoint import (
    Checkpoints,
    NotFinite,
    load_module,
    load_optimizer,
    module_tensors,
    optimizer_tensors,
)
from raylift.training.hardware import processes, supported_precision
from raylift.training.metrics import RunningMeans
from raylift.training.out_of_distribution import fit_ood_detector
from raylift.training.schedule import schedule
from raylift.training.tracking import Tracker, import_mlflow, name_run
from raylift.training.validation import Validator
from raylift.training.warm_start import INIT_FROM, RECIPE, check_resumable, check_same_start, load_matching

StepProgress = Callable[[int, int, dict[str, float]], None]


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
        mlflow: write to MLflow too (`training.tracking`).

    Raises:
        BadInput: the dataset does not hold the recipe's views, or has changed since the run began; the weights have
            nothing of the network.
        WrongUsage: the folder's run and the arguments do not fit together, MLflow is not installed, or the processes
            cannot share a batch evenly.
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
        train, data, views = recipe.train, recipe.data, recipe.view_list
        check_resumable(recipe, folder, resume)
        check_same_start(init_from, folder)
        if mlflow:
            import_mlflow()  # before any other process waits for this one

        devices, nodes = processes()
        self.fabric = Fabric(devices=devices, num_nodes=nodes, precision=supported_precision(train.precision))
        self.fabric.launch()
        rank, ranks, device = self.fabric.global_rank, self.fabric.world_size, self.fabric.device
        if train.batch_size % ranks:
            raise WrongUsage(f"{ranks} processes cannot share batches of {train.batch_size} pairs evenly")

        torch.manual_seed(train.seed)
        geometry = dataset.geometry.with_pixels(data.xray_pixels)
        self.model = LiftedNetwork.from_recipe(recipe, geometry, dataset.voxels, dataset.cube_mm)
        g = self.model.network
        self.init_info = None if init_from is None else load_matching(g, init_from)
        self.average = torch.optim.swa_utils.AveragedModel(
            g, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(train.ema_decay)
        ).to(device)
        self.objective = build_objective(recipe, geometry, self.model.grid).to(device)
        self.g, self.g_optimizer = self.fabric.setup(PerSampleParallel(g), self._adamw(g, train.lr))
        self.d: nn.Module | None = self.objective.d
        self.d_optimizer: Optimizer | None = None
        if self.d is not None:
            self.d, self.d_optimizer = self.fabric.setup(self.d, self._adamw(self.d, train.d_lr or train.lr))

        pairs = OnlinePairs if data.pairs == "online" else OfflinePairs
        self.pairs = pairs(dataset, dataset.cases(data.split), views, data, device, train.seed, rank, ranks)
        self.validator = Validator(recipe, dataset, self.model, self.average.module)
        self.checkpoints = Checkpoints(folder / "checkpoints", train.keep)
        self.step, self.batches, self.seconds = 0, 0, 0.0
        self.stamp = dataset.stamp(data.split)
        self.outputs: list[GeneratorOutput] = []  # of g's last update, where d learns from the same
        self.means = RunningMeans()  # of what was measured since the last row of metrics.csv
        if resume:
            self._resume()
        self.saved_at = self.drawn_at = self.seconds

    def train(self, progress: StepProgress = lambda step, steps, numbers: None) -> None:
        """Train to the recipe's last step, then write the averaged weights.

        Raises:
            Diverged: a loss, a volume or a weight is NaN or infinite.
        """
        tracker = None
        if self.fabric.is_global_zero:
            facts = name_run(self.recipe, self.dataset, self.folder, self.step, self.fabric.world_size)
            tracker = Tracker(self.folder, facts, self.recipe, self.step, self.mlflow)
            if self.init_info is not None:
                write_json(self.init_info.model_dump(), self.folder / INIT_FROM)
            with atomic_write(self.folder / RECIPE) as temporary:
                temporary.write_text(yaml.safe_dump(self.recipe.model_dump(mode="json"), sort_keys=False))
        try:
            self._train(tracker, progress)
        finally:
            if tracker is not None:
                tracker.close(self.step == self.recipe.train.steps)
        if tracker is not None and not self._is_written():
            self.write_weights()

    def _train(self, tracker: Tracker | None, progress: StepProgress) -> None:
        """Run the remaining steps."""
        train, objective = self.recipe.train, self.objective
        optimizers = [optimizer for optimizer in (self.g_optimizer, self.d_optimizer) if optimizer is not None]
        schedules = [schedule(optimizer, train, self.step) for optimizer in optimizers]
        started = time.monotonic() - self.seconds
        while self.step < train.steps:
            for _ in range(objective.g_updates):
                self.means.add(self._update_g())
            for _ in range(objective.d_updates):
                self.means.add(self._update_d())
            for each in schedules:
                each.step()
            if self.step % train.ema_every == 0:
                self.average.update_parameters(self.model.network)
            self.step += 1
            self.seconds = time.monotonic() - started
            self._record(tracker, progress)

    def _record(self, tracker: Tracker | None, progress: StepProgress) -> None:
        """Log, validate, save and draw the finished step, as often as the recipe says."""
        train, last = self.recipe.train, self.step == self.recipe.train.steps
        validated = bool(self.validator.scored) and (last or self.step % train.validate_every == 0)
        numbers: dict[str, float] = {}
        if last or self.step % train.log_every == 0:
            numbers |= {name: self._mean_over_ranks(value) for name, value in self.means.pop().items()}
        if validated:
            numbers |= self.validator.scores()
        if numbers and tracker is not None:
            tracker.write(numbers, self.step, self.seconds)
        if self.fabric.is_global_zero:
            progress(self.step, train.steps, numbers)
        if last or validated or self.seconds - self.saved_at > 60 * train.checkpoint_minutes:
            self.save(numbers.get("validation/ssim"))
            self.saved_at = self.seconds
        if tracker is not None and (last or validated or self.seconds - self.drawn_at > 60 * train.preview_minutes):
            self.validator.preview(self.folder / "previews", self.step)
            self.drawn_at = self.seconds

    def _update_g(self) -> dict[str, float]:
        """Update g once on fresh minibatches, d frozen.

        Returns:
            Means of the loss and its terms over the minibatches.
        """
        accumulate, means = self.recipe.train.accumulate, RunningMeans()
        self.outputs.clear()
        if self.d is not None:
            self.d.requires_grad_(False)
        for k in range(accumulate):
            batch = self._next_batch()
            with self.fabric.no_backward_sync(self.g, enabled=k < accumulate - 1):
                output = self._translate(batch)
                self._check_finite({"the volumes' sum": float(output.fake.detach().sum())}, batch)
                terms = self.objective.generator_terms(output)  # the paper's: equation 3
                loss = torch.stack(list(terms.values())).sum()
                self.fabric.backward(loss / accumulate)
            if self.objective.d_shares:
                self.outputs.append(output.detach())
            numbers = {"loss": float(loss.detach()), **{name: float(term.detach()) for name, term in terms.items()}}
            self._check_finite(numbers, batch)
            means.add(numbers)
        self._apply(self.g, self.g_optimizer)
        return means.pop()

    def _update_d(self) -> dict[str, float]:
        """Update d once, g frozen.

        Returns:
            The mean of its loss over the minibatches.
        """
        assert self.d is not None
        accumulate, means = self.recipe.train.accumulate, RunningMeans()
        self.d.requires_grad_(True)
        for k in range(accumulate):
            batch = None if self.objective.d_shares else self._next_batch()
            with torch.no_grad():
                output = self.outputs[k] if batch is None else self._translate(batch)
            loss = self.objective.discriminator_loss(output)  # the paper's: equation 4
            assert loss is not None
            self.fabric.backward(loss / accumulate)
            numbers = {"d_loss": float(loss.detach())}
            self._check_finite(numbers, batch)
            means.add(numbers)
        for parameter in self.d.parameters():  # the objective calls d itself, past the wrapper that would do this
            if parameter.grad is not None:
                parameter.grad = torch.as_tensor(self.fabric.all_reduce(parameter.grad))
        self._apply(self.d, self.d_optimizer)
        return means.pop()

    def _translate(self, batch: Batch) -> GeneratorOutput:
        """Return g(V_cat) for a batch, with class maps or the uncertainty where g predicts them.

        Where g is iterated, V_cat holds the volume after none to all but one of the iterations, at random.
        """
        xrays, cameras = batch.xrays, batch.geometry.cameras(batch.views)
        iterations = int(torch.randint(self.model.iterations, (1,))) if self.model.iterations > 1 else 0
        with torch.no_grad():
            earlier = self.model.translate(self.g, xrays, cameras, iterations)
        volume = None if earlier is None else earlier[:, :1].float().clamp(0, 1)
        v_cat = self.model.inputs(xrays, cameras, volume, batch.patients)
        out, class_maps = out if isinstance(out := self.g(v_cat), tuple) else (out, None)
        fake, *uncertainty = self.model.finish(out).float().split(1, 1)
        return GeneratorOutput(
            fake,
            batch.truth,
            v_cat,
            batch.views,
            batch.geometry,
            None if class_maps is None else class_maps.float(),
            uncertainty[0] if uncertainty else None,
        )

    def _next_batch(self) -> Batch:
        self.batches += 1
        return self.pairs.batch(self.batches - 1, self.recipe.train.batch_size)

    def _adamw(self, module: nn.Module, rate: float) -> AdamW:
        train = self.recipe.train
        parameters = [p for p in module.parameters() if p.requires_grad]
        return AdamW(parameters, rate, betas=train.betas, eps=train.eps, weight_decay=train.weight_decay)

    def _apply(self, module: nn.Module, optimizer: Optimizer | None) -> None:
        """Apply the gradients that a module has gathered."""
        assert optimizer is not None
        if self.recipe.train.clip_norm is not None:
            self.fabric.clip_gradients(module, optimizer, max_norm=self.recipe.train.clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    def _mean_over_ranks(self, value: float) -> float:
        return float(torch.as_tensor(self.fabric.all_reduce(torch.tensor(value, dtype=torch.float64))))

    def _check_finite(self, numbers: dict[str, float], batch: Batch | None) -> None:
        """Check that numbers are finite in all processes that train together, so that none goes on alone.

        Raises:
            Diverged: one is NaN or infinite.
        """
        wrong = [name for name, value in numbers.items() if not math.isfinite(value)]
        if self._mean_over_ranks(float(bool(wrong))) == 0:
            return
        cases = sorted({self.pairs.cases[k].name for k in batch.patients}) if batch is not None else []
        what = ", ".join(wrong) or "something of another process"
        raise Diverged(self.step + 1, what, cases, self.checkpoints.newest_step())

    def save(self, validation_score: float | None) -> None:
        """Write a checkpoint: g, its average, d, f, the optimizers, the random state and the counters.

        Raises:
            Diverged: something of it is NaN or infinite; the earlier checkpoints stay.
        """
        if not self.fabric.is_global_zero:
            return
        tensors = {
            **module_tensors("g", self.model.network),
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
        """Restore what `save` has written; do nothing where there is no checkpoint yet.

        Raises:
            BadInput: the dataset's files have changed since.
            WrongUsage: the run was begun with another dataset.
        """
        loaded = self.checkpoints.load()
        if loaded is None:
            return
        tensors, state = loaded
        if state["dataset"] != self.dataset.fingerprint:
            raise WrongUsage(f"--resume: {self.folder} was begun with another dataset: give it the same")
        if state.get("stamp", self.stamp) != self.stamp and (changed := self.dataset.changed(self.recipe.data.split)):
            few = ", ".join(changed[:10])
            raise BadInput(few, "its files have changed since the training began", "prepare the dataset again")
        load_module("g", self.model.network, tensors)
        load_module("average", self.average, tensors)
        load_module("objective", self.objective, tensors)
        load_optimizer("g_optimizer", self.g_optimizer, tensors)
        if self.d_optimizer is not None:
            load_optimizer("d_optimizer", self.d_optimizer, tensors)
        torch.set_rng_state(tensors["random"])
        self.step, self.batches, self.seconds = state["step"], state["batches"], state["seconds"]
        self.means.values = state["means"]

    def _is_written(self) -> bool:
        """Return whether the folder holds the weights of this step, and perhaps their calibration, already."""
        path = self.folder / "weights.json"
        return path.exists() and read_record(path, WeightsInfo).training.steps == self.step

    def write_weights(self) -> Path:
        """Write the averaged weights with their description and the out-of-distribution detector.

        Returns:
            The path of `weights.safetensors`.
        """
        self.model.network.load_state_dict(self.average.module.state_dict())
        facts: dict[str, Any] = {"init_from": self.init_info} if self.init_info is not None else {}
        scored, validation = self.validator.scored, None
        if scored:
            validation = {"hu": self.validator.score("validation"), "cases": scored["validation"].names}
        training = Training(
            cases=self.dataset.names(self.recipe.data.split),
            source=self.dataset.info.source,
            licence=self.dataset.info.licence,
            steps=self.step,
            hours=round(self.seconds / 3600, 2),
            validation=validation,
            **facts,
        )
        voxels, cube_mm = self.dataset.voxels, self.dataset.cube_mm
        info = WeightsDescription.of(self.recipe, self.model.geometry, voxels, cube_mm, training)
        return save_weights(self.model, info, self.folder, fit_ood_detector(self.recipe, self.dataset))


def train(
    recipe: Recipe,
    data: str | StoragePath,
    folder: str | Path,
    *,
    resume: bool = False,
    init_from: Weights | None = None,
    mlflow: bool = False,
    progress: StepProgress = lambda step, steps, numbers: None,
) -> Run:
    """Train a recipe on a prepared dataset.

    Args:
        recipe: what to train.
        data: folder of the prepared dataset.
        folder: of the run.
        resume: go on from the newest good checkpoint.
        init_from: weights that g begins with, see `Run`.
        mlflow: write to MLflow too.
        progress: called after each step with its number, the number of steps, and what was measured.

    Returns:
        The finished run.

    Raises:
        BadInput: the dataset is not usable, or does not hold the recipe's views; the weights have nothing of the
            network.
        WrongUsage: the folder holds a run and `resume` is not set, or another process trains there.
        Diverged: a loss, a volume or a weight is NaN or infinite.
    """
    run = Run(recipe, PreparedDataset(data), Path(folder), resume=resume, init_from=init_from, mlflow=mlflow)
    with _locked(run):
        torch.set_flush_denormal(True)  # some processors take many times as long over such numbers
        try:
            run.train(progress)
        finally:
            torch.set_flush_denormal(False)
    return run


@contextmanager
def _locked(run: Run) -> Iterator[None]:
    """Keep other processes, but for its own ranks, out of the run's folder; a process that dies gives it free.

    Raises:
        WrongUsage: another process trains there.
    """
    lock = FileLock(run.folder / "checkpoints" / f".lock-{run.fabric.global_rank}")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WrongUsage(f"{run.folder}: another process trains there: wait for it, or name another folder") from None
    try:
        yield
    finally:
        lock.release()
