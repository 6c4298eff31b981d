"""Checkpoints come back bit for bit, and damaged ones give way to the one before."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from raylift.errors import BadInput
from raylift.training.checkpoint import (
    Checkpoints,
    NotFinite,
    load_module,
    load_optimizer,
    module_tensors,
    optimizer_tensors,
)


def tensors(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        "g/weight": torch.randn(7, 5, generator=generator),
        "g/half": torch.randn(3, generator=generator).bfloat16(),
        "turned": torch.randn(4, 6, generator=generator).T,  # not contiguous
        "count": torch.tensor(step),
        "random": torch.randint(256, (100,), generator=generator, dtype=torch.uint8),
        "edge": torch.tensor([0.1, -0.0, 3.4e38, 1e-45]),
    }


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def expect_step(loaded: tuple[dict[str, Tensor], dict] | None, step: int) -> None:
    assert loaded is not None
    found, state = loaded
    assert state == {"step": step, "seconds": 0.1 + step}
    expected = tensors(step)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert bits(found[name]) == bits(tensor), name


def save(checkpoints: Checkpoints, step: int, score: float | None = None) -> Path:
    return checkpoints.save(tensors(step), {"step": step, "seconds": 0.1 + step}, step, score)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", keep=2)


def test_round_trip_bit_for_bit(checkpoints: Checkpoints) -> None:
    save(checkpoints, 3)
    expect_step(Checkpoints(checkpoints.folder, keep=2).load(), 3)


def test_nothing_there(checkpoints: Checkpoints) -> None:
    assert checkpoints.load() is None


def test_keeps_the_last_and_the_best(checkpoints: Checkpoints) -> None:
    scores = {1: 0.2, 2: 0.9, 3: None, 4: 0.5, 5: None, 6: 0.1}
    for step, score in scores.items():
        save(checkpoints, step, score)
    kept = [f"step-000000{step}.safetensors" for step in (2, 5, 6)]
    assert names(checkpoints.folder) == ["index.json", *kept]
    expect_step(checkpoints.load(), 6)
    assert checkpoints.entries()[0].score == 0.9


def test_the_best_is_not_kept_twice(checkpoints: Checkpoints) -> None:
    for step in (1, 2, 3):
        save(checkpoints, step, step / 10)
    assert [entry.step for entry in checkpoints.entries()] == [2, 3]


def test_saving_a_step_again_replaces_it(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    save(checkpoints, 1, 0.5)
    assert [(e.step, e.score) for e in checkpoints.entries()] == [(1, 0.5)]
    expect_step(checkpoints.load(), 1)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty, Path.unlink])
def test_a_damaged_file_gives_way_to_the_one_before(checkpoints: Checkpoints, damage) -> None:
    save(checkpoints, 1)
    damage(save(checkpoints, 2))
    again = Checkpoints(checkpoints.folder, keep=2)
    expect_step(again.load(), 1)
    # The damaged one is forgotten: it neither counts as one of the last two nor comes back.
    save(again, 3)
    assert [entry.step for entry in again.entries()] == [1, 3]
    assert names(again.folder) == ["index.json", "step-0000001.safetensors", "step-0000003.safetensors"]
    expect_step(again.load(), 3)


def test_all_damaged(checkpoints: Checkpoints) -> None:
    for step in (1, 2):
        truncate(save(checkpoints, step))
    with pytest.raises(BadInput, match="none of 2 checkpoints is good"):
        checkpoints.load()


LOST = ["", "[]", '[{"name": "step-', "\x00\x00", '{"step": 1}', "[3]", "7", None]


@pytest.mark.parametrize("content", LOST)
def test_a_lost_index_throws_no_checkpoint_away(
    checkpoints: Checkpoints, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        save(checkpoints, step)
    index = checkpoints.folder / "index.json"
    index.unlink() if content is None else index.write_text(content)
    again = Checkpoints(checkpoints.folder, keep=2)
    expect_step(again.load(), 2)
    assert "they are used" in caplog.text
    save(again, 3)
    assert [entry.step for entry in again.entries()] == [2, 3]
    expect_step(Checkpoints(checkpoints.folder, keep=2).load(), 3)


def test_of_a_lost_index_only_whole_and_finite_checkpoints_count(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    truncate(save(checkpoints, 2))
    spoilt = {"g/weight": torch.tensor([float("nan")])}
    save_file(spoilt, checkpoints.folder / "step-0000003.safetensors", {"state": '{"step": 3}'})
    save_file({"g/weight": torch.ones(2)}, checkpoints.folder / "step-0000004.safetensors")  # without a state
    (checkpoints.folder / "index.json").unlink()
    expect_step(checkpoints.load(), 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_no_checkpoint(checkpoints: Checkpoints, value: float) -> None:
    save(checkpoints, 1, 0.5)
    with pytest.raises(NotFinite, match="g/weight holds NaN or infinite values"):
        checkpoints.save({"g/weight": torch.tensor([1.0, value])}, {"step": 2}, 2, None)
    assert names(checkpoints.folder) == ["index.json", "step-0000001.safetensors"]
    expect_step(checkpoints.load(), 1)


def test_nan_is_never_the_best(checkpoints: Checkpoints) -> None:
    for step, score in ((1, 0.5), (2, float("nan")), (3, float("nan")), (4, float("nan"))):
        save(checkpoints, step, score)
    assert [(entry.step, entry.score) for entry in checkpoints.entries()] == [(1, 0.5), (3, None), (4, None)]


@pytest.mark.parametrize(
    "harm",
    [
        {"name": "../step-0000001.safetensors"},
        {"name": "/etc/passwd"},
        {"sha256": "0"},
        {"step": -1},
        {"step": "1"},
        {"score": "high"},
    ],
)
def test_an_index_that_cannot_be_is_none(checkpoints: Checkpoints, harm: dict[str, object]) -> None:
    save(checkpoints, 1)
    index = checkpoints.folder / "index.json"
    index.write_text(json.dumps([json.loads(index.read_text())[0] | harm]))
    expect_step(checkpoints.load(), 1)


def test_a_link_out_of_the_folder_is_no_checkpoint(checkpoints: Checkpoints, tmp_path: Path) -> None:
    path = save(checkpoints, 1)
    path.rename(tmp_path / "elsewhere.safetensors")
    path.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(BadInput, match="none of 1 checkpoints is good"):
        checkpoints.load()


def test_what_a_crash_left_is_ignored_and_cleared(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    # Cut off while it was written; and finished, but not yet in the index.
    (checkpoints.folder / ".partial-step-0000002.safetensors").write_bytes(b"\x08\x00\x00")
    whole = checkpoints.folder / "step-0000002.safetensors"
    whole.write_bytes((checkpoints.folder / "step-0000001.safetensors").read_bytes())
    (checkpoints.folder / ".partial-index.json").write_text("[")
    expect_step(checkpoints.load(), 1)
    save(checkpoints, 2)
    expect_step(checkpoints.load(), 2)
    assert names(checkpoints.folder) == ["index.json", "step-0000001.safetensors", "step-0000002.safetensors"]


def test_no_pickle(checkpoints: Checkpoints) -> None:
    path = save(checkpoints, 1, 0.5)
    assert names(checkpoints.folder) == ["index.json", path.name]
    json.loads((checkpoints.folder / "index.json").read_text())
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["state"])["step"] == 1


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        loss = module(torch.randn(8, 4, generator=generator)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_module_and_optimizer_go_on_as_if_never_stopped(checkpoints: Checkpoints) -> None:
    torch.manual_seed(0)
    straight = network()
    start = {name: tensor.clone() for name, tensor in straight.state_dict().items()}
    train(straight, torch.optim.AdamW(straight.parameters(), 0.01), range(6))

    first = network()
    first.load_state_dict(start)
    optimizer = torch.optim.AdamW(first.parameters(), 0.01)
    train(first, optimizer, range(3))
    checkpoints.save(module_tensors("g", first) | optimizer_tensors("o", optimizer), {}, 3, None)

    loaded = checkpoints.load()
    assert loaded is not None
    second = network()
    optimizer = torch.optim.AdamW(second.parameters(), 0.01)
    load_module("g", second, loaded[0])
    load_optimizer("o", optimizer, loaded[0])
    train(second, optimizer, range(3, 6))
    for name, tensor in straight.state_dict().items():
        assert bits(second.state_dict()[name]) == bits(tensor), name


def test_an_optimizer_is_laid_out_as_its_parameters(checkpoints: Checkpoints) -> None:
    """Sums of a channels-last parameter and a contiguous moment take several times as long."""

    def made() -> tuple[nn.Parameter, torch.optim.AdamW]:
        weight = torch.arange(3.0 * 4 * 27).view(3, 4, 3, 3, 3).contiguous(memory_format=torch.channels_last_3d)
        parameter = nn.Parameter(weight)
        optimizer = torch.optim.AdamW([parameter])
        (parameter.square().sum()).backward()
        optimizer.step()
        return parameter, optimizer

    parameter, optimizer = made()
    checkpoints.save(optimizer_tensors("o", optimizer), {}, 1, None)
    loaded = checkpoints.load()
    assert loaded is not None
    again, resumed = made()
    load_optimizer("o", resumed, loaded[0])
    for key in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(resumed.state[again][key], optimizer.state[parameter][key])
        assert resumed.state[again][key].stride() == again.stride()
