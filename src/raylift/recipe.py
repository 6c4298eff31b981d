"""The recipe: everything that decides what a training run does, as typed models read from YAML."""

from __future__ import annotations

import contextlib
import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from raylift.errors import WrongUsage
from raylift.geometry import View
from raylift.lift import LIFTS
from raylift.networks.registry import NETWORKS

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Part(BaseModel):
    """A block of a recipe: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AugmentationPart(Part):
    """How far training pairs stray from the scan. Uniform distributions in ±range unless said otherwise.

    Args:
        rotation: degrees about each of the x, y and z axes.
        scaling: relative, of the whole body; each axis varies by half of it besides.
        shift: mm along each axis.
        elastic: standard deviation in mm of the displacement along each axis.
        intensity: relative, of the attenuation (1 + HU/1000).
        truncation: probability that the scan ends nearer above, and below, than it does.
    """

    rotation: NotNegative = 0.0
    scaling: NotNegative = 0.0
    shift: NotNegative = 0.0
    elastic: NotNegative = 0.0
    intensity: NotNegative = 0.0
    truncation: Probability = 0.0


class XrayAugmentationPart(Part):
    """Of the X-rays alone, as the paper has it: the target does not follow."""

    contrast: tuple[Positive, Positive] = (1.0, 1.0)
    rotation: NotNegative = 0.0
    rotation_probability: Probability = 0.0
    flip_probability: Probability = 0.0


class DataPart(Part):
    """Where pairs of X-rays and volume come from."""

    pairs: Literal["online", "offline"] = "online"  # online: warp the CT, project it again; offline: stored X-rays
    split: Literal["train", "all"] = "train"
    xray_pixels: Count = 128  # the network's X-rays; finer ones are averaged down to it
    projection_spacing: Positive = 4.0  # mm, of the warped scan that is projected
    opposite_views: bool = True  # each view is taken from its own side or the opposite one, at random
    augmentation: AugmentationPart = AugmentationPart()
    xray_augmentation: XrayAugmentationPart = XrayAugmentationPart()


class NetworkPart(Part):
    """The mapping network g, by its name in the registry."""

    name: str = "swin_unetr"
    feature_size: Count = 12
    window_size: Count = 4

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return known(name, NETWORKS, "network")

    @field_validator("feature_size")
    @classmethod
    def _divisible(cls, size: int, info: ValidationInfo) -> int:
        if info.data.get("name") == "swin_unetr" and size % 12:
            raise ValueError(f"{size} is no multiple of 12, as swin_unetr needs")
        return size


class PaperObjectivePart(Part):
    """Neural optimal transport as published: equations 3 and 4."""

    name: Literal["paper"]
    sinkhorn: NotNegative = 0.1  # λ_c
    potential: NotNegative = 0.1  # λ_d
    potential_loss: NotNegative = 100.0  # weight of L_d
    blur: Positive = 0.05
    g_updates: Count = 10  # updates of g before one of d


class PairedObjectivePart(Part):
    """Weights of the paired terms; a term of weight 0 is not computed."""

    name: Literal["paired"]
    l1: NotNegative = 1.0
    l2: NotNegative = 0.0
    ssim: NotNegative = 0.0
    projection: NotNegative = 0.0
    transport: NotNegative = 0.0


class TrainPart(Part):
    """Optimisation and bookkeeping. A step is `g_updates` updates of g, and one of d where there is a d."""

    steps: Count
    batch_size: Count = 2
    accumulate: Count = 1  # minibatches per update
    lr: Positive = 5e-4
    d_lr: Positive | None = None  # the potential's; lr where it is not given
    betas: tuple[Probability, Probability] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: NotNegative = 1e-5
    warmup: Annotated[int, Field(ge=0)] = 0  # steps of linear rise
    decay_from: Annotated[int, Field(ge=0)] = 0  # step at which the rate begins to fall to 0 at the last step
    decay: Literal["linear", "cosine"] = "linear"
    clip_norm: Positive | None = None
    ema_decay: Probability = 0.995
    ema_every: Count = 5
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    seed: int = 0
    log_every: Count = 10
    validate_every: Count = 250
    checkpoint_minutes: NotNegative = 3.0
    preview_minutes: NotNegative = 5.0
    keep: Count = 2  # last checkpoints kept, besides the best


class Recipe(Part):
    """What to train."""

    name: str
    views: tuple[str | float, ...] = (0.0, 90.0)
    lift: str = "backproject"
    data: DataPart = DataPart()
    network: NetworkPart = NetworkPart()
    objective: Annotated[PaperObjectivePart | PairedObjectivePart, Field(discriminator="name")]
    train: TrainPart

    @field_validator("views")
    @classmethod
    def _views(cls, views: tuple[str | float, ...]) -> tuple[str | float, ...]:
        if not views:
            raise ValueError("at least one view is needed")
        for view in views:
            View.parse(view)
        return views

    @field_validator("lift")
    @classmethod
    def _lift(cls, name: str) -> str:
        return known(name, LIFTS, "lift")

    @property
    def view_list(self) -> tuple[View, ...]:
        """The views as geometry."""
        return tuple(View.parse(view) for view in self.views)


def known(name: str, names: Any, kind: str) -> str:
    """The name, if it is one of `names`; else a ValueError that gives the nearest."""
    if name in names:
        return name
    near = difflib.get_close_matches(name, list(names), 1, 0.0)
    raise ValueError(f"'{name}' is no {kind}; the nearest is '{near[0]}' of {', '.join(names)}")


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        path: a YAML file.
        overrides: "train.lr=1e-4" and the like; values are YAML.

    Raises:
        WrongUsage: the file is missing or no recipe, or a key or value is unknown; the message gives the place and
            the nearest known key.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text())
    except OSError:
        raise WrongUsage(f"{path}: no such recipe file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WrongUsage(f"{path}: not a YAML recipe ({str(error).splitlines()[0]})") from None
    if not isinstance(data, dict):
        raise WrongUsage(f"{path}: not a recipe: it holds no keys")
    for override in overrides or []:
        key, equals, value = override.partition("=")
        if not equals:
            raise WrongUsage(f"--set {override}: give it as key=value, like train.lr=1e-4")
        try:
            _set(data, key.strip(), yaml.safe_load(value))
        except yaml.YAMLError:
            raise WrongUsage(f"--set {override}: its value is not YAML") from None
    return parse_recipe(data, str(path))


def parse_recipe(data: dict[str, Any], origin: str) -> Recipe:
    """A recipe from plain data; `origin` is named in errors. Raises WrongUsage."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(p) for p in first["loc"] if p not in ("paper", "paired")]
        if first["type"] == "extra_forbidden":
            fields = _fields(place[:-1], data)
            near = difflib.get_close_matches(place[-1], fields, 1, 0.0)
            hint = f"; the nearest known key is '{'.'.join([*place[:-1], near[0]])}'" if near else ""
            raise WrongUsage(f"{origin}: unknown key '{'.'.join(place)}'{hint}") from None
        message = first["msg"].removeprefix("Value error, ")
        raise WrongUsage(f"{origin}: {'.'.join(place)}: {message}") from None


def _set(data: dict[str, Any], key: str, value: Any) -> None:
    # YAML 1.1 reads 1e-4 as text; a number is what is meant.
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    *path, last = key.split(".")
    for part in path:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise WrongUsage(f"--set {key}: '{part}' holds a value, not keys")
    data[last] = value


def _fields(place: list[str], data: dict[str, Any]) -> list[str]:
    """The keys that the model at `place` knows."""
    model: Any = Recipe
    for part in place:
        if part == "objective":
            chosen = data.get("objective", {}).get("name")
            model = PaperObjectivePart if chosen == "paper" else PairedObjectivePart
        else:
            model = model.model_fields[part].annotation
    return list(model.model_fields)
