"""Training: the rates, what is updated when, the files, and that no crash changes the result."""

import csv
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import yaml
from filelock import FileLock
from safetensors.torch import load_file
from tiny_recipes import KINDS, PAIRED, PAPER, content, recipe

from helpers import Known, known_weights
from raylift.cli import main
from raylift.config.files import load_recipe, parse_recipe
from raylift.data.dataset import PreparedDataset
from raylift.data.pairs import Batch
from raylift.errors import BadInput, WrongUsage
from raylift.evaluation.scores import score
from raylift.images.hounsfield import hu_to_normalised
from raylift.losses import GeneratorOutput
from raylift.model.weights import load_weights, store_calibration
from raylift.model.weights_info import Calibration, InitFrom
from raylift.training.checkpoint import Checkpoints
from raylift.training.run import Diverged, Run, train

HERE = Path(__file__).parent


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def outcome(folder: Path) -> tuple[bytes, str]:
    """What a run leaves that must not depend on interruptions: its metrics and its weights."""
    weights = (folder / "weights.safetensors").read_bytes()
    return (folder / "metrics.csv").read_bytes(), hashlib.sha256(weights).hexdigest()


def stop_at(step: int) -> Callable[..., None]:
    """A progress function that interrupts a run after a step, before its checkpoint."""

    def progress(now: int, steps: int, numbers: dict[str, float]) -> None:
        if now == step:
            raise KeyboardInterrupt

    return progress


def copies(module: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(module: torch.nn.Module, before: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True))


def test_a_run_folder(tiny: Path, tmp_path: Path, previews: None) -> None:
    chosen, folder = recipe(), tmp_path / "run"
    run = train(chosen, tiny, folder)
    assert load_recipe(folder / "recipe.yaml") == chosen
    assert [row["step"] for row in rows(folder)] == ["2", "4", "6"]
    assert list(rows(folder)[-1])[:3] == ["step", "loss", "l1"]
    assert [bool(row["validation/ssim"]) for row in rows(folder)] == [False, True, True]
    assert (folder / "timing.csv").exists()
    assert list(folder.glob("events.out.tfevents.*"))
    previews = [f"step-000000{step}{ending}.png" for step in (4, 6) for ending in ("-g", "")]
    assert sorted(path.name for path in (folder / "previews").iterdir()) == previews
    assert {path.read_bytes()[1:4] for path in (folder / "previews").iterdir()} == {b"PNG"}
    assert {path.suffix for path in (folder / "checkpoints").glob("[!.]*")} == {".json", ".safetensors"}
    assert not list(folder.rglob("*partial*"))

    info = json.loads((folder / "weights.json").read_text())
    assert info["recipe"] == yaml.safe_load((folder / "recipe.yaml").read_text())
    assert info["training"]["cases"] == ["phantom-0", "phantom-1"]
    assert info["training"]["licence"] == "CC0-1.0"
    assert info["training"]["steps"] == 6
    assert (info["voxels"], info["cube_mm"], info["geometry"]["pixels"]) == (16, 320.0, 16)
    assert info["training"]["validation"]["cases"] == ["phantom-2"]
    last = {
        name.removeprefix("validation/"): float(value)
        for name, value in rows(folder)[-1].items()
        if name.startswith("validation/") and not name.endswith("_of_g")
    }
    assert info["training"]["validation"]["hu"] == pytest.approx(last)
    assert run.step == 6


def test_one_process_at_a_time(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(recipe(steps=1), tiny, folder)
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    lock = FileLock(folder / "checkpoints" / ".lock-0")
    with lock, pytest.raises(WrongUsage, match="another process trains"):
        train(recipe(steps=2), tiny, folder, resume=True)
    assert files == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    train(recipe(steps=2), tiny, folder, resume=True)


def test_validation_is_the_protocol_on_the_held_out_case(tiny: Path, tmp_path: Path) -> None:
    train(recipe(), tiny, tmp_path / "run")
    weights, case = load_weights(tmp_path / "run"), PreparedDataset(tiny).case("phantom-2")
    with torch.inference_mode():
        volume = weights.lifted_network(torch.from_numpy(case.xrays)[None])[0, 0].numpy()
    expected = score(volume, hu_to_normalised(case.truth.array.astype(np.float32)), "hu")
    last = rows(tmp_path / "run")[-1]
    assert {name: float(last[f"validation/{name}"]) for name in expected} == pytest.approx(expected, rel=1e-4)


def test_cases_trained_on_and_g_itself_are_scored_too(tiny: Path, tmp_path: Path) -> None:
    run = Run(recipe(), PreparedDataset(tiny), tmp_path / "run")
    run.train()
    assert run.model.network.training
    last, dataset = rows(tmp_path / "run")[-1], PreparedDataset(tiny)
    # The weights hold the running average, which g itself holds by now too.
    averaged = load_weights(tmp_path / "run").lifted_network.network
    checkpoint = Run(recipe(), dataset, tmp_path / "run", resume=True)
    for name, ending, network in (("phantom-0", "", averaged), ("phantom-0", "_of_g", checkpoint.model.network),
                                  ("phantom-2", "_of_g", checkpoint.model.network)):  # fmt: skip
        case = dataset.case(name)
        volume = run.validator.predict(torch.from_numpy(case.xrays)[None], network)[0]
        expected = score(volume, hu_to_normalised(case.truth.array.astype(np.float32)), "hu")
        of = "seen" if name == "phantom-0" else "validation"
        assert {n: float(last[f"{of}/{n}{ending}"]) for n in expected} == pytest.approx(expected, rel=1e-4)


def test_rows_are_means_over_the_steps_since_the_last(tiny: Path, tmp_path: Path) -> None:
    for every in (1, 3):
        train(recipe(log_every=every, validate_every=60), tiny, tmp_path / str(every))
    each = [float(row["loss"]) for row in rows(tmp_path / "1")]
    means = [float(row["loss"]) for row in rows(tmp_path / "3")]
    assert means == pytest.approx([sum(each[:3]) / 3, sum(each[3:]) / 3])


def test_the_weights_are_the_running_average(tiny: Path, tmp_path: Path) -> None:
    run = Run(recipe(ema_decay=0.7, ema_every=2), PreparedDataset(tiny), tmp_path / "run")
    history: list[torch.Tensor] = []
    run.train(lambda *_: history.append(run.model.network.layers[0].weight.detach().clone()))
    # Taken after steps 1, 3 and 5; the first is the start of the average.
    expected = history[0]
    for weight in (history[2], history[4]):
        expected = 0.7 * expected + 0.3 * weight
    torch.testing.assert_close(load_weights(tmp_path / "run").lifted_network.network.layers[0].weight, expected)


def test_learns_a_single_pair(tiny: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.mkdir()
    (one / "dataset.json").symlink_to(tiny / "dataset.json")
    (one / "cases").symlink_to(tiny / "cases")
    (one / "splits.json").write_text(json.dumps({"train": ["phantom-0"], "validation": []}))
    train(recipe(steps=15, log_every=1, lr=0.02, warmup=0), one, tmp_path / "run")
    losses = [float(row["loss"]) for row in rows(tmp_path / "run")]
    assert losses[-1] < 0.7 * losses[0]
    assert "validation/ssim" not in rows(tmp_path / "run")[-1]
    # No validation: every score in the index is empty.
    assert {e.score for e in Checkpoints(tmp_path / "run" / "checkpoints", 2).entries()} == {None}


def test_swin_unetr_learns_from_warped_scans(prepared: Path, tmp_path: Path) -> None:
    settings = content(
        PAIRED,
        {"pairs": "online", "projection_spacing": 8, "augmentation": {"rotation": 5, "elastic": 4}},
        steps=2,
        batch_size=1,
        log_every=1,
        lr=0.002,
        warmup=0,
        precision="bf16-mixed",
    )
    settings["network"] = {"name": "swin_unetr", "feature_size": 12, "window_size": 4}
    train(parse_recipe(settings, "test"), prepared, tmp_path / "run")
    for row in rows(tmp_path / "run"):
        assert all(math.isfinite(float(row[name])) for name in ("loss", "l1", "ssim", "projection"))
    assert load_weights(tmp_path / "run").lifted_network.grid.shape == (64, 64, 64)


def test_updates_of_g_leave_d_alone_and_the_other_way_round(tiny: Path, tmp_path: Path) -> None:
    run = Run(recipe(PAPER), PreparedDataset(tiny), tmp_path / "run")
    g, d, f = run.model.network, run.objective.d, run.objective.f
    before = {name: copies(module) for name, module in (("g", g), ("d", d), ("f", f))}
    run._update_g()
    assert not same(g, before["g"])
    assert same(d, before["d"])
    # A gradient left behind in d would become part of its own update.
    assert all(p.grad is None for p in d.parameters())
    before["g"] = copies(g)
    run._update_d()
    assert same(g, before["g"])
    assert not same(d, before["d"])
    assert all(p.grad is None for p in g.parameters())
    assert same(f, before["f"])


def test_a_step_of_the_paper_takes_a_fresh_minibatch_for_each_update(tiny: Path, tmp_path: Path) -> None:
    run = Run(recipe(PAPER, steps=2), PreparedDataset(tiny), tmp_path / "run")
    asked: list[tuple[int, int]] = []
    batch = run.pairs.batch
    run.pairs.batch = lambda number, size: asked.append((number, size)) or batch(number, size)
    run.train()
    # Two updates of g and one of d, twice.
    assert asked == [(number, 2) for number in range(6)]


def test_d_may_learn_from_what_g_made_in_its_last_update(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(recipe(PAPER, accumulate=3), PreparedDataset(tiny), tmp_path)
    monkeypatch.setattr(run.objective, "d_shares", True)
    seen: dict[str, list[GeneratorOutput]] = {"generator_terms": [], "discriminator_loss": []}
    for name, made in seen.items():
        term = getattr(run.objective, name)
        monkeypatch.setattr(run.objective, name, lambda t, made=made, term=term: (made.append(t), term(t))[1])
    run._update_g()
    run._update_d()
    assert run.batches == 3
    assert len(seen["discriminator_loss"]) == 3
    for by_g, by_d in zip(seen["generator_terms"], seen["discriminator_loss"], strict=True):
        assert torch.equal(by_g.fake, by_d.fake)
        assert not by_d.fake.requires_grad
    assert all(p.grad is None for p in run.model.network.parameters())


def test_accumulating_halves_is_one_whole(tiny: Path, tmp_path: Path) -> None:
    # The l1 of two pairs is the mean of theirs, so its gradient is too.
    weights = []
    for name, settings in (("whole", {"batch_size": 2}), ("halves", {"batch_size": 1, "accumulate": 2})):
        run = Run(recipe(**settings), PreparedDataset(tiny), tmp_path / name)
        pair = run.pairs.batch(0, 2)

        def part(number: int, size: int, pair: Batch = pair) -> Batch:
            some = slice(number, number + size)
            return Batch(pair.xrays[some], pair.truth[some], pair.views, pair.geometry, pair.patients[some])

        run.pairs.batch = part
        run._update_g()
        weights.append(copies(run.model.network))
    for whole, halves in zip(*weights, strict=True):
        torch.testing.assert_close(whole, halves)


def test_a_folder_that_holds_a_run(tiny: Path, tmp_path: Path) -> None:
    train(recipe(steps=1), tiny, tmp_path)
    before = outcome(tmp_path)
    with pytest.raises(WrongUsage, match="--resume"):
        train(recipe(steps=2), tiny, tmp_path)
    assert outcome(tmp_path) == before


def test_a_run_goes_on_with_its_own_recipe_alone(tiny: Path, tmp_path: Path) -> None:
    train(recipe(steps=1), tiny, tmp_path)
    with pytest.raises(WrongUsage, match="'train'"):
        train(recipe(steps=1, lr=0.02), tiny, tmp_path, resume=True)
    with pytest.raises(WrongUsage, match="'objective'"):
        train(recipe(PAIRED, steps=1), tiny, tmp_path, resume=True)
    assert train(recipe(steps=3), tiny, tmp_path, resume=True).step == 3


def test_a_run_goes_on_with_its_own_dataset_alone(tiny: Path, tmp_path: Path) -> None:
    train(recipe(steps=1), tiny, tmp_path / "run")
    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    info = json.loads((other / "dataset.json").read_text())
    info["geometry"]["source_axis_mm"] -= 100
    (other / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(WrongUsage, match="another dataset"):
        train(recipe(steps=2), other, tmp_path / "run", resume=True)


def test_d_sees_as_many_minibatches_as_g(tiny: Path, tmp_path: Path) -> None:
    run = Run(recipe(PAPER, accumulate=3), PreparedDataset(tiny), tmp_path)
    run._update_d()
    assert run.batches == 3


def test_views_the_dataset_does_not_hold(tiny: Path, tmp_path: Path) -> None:
    chosen = parse_recipe(content() | {"views": [0, 45]}, "test")
    with pytest.raises(BadInput, match="45"):
        train(chosen, tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(BadInput, match="45"):
        train(
            chosen, tiny, tmp_path / "run", init_from=load_weights(train(recipe(steps=1), tiny, tmp_path / "a").folder)
        )
    assert not (tmp_path / "run").exists()


class TestResume:
    @pytest.mark.parametrize("kind", KINDS)
    def test_result_is_that_of_an_uninterrupted_run(self, tiny: Path, tmp_path: Path, kind: str) -> None:
        chosen = recipe(*KINDS[kind])
        train(chosen, tiny, tmp_path / "straight")
        # Once where a row has just been written, once between two rows.
        for step in (3, 4):
            folder = tmp_path / f"stopped-{step}"
            with pytest.raises(KeyboardInterrupt):
                train(chosen, tiny, folder, progress=stop_at(step))
            assert not (folder / "weights.safetensors").exists()
            steps: list[int] = []
            train(chosen, tiny, folder, resume=True, progress=lambda now, *_: steps.append(now))  # noqa: B023
            assert steps == list(range(step, 7))
            assert outcome(folder) == outcome(tmp_path / "straight")

    def test_checkpoint_holds_all_networks_and_optimizers(self, tiny: Path, tmp_path: Path) -> None:
        run = train(recipe(PAPER), tiny, tmp_path)
        loaded = Checkpoints(tmp_path / "checkpoints", 2).load()
        assert loaded is not None
        tensors, state = loaded
        assert (state["step"], state["batches"]) == (6, 18)
        for prefix, module in (("objective/d", run.objective.d), ("objective/f", run.objective.f)):
            for name, tensor in module.state_dict().items():
                assert torch.equal(tensors[f"{prefix}.{name}"], tensor), name
        assert {"g", "average", "g_optimizer", "d_optimizer", "random"} <= {name.split("/")[0] for name in tensors}

    def test_of_a_finished_run_changes_nothing(self, tiny: Path, tmp_path: Path) -> None:
        train(recipe(), tiny, tmp_path)
        store_calibration(load_weights(tmp_path), Calibration(factor=0.5))
        before, described = outcome(tmp_path), (tmp_path / "weights.json").read_text()
        train(recipe(), tiny, tmp_path, resume=True)
        assert (outcome(tmp_path), (tmp_path / "weights.json").read_text()) == (before, described)
        assert train(recipe(steps=7), tiny, tmp_path, resume=True).step == 7
        assert load_weights(tmp_path).info.uncertainty is None

    def test_of_nothing_starts(self, tiny: Path, tmp_path: Path) -> None:
        train(recipe(), tiny, tmp_path / "straight")
        train(recipe(), tiny, tmp_path / "new", resume=True)
        assert outcome(tmp_path / "new") == outcome(tmp_path / "straight")

    def test_before_the_first_checkpoint(self, tiny: Path, tmp_path: Path) -> None:
        train(recipe(), tiny, tmp_path / "straight")
        with pytest.raises(KeyboardInterrupt):
            train(recipe(), tiny, tmp_path / "stopped", progress=stop_at(1))
        train(recipe(), tiny, tmp_path / "stopped", resume=True)
        assert outcome(tmp_path / "stopped") == outcome(tmp_path / "straight")

    def test_from_the_checkpoint_before_a_damaged_one(self, tiny: Path, tmp_path: Path) -> None:
        train(recipe(), tiny, tmp_path / "straight")
        with pytest.raises(KeyboardInterrupt):
            train(recipe(), tiny, tmp_path / "stopped", progress=stop_at(6))
        newest = tmp_path / "stopped" / "checkpoints" / "step-0000005.safetensors"
        newest.write_bytes(newest.read_bytes()[:-100])
        train(recipe(), tiny, tmp_path / "stopped", resume=True)
        assert outcome(tmp_path / "stopped") == outcome(tmp_path / "straight")


class TestKill:
    """SIGKILL, with no chance to clean up."""

    def command(self, settings: dict[str, Any], data: Path, folder: Path) -> list[str]:
        file = folder.with_suffix(".yaml")
        file.write_text(yaml.safe_dump(settings))
        return ["train", str(file), "--data", str(data), "-o", str(folder)]

    @pytest.mark.parametrize(
        ("moment", "count", "kept"),
        [
            ("half-written", 3, 2),  # in the third checkpoint's file
            ("replacing", 5, 2),  # before the third checkpoint's file has its name
            ("replacing", 6, 2),  # before the third is in the index
        ],
    )
    def test_while_a_checkpoint_is_written(
        self, tiny: Path, tmp_path: Path, moment: str, count: int, kept: int
    ) -> None:
        settings = content(PAPER)
        train(parse_recipe(settings, "test"), tiny, tmp_path / "straight")
        folder = tmp_path / "killed"
        killed = subprocess.run(
            [sys.executable, str(HERE / "killed_run.py"), moment, str(count), *self.command(settings, tiny, folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)},
            capture_output=True,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        steps: list[int] = []
        train(parse_recipe(settings, "test"), tiny, folder, resume=True, progress=lambda now, *_: steps.append(now))
        assert steps == list(range(kept + 1, 7))
        assert outcome(folder) == outcome(tmp_path / "straight")
        assert not list(folder.rglob("*.partial*"))

    def test_at_any_moment(self, prepared: Path, tmp_path: Path) -> None:
        settings = content(steps=4, batch_size=1, log_every=3, validate_every=60)
        settings["network"] = {"name": "residual_unet", "feature_size": 4}
        train(parse_recipe(settings, "test"), prepared, tmp_path / "straight")

        folder = tmp_path / "killed"
        command = [str(Path(sys.executable).with_name("raylift")), *self.command(settings, prepared, folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        second = folder / "checkpoints" / "step-0000002.safetensors"
        deadline = time.monotonic() + 120
        while not second.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors.decode()
        assert second.exists()
        assert not (folder / "weights.safetensors").exists()

        train(parse_recipe(settings, "test"), prepared, folder, resume=True)
        assert outcome(folder) == outcome(tmp_path / "straight")


class TestBeginWith:
    def test_what_fits_is_taken_over(self, tiny: Path, tmp_path: Path) -> None:
        train(recipe(), tiny, tmp_path / "first")
        given = load_weights(tmp_path / "first")
        # One view instead of two: the first layer takes other channels, the last does not.
        narrower = parse_recipe(content() | {"views": [0]}, "test")
        run = Run(narrower, PreparedDataset(tiny), tmp_path / "second", init_from=given)
        plain = Run(narrower, PreparedDataset(tiny), tmp_path / "third")
        (first, last), (untouched, _), (_, taken) = (
            (network.layers[0].weight, network.layers[2].weight)
            for network in (run.model.network, plain.model.network, given.lifted_network.network)
        )
        assert torch.equal(first, untouched)
        assert torch.equal(last, taken)

    def test_weights_say_what_they_began_with_after_an_interruption_too(self, tiny: Path, tmp_path: Path) -> None:
        train(recipe(), tiny, tmp_path / "first")
        first = load_weights(tmp_path / "first")
        with pytest.raises(KeyboardInterrupt):
            train(recipe(checkpoint_minutes=60), tiny, tmp_path / "second", init_from=first, progress=stop_at(3))
        with pytest.raises(WrongUsage, match="--init-from"):
            train(recipe(checkpoint_minutes=60), tiny, tmp_path / "second", resume=True)
        train(recipe(checkpoint_minutes=60), tiny, tmp_path / "second", resume=True, init_from=first)
        info = load_weights(tmp_path / "second").info
        cases = ["phantom-0", "phantom-1"]
        assert info.training.init_from == InitFrom(sha256=first.info.sha256, share=1.0, cases=cases)
        with pytest.raises(WrongUsage, match="without other weights"):
            train(recipe(), tiny, tmp_path / "first", resume=True, init_from=first)

    def test_patients_of_those_weights_count_as_seen(self, tiny: Path, tmp_path: Path) -> None:
        train(parse_recipe(content(data={"split": "all"}), "test"), tiny, tmp_path / "first")
        run = train(recipe(), tiny, tmp_path / "second", init_from=load_weights(tmp_path / "first"))
        assert load_weights(run.folder).info.training.seen_cases == {"phantom-0", "phantom-1", "phantom-2"}

    def test_weights_of_another_network_are_refused(self, tiny: Path, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match=r"known\.safetensors: holds 0%"):
            Run(recipe(), PreparedDataset(tiny), tmp_path / "run", init_from=known_weights(Known()))


class TestDiverged:
    """A loss that is not finite ends the run, names where, and leaves the last good state."""

    @pytest.fixture
    def spoilt(self, tiny: Path, tmp_path: Path) -> Path:
        """Training case phantom-1 has no end of attenuation in its X-rays' scale: its loss overflows."""
        folder = Path(shutil.copytree(tiny, tmp_path / "spoilt"))
        path = folder / "cases" / "phantom-1" / "xrays.mha"
        huge = np.full(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).shape, 3e38, np.float32)
        path.unlink()
        sitk.WriteImage(sitk.GetImageFromArray(huge), str(path))
        return folder

    @pytest.mark.parametrize("objective", [None, PAPER])
    @pytest.mark.parametrize("split", ["train", "all"])
    def test_names_step_and_case(self, spoilt: Path, tmp_path: Path, objective: Any, split: str) -> None:
        with pytest.raises(Diverged, match=r"step \d+: .* is NaN or infinite on the cases .*phantom-1"):
            train(recipe(objective, {"split": split}, steps=20, batch_size=2), spoilt, tmp_path / "run")
        assert not (tmp_path / "run" / "weights.safetensors").exists()
        for tensors in (tmp_path / "run" / "checkpoints").glob("*.safetensors"):
            assert all(t.isfinite().all() for t in load_file(tensors).values() if t.is_floating_point())

    def test_the_command_says_it_in_one_line(
        self, spoilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content(steps=20)))
        command = ["raylift", "train", tmp_path / "recipe.yaml", "--data", spoilt, "-o", tmp_path / "run"]
        monkeypatch.setattr(sys, "argv", [str(word) for word in command])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        *_, line = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("raylift: step ")
        assert "phantom-1" in line

    def test_the_last_good_state_goes_on(self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = train(recipe(), tiny, tmp_path / "whole")
        translate = Run._translate

        def spoil(run: Run, batch: Any) -> Any:
            made = translate(run, batch)
            return replace(made, fake=made.fake * math.nan) if run.step == 4 else made

        with monkeypatch.context() as patched:
            patched.setattr(Run, "_translate", spoil)
            with pytest.raises(Diverged, match=r"step 5: .*; the state of step 4 is kept; look at these cases, or"):
                train(recipe(), tiny, tmp_path / "run")
        train(recipe(), tiny, tmp_path / "run", resume=True)
        assert outcome(tmp_path / "run") == outcome(whole.folder)

    def test_weights_that_are_not_finite_are_not_written(self, tiny: Path, tmp_path: Path) -> None:
        def spoil(step: int, steps: int, numbers: dict[str, float]) -> None:
            if step == 5:
                next(run.model.network.parameters()).data.fill_(math.inf)

        run = Run(recipe(steps=6, ema_every=1), PreparedDataset(tiny), tmp_path / "run")
        with pytest.raises(Diverged):
            run.train(spoil)
        assert not (tmp_path / "run" / "weights.safetensors").exists()


class TestChangedPixels:
    def test_a_case_whose_pixels_changed_is_noticed(self, prepared: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(prepared, tmp_path / "data"))
        assert PreparedDataset(folder).changed("train") == []
        short = recipe(data={"xray_pixels": 64}, steps=1)
        train(short, folder, tmp_path / "run")
        longer = recipe(data={"xray_pixels": 64}, steps=2)
        path = folder / "cases" / "phantom-0" / "xrays.mha"
        path.touch()  # another time, the same pixels
        train(longer, folder, tmp_path / "run", resume=True)
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(image * 1.5, str(path), useCompression=True)
        with pytest.raises(BadInput, match="phantom-0: its files have changed since the training began"):
            train(recipe(data={"xray_pixels": 64}, steps=3), folder, tmp_path / "run", resume=True)
