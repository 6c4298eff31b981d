"""Leave one source out: a recipe is trained once for each source of scans, without it, and scored on what it left out.

python benchmarks/sources.py PREPARED any-views --sources 'LIDC-*,LCTSC-*,4D-Lung-*' -o cv \\
    --first any-views-32 PREPARED32 --set train.steps=3000

So every patient is scored by weights that have seen no scan of that source. Prints a table, and what makes the
uncertainty right on patients not seen: `--calibrate WEIGHTS` writes it to weights that are trained on all of them.
Interrupt it at any time; what is trained is kept.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
from pathlib import Path

import numpy as np

from raylift import Reconstructor
from raylift.cli.console import print_table, progress_bar
from raylift.config.files import load_recipe
from raylift.config.recipe import Recipe
from raylift.data.dataset import PreparedDataset
from raylift.evaluation.calibration import coverage, draw_reliability, fit, offsets, tally
from raylift.evaluation.methods import score_case, stored_xrays
from raylift.model.weights import Weights, load_weights, store_calibration
from raylift.storage.atomic import write_json
from raylift.training.run import train

SHOWN = ("ssim", "psnr", "mse", "mae")


def fold(dataset: PreparedDataset, pattern: str, folder: Path) -> PreparedDataset:
    """The dataset with a source as its validation split, in a folder of its own that shares the cases."""
    names = dataset.names("all")
    left_out = fnmatch.filter(names, pattern)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text((dataset.folder / "dataset.json").read_text())
    kept = [name for name in names if name not in left_out]
    (folder / "splits.json").write_text(json.dumps({"train": kept, "validation": left_out}))
    if not (folder / "cases").exists():
        (folder / "cases").symlink_to((dataset.folder / "cases").resolve())
    return PreparedDataset(folder)


def trained(
    recipe: Recipe, data: PreparedDataset, run: Path, title: str, init_from: Weights | None = None
) -> Reconstructor:
    """The weights of a run, trained where they are not there yet."""
    begun = (run / "recipe.yaml").exists()
    if begun and load_recipe(run / "recipe.yaml") != recipe:
        raise SystemExit(f"{run} is of another recipe: give another folder to -o")
    if not (run / "weights.json").exists():
        with progress_bar(title) as bar:
            train(recipe, data.folder, run, resume=begun, init_from=init_from,
                  progress=lambda step, steps, numbers: bar("", step, steps))  # fmt: skip
    reconstructor = Reconstructor.from_pretrained(run)
    if reconstructor.weights.info.training.seen_cases & set(data.names("validation")):
        raise SystemExit(f"{run} has seen patients that it is to be scored on: give another folder to -o")
    began = reconstructor.weights.info.training.init_from
    if (began and began.sha256) != (init_from and init_from.info.sha256):
        raise SystemExit(f"{run} began with other weights: give another folder to -o")
    return reconstructor


def check_sources(patterns: list[str], names: list[str]) -> None:
    """Every case belongs to one source, and each source leaves others."""
    for name in names:
        count = sum(fnmatch.fnmatch(name, pattern) for pattern in patterns)
        if count != 1:
            raise SystemExit(f"--sources: {name} belongs to {count} of them")
    for pattern in patterns:
        if len(fnmatch.filter(names, pattern)) in (0, len(names)):
            raise SystemExit(f"--sources: {pattern} matches none, or all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("recipe")
    parser.add_argument("--sources", required=True, help="patterns of the cases' names, one for each source")
    parser.add_argument(
        "--first", nargs=2, metavar=("RECIPE", "PREPARED"), help="begin with another recipe's weights, trained likewise"
    )
    parser.add_argument("--set", action="append", default=[], help="key=value, as for raylift train")
    parser.add_argument("--only", metavar="PATTERN", help="train without this source alone: run several side by side")
    parser.add_argument("--refine", action="store_true", help="score refined volumes too")
    parser.add_argument("--calibrate", type=Path, help="weights whose uncertainty is to be made right")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    dataset, recipe = PreparedDataset(options.prepared), load_recipe(options.recipe, options.set)
    first = None if options.first is None else (load_recipe(options.first[0]), PreparedDataset(Path(options.first[1])))
    if first is not None and set(first[1].names("all")) != set(dataset.names("all")):
        raise SystemExit(f"--first: {first[1].folder} holds other cases than {dataset.folder}")
    patterns = options.sources.split(",")
    check_sources(patterns, dataset.names("all"))
    if recipe.data.split != "train":
        raise SystemExit("a recipe that trains on every case leaves none out: --set data.split=train")
    if options.only and options.only not in patterns:
        raise SystemExit(f"--only {options.only} is not among the sources")
    if options.calibrate and not load_weights(options.calibrate).info.recipe.network.uncertainty:
        raise SystemExit(f"--calibrate {options.calibrate}: tells no uncertainty")
    rows, scores, uncertainties = [], list[dict[str, float]](), list[tuple[np.ndarray, np.ndarray]]()
    for number, pattern in enumerate(patterns):
        if options.only not in (None, pattern):
            continue
        folder, title, init_from = options.output / f"fold-{number}", f"without {pattern}", None
        if first is not None:
            data = fold(first[1], pattern, folder / "first-data")
            init_from = trained(first[0], data, folder / "first", f"{title}, first").weights
        data = fold(dataset, pattern, folder / "data")
        reconstructor = trained(recipe, data, folder / "run", title, init_from)
        if options.only:
            return
        for case in data.cases("validation"):
            xrays = stored_xrays(data, case, reconstructor.lifted_network.views)
            made = reconstructor(xrays)
            found = {name: score_case(made.volume, case, "hu")[name] for name in SHOWN}
            found["own error"] = made.reprojection_error
            if options.refine:
                made_refined = reconstructor(xrays, refine=True)
                better = score_case(made_refined.volume, case, "hu")
                found |= {f"{name}, refined": better[name] for name in SHOWN}
                assert made_refined.refinement is not None
                found["own error, refined"] = made_refined.refinement.error_after
            if made.ood_score is not None:
                found["ood_score"] = made.ood_score
            if made.uncertainty is not None:
                uncertainties.append(offsets(made.volume, made.uncertainty, case.truth))
            scores.append(found)
            rows.append({"left out": pattern, "case": case.name} | found)
    shared = [name for name in scores[0] if all(name in one for one in scores)]
    means = {name: float(np.mean([one[name] for one in scores])) for name in shared}
    rows.append({"left out": "all", "case": f"mean of {len(scores)}"} | means)
    print_table([{k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows])
    write_json({"rows": rows}, options.output / "scores.json")
    if uncertainties:
        report_uncertainty(uncertainties, [row["case"] for row in rows[:-1]], options.output, options.calibrate)


def report_uncertainty(
    uncertainties: list[tuple[np.ndarray, np.ndarray]], cases: list[str], folder: Path, weights: Path | None
) -> None:
    """Coverage on each patient by what the others say of the uncertainty, its curve, and what all say, for weights."""
    covered, errors, deviations = [], [], []
    for k, (error, deviation) in enumerate(uncertainties):
        others = [pair for j, pair in enumerate(uncertainties) if j != k]
        factor, widths = fit(*(np.concatenate(parts) for parts in zip(*others, strict=True)))
        covered.append(coverage(error, factor * deviation, widths))
        errors.append(error)
        deviations.append(factor * deviation)
    print_table(
        [
            {"patients": title} | {name: f"{of([one[name] for one in covered]):.3f}" for name in covered[0]}
            for title, of in (("mean", np.mean), ("least", np.min), ("most", np.max))
        ]
    )
    picture = draw_reliability(
        tally(np.concatenate(errors), np.concatenate(deviations)),
        folder / "reliability.png",
        "uncertainty, patients not seen",
    )
    factor, widths = fit(*(np.concatenate(parts) for parts in zip(*uncertainties, strict=True)))
    print(f"{picture}; standard deviations times {factor:.3f}, widths {', '.join(f'{w:.2f}' for w in widths)}")
    if weights is not None:
        store_calibration(load_weights(weights), {"factor": factor, "widths": widths, "cases": cases})


if __name__ == "__main__":
    main()
