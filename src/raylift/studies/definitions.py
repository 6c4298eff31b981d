"""The studies: the rows of each, as a recipe and changes to it. Imports no PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from raylift.errors import WrongUsage, known

OBLIQUE = "views=[45, 135, 225, 315]"
# Sets of many views contain opposite views already, so training never replaces a view by the opposite one.
OWN_SIDE = "data.opposite_views=false"


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        label: the row's label in tables, unique in its study.
        recipe: name of a recipe that comes with Raylift, or the path of one; "" for a method that is not trained.
        changes: changes to the recipe, as `key=value`.
        method: for a method that is not trained, its name in `raylift.evaluation.methods`.
    """

    label: str
    recipe: str = ""
    changes: tuple[str, ...] = ()
    method: str = ""


@dataclass(frozen=True)
class StudyDefinition:
    """A table or figure of the paper.

    Args:
        name: name of the study and of its files.
        title: heading of the report.
        about: what the study reproduces, in a sentence.
        rows: the methods to compare.
        figure: "gradients" or "gallery" for a figure of the trained rows, "" for none.
        rows_of: returns the rows for a label and a recipe, where the study can compare changes to any recipe.
    """

    name: str
    title: str
    about: str
    rows: Sequence[Row]
    figure: str = ""
    rows_of: Callable[[str, str], Sequence[Row]] | None = None


def study_of(name: str, recipe: str | None) -> StudyDefinition:
    """Return a study, with the rows of another recipe if one is given.

    Args:
        name: key of `STUDIES`.
        recipe: name of a recipe that comes with Raylift, or the path of one; None for the paper's recipe and ours.

    Raises:
        WrongUsage: there is no such study, or it compares fixed recipes.
    """
    study = STUDIES[known(name, STUDIES, "study")]
    if recipe is None:
        return study
    if study.rows_of is None:
        others = ", ".join(other for other, one in STUDIES.items() if one.rows_of)
        raise WrongUsage(f"--recipe: the study {name} compares fixed recipes; use --recipe with one of {others}")
    label = PurePath(recipe).stem
    return replace(study, name=f"{name}-{label}", rows=study.rows_of(label, recipe))


def _views(count: int) -> str:
    return f"views=[{', '.join(f'{360 // count * k:g}' for k in range(count))}]" if count != 2 else "views=[0, 90]"


def _views_of(label: str, recipe: str) -> tuple[Row, ...]:
    """Return the rows of table 1: numbers of views, and noise instead of copies of the X-ray."""
    changes_by_label = (
        *((f"{n} view{'s' * (n > 1)}", (_views(n),)) for n in (1, 2, 4, 8)),
        ("4 oblique views", (OBLIQUE,)),
        ("1 view and fixed noise", ("views=[0]", "lift=noise-fixed")),
        ("1 view and fresh noise", ("views=[0]", "lift=noise-fresh")),
    )
    return tuple(Row(f"{label}: {name}", recipe, (*changes, OWN_SIDE)) for name, changes in changes_by_label)


def _alignment_of(label: str, recipe: str) -> tuple[Row, ...]:
    """Return the rows of figures 6 and 7: the lifts, for views at right angles and oblique ones."""
    sets = (("2 views", _views(2)), ("4 views", _views(4)), ("8 views", _views(8)), ("oblique", OBLIQUE))
    return tuple(
        Row(f"{label}: {name}, {lift}", recipe, (views, f"lift={lift}", OWN_SIDE))
        for name, views in sets
        for lift in (ALIGNMENTS if name in ("8 views", "oblique") else ALIGNMENTS[1:])
    )


def _gradients_of(label: str, recipe: str) -> tuple[Row, ...]:
    """Return the rows of figure 8: two, four and eight views."""
    return _views_of(label, recipe)[1:4]


# The paper's recipe and ours, both at a size that two cores can train.
BOTH = (("paper", "paper-cpu"), ("ours", "cpu"))
# For views at right angles, `transpose` equals `repeat`, and is left out.
ALIGNMENTS = ("transpose", "coarse", "repeat", "backproject")
BEST = Row("Raylift (back-projection, paired)", "cpu")
PAPER = Row("paper's recipe, small", "paper-cpu")
METHODS = (
    Row("mean training volume", method="mean"),
    Row("CGLS", method="cgls"),
    Row("SART-TV", method="sart-tv"),
    Row("2D-3D autoencoder", "baselines/autoencoder"),
    Row("2D-3D autoencoder + L2", "baselines/autoencoder-l2"),
    Row("3D-3D U-Net", "baselines/unet"),
    Row("X2CT-CNN", "baselines/x2ct-cnn"),
    Row("X2CT-GAN", "baselines/x2ct-gan"),
    Row("CCX-rayNet", "baselines/ccx-raynet"),
    PAPER,
    BEST,
)
LIFT = (
    *(
        Row(f"{lift}, paired", "cpu", (f"lift={lift}",))
        for lift in ("repeat", "backproject", "noise-fixed", "noise-fresh")
    ),
    *(Row(f"{lift}, neural OT", "ablations/paper-online", (f"lift={lift}",)) for lift in ("repeat", "backproject")),
    PAPER,
)
NETWORK_ROWS = (
    Row("2D-3D autoencoder", "baselines/autoencoder"),
    Row("2D-3D autoencoder + L2", "baselines/autoencoder-l2"),
    *(Row(n, f"baselines/{n}") for n in ("unet", "attention-unet", "unetr", "segresnet", "dynunet")),
    Row("Swin UNETR", "cpu"),
)
OBJECTIVE_ROWS = (
    Row("L1", "ablations/l1"),
    Row("L2", "ablations/l2"),
    Row("L2 of features", "ablations/l2-features"),
    Row("WGAN-GP", "ablations/wasserstein"),
    Row("WGAN-GP + L1", "ablations/wasserstein-l1"),
    Row("neural OT (paper)", "ablations/paper-online"),
    Row("neural OT without d", "ablations/paper-without-d"),
    Row("neural OT without f", "ablations/paper-without-f"),
    Row("paired", "cpu"),
    Row("paired with transport", "ablations/transport"),
)
# Changes that were tried in order to surpass the paper, at 32³ voxels: each row changes one thing in the first row.
TWO_VIEW_SETTINGS = ("data.any_views=0", "data.any_geometry=0", "aggregation=concatenate", "network.uncertainty=false")


def _choice(label: str, *changes: str) -> Row:
    return Row(label, "any-views-32", (*TWO_VIEW_SETTINGS, *changes))


CHOICES = (
    _choice("any-views-32.yaml for two views"),
    _choice(
        "warps of cpu.yaml, same tissue",
        "data.augmentation={rotation: 6, scaling: 0.1, shift: 15, elastic: 6, intensity: 0.04, truncation: 0.15, "
        "lung: 0, soft_tissue: 0, bone: 0, opacities: 0}",
    ),
    _choice("same tissue", *(f"data.augmentation.{key}=0" for key in ("lung", "soft_tissue", "bone", "opacities"))),
    _choice("repeat", "lift=repeat"),
    _choice("one pass", "network.iterations=1"),
    _choice("three passes", "network.iterations=3"),
    _choice("SSIM 0.2", "objective.ssim=0.2"),
    _choice("SSIM 2", "objective.ssim=2"),
    _choice("L2 of weight 6", "objective.l2=6"),
    _choice("projections of weight 0.4", "objective.projection=0.4"),
    _choice("features of f", "objective.features=1"),
    _choice("transport of mass", "objective.transport=1"),
    _choice("transport of patches", "objective.patches=6"),
    _choice("feature size 16", "network.feature_size=16"),
    _choice("feature size 48", "network.feature_size=48"),
    _choice("MONAI's U-Net", "network.name=unet", "network.feature_size=16"),
    _choice("Swin UNETR", "network.name=swin_unetr", "network.feature_size=12"),
    _choice("uncertainty", "network.uncertainty=true"),
    _choice("harmonics", "aggregation=harmonics"),
    Row("any-views-32.yaml", "any-views-32"),
)


def _of_both(rows_of: Callable[[str, str], Sequence[Row]]) -> tuple[Row, ...]:
    return tuple(row for label, recipe in BOTH for row in rows_of(label, recipe))


_STUDIES = (
    StudyDefinition(
        "views",
        "Number of views",
        "Table 1 of the paper: 1, 2, 4, 8 and oblique views, and noise.",
        _of_both(_views_of),
        rows_of=_views_of,
    ),
    StudyDefinition("methods", "Methods", "Table 2 of the paper: the competitors, two views.", METHODS),
    StudyDefinition(
        "lift", "Lifts and objectives", "Copies, rays or noise in the channels, under either objective.", LIFT
    ),
    StudyDefinition(
        "alignment",
        "Alignment of views",
        "Figures 6 and 7 of the paper: views transposed only, turned by their angle, or lifted exactly.",
        _of_both(_alignment_of),
        rows_of=_alignment_of,
    ),
    StudyDefinition("networks", "Mapping networks", "Figure 3 of the paper, and the choice of g.", NETWORK_ROWS),
    StudyDefinition("objectives", "Objectives", "What is minimised, with and without d and f.", OBJECTIVE_ROWS),
    StudyDefinition("choices", "Choices", "What was tried to do better than the paper, and what each brings.", CHOICES),
    StudyDefinition(
        "gradients",
        "Gradients by view",
        "Figure 8 of the paper: how much the volume depends on each view, within and across patients.",
        _of_both(_gradients_of),
        "gradients",
        _gradients_of,
    ),
    StudyDefinition(
        "gallery",
        "Gallery",
        "Figures 4, 5 and 9 of the paper: projections of generated and true volumes.",
        (PAPER, Row("X2CT-GAN", "baselines/x2ct-gan"), BEST),
        "gallery",
    ),
)
STUDIES = {study.name: study for study in _STUDIES}
