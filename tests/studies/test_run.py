"""Studies: equal budgets, nothing lost, nothing done twice."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from raylift.config import files
from raylift.config.files import load_recipe
from raylift.data.dataset import PreparedDataset
from raylift.errors import BadInput, WrongUsage
from raylift.evaluation.methods import mean_volume
from raylift.evaluation.scores import score
from raylift.images.hounsfield import hu_to_normalised
from raylift.storage.atomic import write_json
from raylift.studies import cells, figures, run
from raylift.studies.cells import Budget, CaseSet, Cell, steps_within, with_steps
from raylift.studies.definitions import STUDIES, Row, StudyDefinition, study_of
from raylift.studies.run import run_study

SAMPLES = Budget(samples=8)


WriteRecipe = Callable[..., str]


def silent(note: str, done: int, total: int) -> None:
    """No progress."""


@pytest.fixture
def write_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteRecipe:
    """Writes a recipe under a name, as if it came with Raylift, and gives back the name."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    monkeypatch.setattr(files, "FOLDER", folder)

    def write(name: str, **changes: Any) -> str:
        content: dict[str, Any] = {
            "name": name,
            "data": {"pairs": "offline", "xray_pixels": 16},
            "network": {"name": "tiny", "feature_size": 4},
            "objective": {"name": "paired"},
            "train": {"steps": 100, "decay_from": 50, "lr": 0.01},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content | changes))
        return name

    return write


@pytest.fixture
def study(write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch) -> str:
    """A study of four rows, one of which fails in training."""
    rows = (
        Row("mean volume", method="mean"),
        Row("one", write_recipe("one")),
        Row("broken", write_recipe("broken", objective={"name": "paper"})),
        Row("one, repeated", "one", ("lift=repeat",)),
    )
    monkeypatch.setitem(STUDIES, "small", StudyDefinition("small", "Small", "A test.", rows))
    train = cells.train

    def failing(recipe: Any, *args: Any, **options: Any) -> Any:
        if recipe.name == "broken":
            raise RuntimeError("out of\nmemory")
        return train(recipe, *args, **options)

    monkeypatch.setattr(cells, "train", failing)
    return "small"


def sets(tiny: Path) -> list[CaseSet]:
    dataset = PreparedDataset(tiny)
    return [CaseSet("seen", dataset, "train"), CaseSet("unseen", dataset, "validation")]


def go(study: str, tiny: Path, folder: Path, budget: Budget = SAMPLES, **options: Any) -> run.Outcome:
    return run_study(STUDIES[study], PreparedDataset(tiny), folder, budget, range(2), sets(tiny), **options)


def test_a_failed_row_does_not_lose_the_others(study: str, tiny: Path, tmp_path: Path) -> None:
    outcome = go(study, tiny, tmp_path / "out")
    assert outcome.failures == {"broken, seed 0": "out of memory", "broken, seed 1": "out of memory"}
    (first, _) = sorted((tmp_path / "out" / "failures").iterdir())
    assert "RuntimeError" in first.read_text()
    # Not trained: once. Trained: once per seed, in the order of the rows.
    assert [(r.row, r.seed) for r in outcome.results] == [
        ("mean volume", 0), ("one", 0), ("one", 1), ("one, repeated", 0), ("one, repeated", 1),
    ]  # fmt: skip
    assert outcome.report is not None
    page = outcome.report.read_text()
    assert "8 training pairs per seed, on 2 patients" in page
    assert "## seen (2 patients)" in page
    assert "## unseen (1 patients)" in page
    assert {path.name for path in outcome.report.parent.iterdir()} >= {
        "small.md",
        "small.csv",
        "small.tex",
        "small.png",
        "small.svg",
        "settings.json",
    }


def test_scores_are_those_of_the_protocol(study: str, tiny: Path, tmp_path: Path) -> None:
    outcome = go(study, tiny, tmp_path / "out", only=["mean volume"])
    dataset = PreparedDataset(tiny)
    case = dataset.case("phantom-2")
    truth = hu_to_normalised(case.truth.array.astype(np.float32))
    expected = score(mean_volume(dataset)(case), truth, "hu")
    (result,) = outcome.results
    assert result.scores["unseen"]["phantom-2"] == pytest.approx(expected, rel=1e-3)


def test_seeds_differ_and_budgets_are_equal(study: str, tiny: Path, tmp_path: Path) -> None:
    outcome = go(study, tiny, tmp_path / "out", only=["one", "one, repeated"])
    assert {r.g_updates for r in outcome.results} == {4}  # 8 pairs in batches of 2
    first, second = (r.scores["unseen"]["phantom-2"]["mse"] for r in outcome.results[:2])
    assert first != second


def test_goes_on_where_it_stopped(study: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    go(study, tiny, folder, only=["one"])
    trained: list[str] = []
    train = cells.train

    def counting(recipe: Any, *args: Any, **options: Any) -> Any:
        trained.append(f"{recipe.lift} {recipe.train.seed}")
        return train(recipe, *args, **options)

    monkeypatch.setattr(cells, "train", counting)
    next(
        (folder / "results").glob("tiny-backproject-*-seed-1.json")
    ).unlink()  # as if stopped between training and scoring
    outcome = go(study, tiny, folder, only=["one", "one, repeated"])
    assert trained == ["repeat 0", "repeat 1"]
    assert len(outcome.results) == 4


def test_studies_share_what_they_have_in_common(
    study: str, tiny: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    go(study, tiny, folder, only=["one"])
    rows = (Row("the same under another name", write_recipe("two"), ("lift=backproject",)),)
    monkeypatch.setitem(STUDIES, "other", StudyDefinition("other", "Other", "A test.", rows))
    monkeypatch.delattr(cells, "train")
    outcome = go("other", tiny, folder)
    assert not outcome.failures
    assert [result.row for result in outcome.results] == ["the same under another name"] * 2
    assert {path.stem for path in folder.glob("*.md")} == {"small", "other"}


def test_another_budget_needs_another_folder(study: str, tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    go(study, tiny, folder, only=["mean volume"])
    with pytest.raises(WrongUsage, match="another budget"):
        go(study, tiny, folder, Budget(samples=16))


def test_sets_added_later_are_only_scored(
    study: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, data = tmp_path / "out", PreparedDataset(tiny)
    before = go(study, tiny, folder, only=["one"]).results
    monkeypatch.delattr(cells, "train")
    more = [CaseSet("all of them", data, "all")]
    outcome = run_study(STUDIES[study], data, folder, SAMPLES, range(2), more, only=["one"])
    assert not outcome.failures
    for old, new in zip(before, outcome.results, strict=True):
        assert new.scores["seen"] == old.scores["seen"]
        assert new.scores["all of them"] == old.scores["seen"] | old.scores["unseen"]
    (first, *_) = run_study(STUDIES[study], data, folder, SAMPLES, range(2), more, "paper", only=["one"]).results
    assert set(first.scores) == {"all of them"}
    assert first.protocol == "paper"
    with pytest.raises(WrongUsage, match="another set 'seen'"):
        run_study(STUDIES[study], data, folder, SAMPLES, range(2), [CaseSet("seen", data, "all")])


@pytest.mark.parametrize("lost", ["time.json", "weights.json"])
def test_killed_between_the_files_of_a_finished_run(study: str, tiny: Path, tmp_path: Path, lost: str) -> None:
    folder = tmp_path / "out"
    before = go(study, tiny, folder, only=["one"])
    for file in (folder / "runs").glob("*/seed-1/*.json"):
        if file.name in (lost, "time.json"):  # which is written last
            file.unlink()
    next((folder / "results").glob("*-seed-1.json")).unlink()
    after = go(study, tiny, folder, only=["one"])
    assert not after.failures
    assert [r.scores for r in after.results] == [r.scores for r in before.results]


def test_a_failure_that_is_mended_leaves_no_trace(
    study: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    with monkeypatch.context() as broken:
        broken.setattr(cells, "train", lambda *args, **options: 1 / 0)
        assert go(study, tiny, folder, only=["one"]).failures
    assert not go(study, tiny, folder, only=["one"]).failures
    assert not list((folder / "failures").iterdir())


def test_a_set_of_another_unit_is_refused_before_anything_is_trained(study: str, tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    info = json.loads((other / "dataset.json").read_text())
    info["geometry"]["source_detector_mm"] += 100
    write_json(info, other / "dataset.json")
    with pytest.raises(WrongUsage, match="the set 'far' has another geometry"):
        run_study(STUDIES[study], PreparedDataset(tiny), tmp_path / "out", SAMPLES, range(1),
                  [CaseSet("far", PreparedDataset(other), "all")])  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "files"), [
    ("gallery", {f"{case}.{ending}" for case in ("phantom-0", "phantom-1") for ending in ("png", "svg")}),
    ("gradients", {"one", "one,-repeated"}),
])  # fmt: skip
def test_figures_show_every_finished_row(
    kind: str, files: set[str], study: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STUDIES, "small", replace(STUDIES["small"], figure=kind))
    drawn: list[list[str]] = []
    draw = figures.gallery
    monkeypatch.setattr(figures, "gallery", lambda shown, *args: (drawn.append(list(shown)), draw(shown, *args))[1])
    folder = tmp_path / "out"
    go(study, tiny, folder, only=["one"])
    go(study, tiny, folder, only=["one, repeated"])
    assert {path.name for path in (folder / "figures" / "small" / "seen").iterdir()} == files
    if kind == "gallery":
        assert drawn[-1] == ["truth", "one", "one, repeated"]
    count = len(drawn)
    go(study, tiny, folder, only=["one"])  # nothing new
    assert len(drawn) == count


def test_a_gallery_is_drawn_of_sets_that_another_study_scored(study: str, tiny: Path, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setitem(STUDIES, "pictures", replace(STUDIES["small"], name="pictures", figure="gallery"))
    folder, data = tmp_path / "out", PreparedDataset(tiny)
    go("pictures", tiny, folder, only=["one"])
    more = [CaseSet("more", data, "validation")]
    run_study(STUDIES["small"], data, folder, SAMPLES, range(2), more, only=["one"])
    run_study(STUDIES["pictures"], data, folder, SAMPLES, range(2), more, only=["one"])
    assert (folder / "figures" / "pictures" / "more" / "phantom-2.png").exists()


def test_a_figure_that_cannot_be_drawn_is_a_failure(study: str, tiny: Path, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setitem(STUDIES, "small", replace(STUDIES["small"], figure="gallery"))
    folder = tmp_path / "out"
    go(study, tiny, folder, only=["one"])
    for path in (folder / "runs").glob("*/seed-0/weights.safetensors"):
        path.unlink()
    shutil.rmtree(folder / "figures")
    outcome = go(study, tiny, folder, only=["mean volume"])
    assert "no weights" in outcome.failures["figure"]
    assert outcome.report is not None


def test_what_is_not_trained_is_computed_again_by_another_version(
    study: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    (before,) = go(study, tiny, folder, only=["mean volume"]).results
    file = next((folder / "results").glob("mean-*.json"))
    write_json({**json.loads(file.read_text()), "raylift": "0.0.1", "scores": {"hu": {"seen": {}, "unseen": {}}}}, file)
    (after,) = go(study, tiny, folder, only=["mean volume"]).results
    assert after == before


def test_damaged_notes_are_named(study: str, tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    go(study, tiny, folder, only=["mean volume"])
    (folder / "settings.json").write_text("{")
    with pytest.raises(BadInput, match=r"settings\.json: damaged"):
        go(study, tiny, folder, only=["mean volume"])


def test_missing_views_are_named_before_anything_is_trained(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"--views 0,45,90,135,180,225,270,315"):
        go("views", tiny, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rows_that_do_the_same_are_one() -> None:
    def key(study: str, label: str) -> str:
        (row,) = (row for row in STUDIES[study].rows if row.label == label)
        return Cell(row, 0, Path()).key

    assert key("views", "ours: 4 views") == key("alignment", "ours: 4 views, backproject")
    assert key("lift", "backproject, paired") == key("methods", "Raylift (back-projection, paired)")
    assert key("views", "ours: 4 views") != key("views", "ours: 4 oblique views")


def test_minutes_become_steps_once_per_row(
    write_recipe: WriteRecipe, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(np.arange(0, 1e6, 0.5))  # a step takes half a second, whatever it does

    def steady(recipe: Any, data: Any, folder: Any, *, progress: Any) -> None:
        for step in range(1, recipe.train.steps + 1):
            progress(step, recipe.train.steps, {})

    monkeypatch.setattr(cells, "train", steady)
    monkeypatch.setattr(cells.time, "monotonic", lambda: float(next(clock)))
    row = Row("one", write_recipe("one"))
    data, budget = PreparedDataset(tiny), Budget(minutes=2.0)
    assert steps_within(budget, Cell(row, 0, tmp_path), data, silent) == 240
    monkeypatch.delattr(cells, "train")  # the second seed makes no trial
    assert steps_within(budget, Cell(row, 1, tmp_path), data, silent) == 240


def test_samples_count_the_papers_ten_updates(write_recipe: WriteRecipe, tiny: Path, tmp_path: Path) -> None:
    row = Row("ot", write_recipe("ot", objective={"name": "paper"}, train={"steps": 9, "batch_size": 4}))
    assert steps_within(Budget(samples=400), Cell(row, 0, tmp_path), PreparedDataset(tiny), silent) == 10


def test_other_steps_keep_the_shape_of_the_schedule(write_recipe: WriteRecipe) -> None:
    train = {"steps": 100, "decay_from": 50, "ema_decay": 0.9}
    recipe = with_steps(load_recipe(write_recipe("one", train=train)), 20)
    assert (recipe.train.steps, recipe.train.decay_from, recipe.train.validate_every) == (20, 10, 20)
    # The first step's share in the average at the end.
    assert recipe.train.ema_decay**20 == pytest.approx(0.9**100)


@pytest.mark.parametrize("name", list(STUDIES))
def test_every_study_can_be_built(name: str) -> None:
    study = STUDIES[name]
    labels = [row.label for row in study.rows]
    assert len(set(labels)) == len(labels) == len({Cell(row, 0, Path()).key for row in study.rows})
    for row in study.rows:
        assert bool(row.recipe) != bool(row.method)
        if row.recipe:
            assert Cell(row, 3, Path()).recipe().train.seed == 3


def test_the_papers_view_sets() -> None:
    recipes = [Cell(row, 0, Path()).recipe() for row in STUDIES["views"].rows]
    assert [[view.angle for view in recipe.view_list] for recipe in recipes[:5]] == [
        [0], [0, 90], [0, 90, 180, 270], [0, 45, 90, 135, 180, 225, 270, 315], [45, 135, 225, 315],
    ]  # fmt: skip
    assert [recipe.lift for recipe in recipes[5:7]] == ["noise-fixed", "noise-fresh"]
    assert [recipe.name for recipe in recipes] == ["paper-cpu"] * 7 + ["cpu"] * 7


def test_a_study_of_any_recipe(write_recipe: WriteRecipe) -> None:
    write_recipe("one")
    study = study_of("views", "one")
    assert study.name == "views-one"
    assert [row.label for row in study.rows][:2] == ["one: 1 view", "one: 2 views"]
    assert {Cell(row, 0, Path()).recipe().name for row in study.rows} == {"one"}
    assert study_of("views", None) is STUDIES["views"]
    with pytest.raises(
        WrongUsage, match="methods compares fixed recipes; use --recipe with one of views, alignment, gradients"
    ):
        study_of("methods", "one")
