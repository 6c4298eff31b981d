"""The recipe, which determines everything that a training run does, as typed models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from raylift.config.earlier_names import modern_recipe
from raylift.errors import known
from raylift.geometry import View
from raylift.lifting.registry import LIFTS
from raylift.networks.registry import NETWORKS
from raylift.plugins import Registry

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=1e9)]
NotNegative = Annotated[float, Field(ge=0, le=1e9)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Step = Annotated[int, Field(ge=0, le=10**9)]


class StrictConfig(BaseModel):
    """A block of a recipe: unknown keys are errors, and values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _reject_booleans(cls, data: Any) -> Any:
        """Return the data unchanged, after a check for booleans, which Pydantic would accept as the numbers 1 and 0.

        Raises:
            ValueError: a field of another type is true or false.
        """
        for key, value in data.items() if isinstance(data, dict) else ():
            if isinstance(value, bool) and key in cls.model_fields and cls.model_fields[key].annotation is not bool:
                raise ValueError(f"{key}: {str(value).lower()} is neither a number nor a name")
        return data


class AugmentationConfig(StrictConfig):
    """Random changes of the scan in training pairs, uniform in ± the value unless stated otherwise.

    Args:
        rotation: degrees about each of the x, y and z axes.
        scaling: relative size of the whole body; each axis also varies by half of it on its own.
        shift: mm along each axis.
        elastic: standard deviation in mm of the displacement along each axis.
        intensity: relative change of the attenuation (1 + HU/1000).
        truncation: probability that the scan is cut off earlier at the top, and likewise at the bottom.
        lung: change of the density of lungs in HU.
        soft_tissue: change of the density of soft tissue in HU; fat changes by half of it.
        bone: relative change of how much denser bone and contrast medium are than soft tissue.
        opacities: probability that 1 to 3 opacities are added to the lungs.
    """

    rotation: NotNegative = 0.0
    scaling: NotNegative = 0.0
    shift: NotNegative = 0.0
    elastic: NotNegative = 0.0
    intensity: NotNegative = 0.0
    truncation: Probability = 0.0
    lung: NotNegative = 0.0
    soft_tissue: NotNegative = 0.0
    bone: NotNegative = 0.0
    opacities: Probability = 0.0


class XrayAugmentationConfig(StrictConfig):
    """Random changes of the X-rays alone, as in the paper: the target volume is not changed with them."""

    contrast: tuple[Positive, Positive] = (1.0, 1.0)
    rotation: NotNegative = 0.0
    rotation_probability: Probability = 0.0
    flip_probability: Probability = 0.0


class DataConfig(StrictConfig):
    """How training pairs of X-rays and volume are made."""

    pairs: Literal["online", "offline"] = "online"  # online: warp the CT and project it; offline: stored X-rays
    split: Literal["train", "all"] = "train"
    xray_pixels: Annotated[int, Field(ge=1, le=4096)] = 128  # edge of the network's X-rays; finer ones are averaged
    projection_spacing: Annotated[float, Field(ge=0.5, le=100)] = 4.0  # voxel size in mm of the scan that is projected
    opposite_views: bool = True  # take each view from its own side or the opposite one, at random
    any_views: Probability = 0.0  # that a batch has some of the recipe's views, or 1 to 8 at any angles
    any_geometry: Probability = 0.0  # that a batch has a random one of `geometry.PRESETS`, not the dataset's geometry
    pictures: bool = False  # convert each X-ray to an 8-bit picture by its own minimum and maximum; offline pairs only
    augmentation: AugmentationConfig = AugmentationConfig()
    xray_augmentation: XrayAugmentationConfig = XrayAugmentationConfig()


class NetworkConfig(StrictConfig):
    """The mapping network g, by its name in the registry.

    Args:
        name: in the registry.
        feature_size: width of the first stage.
        window_size: edge of the attention windows in tokens, for networks that have windows.
        checkpointing: Swin UNETR's transformer recomputes activations for the gradient, which saves memory but takes
            more time.
        iterations: how many times the network is applied; from the second time on, its input includes the volume
            before and the part of the X-rays that this volume does not explain.
        uncertainty: the network also predicts the uncertainty of each voxel.
    """

    name: str = "swin_unetr"
    feature_size: Annotated[int, Field(ge=1, le=512)] = 12
    window_size: Annotated[int, Field(ge=1, le=16)] = 4
    checkpointing: bool = False
    iterations: Annotated[int, Field(ge=1, le=64)] = 1
    uncertainty: bool = False

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return known(name, NETWORKS, "network")

    @field_validator("feature_size")
    @classmethod
    def _divisible(cls, size: int, info: ValidationInfo) -> int:
        name = info.data.get("name")
        if name is not None and size % NETWORKS[name].multiple:
            raise ValueError(f"{size} is not a multiple of {NETWORKS[name].multiple}, as {name} needs")
        return size

    @model_validator(mode="after")
    def _can_checkpoint(self) -> NetworkConfig:
        if self.checkpointing and "checkpointing" not in NETWORKS[self.name].options:
            raise ValueError(f"checkpointing is for swin_unetr, not {self.name}")
        return self


class ObjectiveConfig(StrictConfig):
    """The block `objective`: its name, and the settings of the objective of that name."""

    name: str

    @property
    def updates_of_g(self) -> int:
        """The number of updates of g in a training step."""
        return 1


class PaperObjectiveConfig(ObjectiveConfig):
    """Neural optimal transport: equations 3 and 4.

    Args:
        lambda_c: weight of the divergence.
        lambda_d: weight of the potential; 0 leaves out d.
        potential: architecture of d: "paper", the published program's, or "compact".
        potential_loss: weight of L_d.
        blur: of the Sinkhorn divergence, in the units of the features.
        debias: use the de-biased divergence; else its first term alone.
        features: compare features of f; else voxels.
        features_bias: f's first convolution has a bias.
        layers: layers of f whose features are compared, numbered from 1.
        pairing: compare features pair by pair; as published, a whole batch is compared with a whole batch.
        g_updates: updates of g before each update of d.
    """

    name: Literal["paper"]
    lambda_c: NotNegative = 0.1
    lambda_d: NotNegative = 0.1
    potential: Literal["compact", "paper"] = "compact"
    potential_loss: NotNegative = 100.0
    blur: Positive = 0.05
    debias: bool = True
    features: bool = True
    features_bias: bool = True
    layers: Annotated[tuple[Annotated[int, Field(ge=1, le=4)], ...], Field(min_length=1, max_length=4)] = (1, 2, 3, 4)
    pairing: bool = False
    g_updates: Count = 10

    @property
    def updates_of_g(self) -> int:
        """The number of updates of g in a training step."""
        return self.g_updates

    @model_validator(mode="after")
    def _pairing_needs_features(self) -> PaperObjectiveConfig:
        if self.pairing and not self.features:
            raise ValueError("pairing is for features: leave out pairing, or features: false")
        return self


class PairedObjectiveConfig(ObjectiveConfig):
    """The weights of the paired terms; a term of weight 0 is not computed."""

    name: Literal["paired"]
    l1: NotNegative = 1.0
    l2: NotNegative = 0.0
    ssim: NotNegative = 0.0
    features: NotNegative = 0.0
    projection: NotNegative = 0.0
    transport: NotNegative = 0.0
    patches: NotNegative = 0.0
    uncertainty: NotNegative = 0.1  # only used if the network predicts its uncertainty

    @model_validator(mode="after")
    def _has_a_term(self) -> PairedObjectiveConfig:
        if not any(value for name, value in self if name not in ("name", "uncertainty")):
            raise ValueError("every weight is 0: nothing would be learned")
        return self


class WassersteinObjectiveConfig(ObjectiveConfig):
    """WGAN with gradient penalty, and a paired L1 term."""

    name: Literal["wasserstein"]
    adversarial: Positive = 1.0
    gradient_penalty: Positive = 10.0
    l1: NotNegative = 0.0
    d_updates: Count = 5  # updates of d for each update of g


class X2CTObjectiveConfig(ObjectiveConfig):
    """X2CT-GAN's loss; without the adversarial term X2CT-CNN's, with class maps CCX-rayNet's."""

    name: Literal["x2ct"]
    adversarial: NotNegative = 0.1
    voxel: NotNegative = 10.0
    projection: NotNegative = 10.0
    class_maps: NotNegative = 0.0
    d_features: Count = 64  # channels of the discriminator's first layer


class OtherObjectiveConfig(ObjectiveConfig):
    """The objective of another package, which checks its own keys when training begins."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return known(name, OBJECTIVES, "objective")


@dataclass(frozen=True)
class ObjectiveEntry:
    """One objective of the registry.

    Args:
        path: module:class of a `raylift.losses.Objective`.
        config: the model of its block in a recipe.
    """

    path: str
    config: type[ObjectiveConfig] = OtherObjectiveConfig


OBJECTIVES: Registry[ObjectiveEntry] = Registry(
    "raylift.objectives",
    {
        "paper": ObjectiveEntry("raylift.losses.neural_ot:PaperObjective", PaperObjectiveConfig),
        "paired": ObjectiveEntry("raylift.losses.paired:PairedObjective", PairedObjectiveConfig),
        "wasserstein": ObjectiveEntry("raylift.losses.adversarial:WassersteinObjective", WassersteinObjectiveConfig),
        "x2ct": ObjectiveEntry("raylift.losses.adversarial:X2CTObjective", X2CTObjectiveConfig),
    },
    ObjectiveEntry,
)


def _tag(objective: Any) -> str:
    """Return the tag of the configuration that fits an objective's block, by its name."""
    name = objective.get("name") if isinstance(objective, dict) else getattr(objective, "name", None)
    return name if isinstance(name, str) and name in OBJECTIVES.own else "other"


class TrainConfig(StrictConfig):
    """Optimisation and bookkeeping. A step is the objective's updates of g, then those of d if there is one."""

    steps: Count
    batch_size: Annotated[int, Field(ge=1, le=10**5)] = 2  # of a minibatch, divided among processes that train together
    accumulate: Count = 1  # minibatches per update
    lr: Positive = 5e-4
    d_lr: Positive | None = None  # learning rate of d; None for lr
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: NotNegative = 1e-5
    warmup: Step = 0  # steps in which the learning rate rises linearly
    decay_from: Step = 0  # step from which the learning rate falls, to reach 0 at the last step
    decay: Literal["linear", "cosine"] = "linear"
    clip_norm: Positive | None = None
    ema_decay: Probability = 0.995
    ema_every: Count = 5
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    log_every: Count = 10
    validate_every: Count = 250
    checkpoint_minutes: NotNegative = 3.0
    preview_minutes: NotNegative = 5.0
    keep: Count = 2  # number of last checkpoints to keep, besides the best


class Recipe(StrictConfig):
    """Everything that determines a training run."""

    name: Annotated[str, Field(max_length=100, pattern=r"^[ -~\w]+$")]
    views: Annotated[tuple[str | float, ...], Field(max_length=360)] = (0.0, 90.0)
    lift: str = "backproject"
    aggregation: Literal["concatenate", "harmonics"] = "concatenate"
    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    objective: Annotated[
        Annotated[PaperObjectiveConfig, Tag("paper")]
        | Annotated[PairedObjectiveConfig, Tag("paired")]
        | Annotated[WassersteinObjectiveConfig, Tag("wasserstein")]
        | Annotated[X2CTObjectiveConfig, Tag("x2ct")]
        | Annotated[OtherObjectiveConfig, Tag("other")],
        Discriminator(_tag),
    ]
    train: TrainConfig

    @model_validator(mode="before")
    @classmethod
    def _modern_names(cls, data: Any) -> Any:
        return modern_recipe(data) if isinstance(data, dict) else data

    @field_validator("views")
    @classmethod
    def _views(cls, views: tuple[str | float, ...]) -> tuple[str | float, ...]:
        if not views:
            raise ValueError("at least one view is needed")
        if len({View.parse(view) for view in views}) < len(views):
            raise ValueError("a view is listed twice")
        return views

    @field_validator("lift")
    @classmethod
    def _lift(cls, name: str) -> str:
        return known(name, LIFTS, "lift")

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        takes = NETWORKS[self.network.name].takes
        if (takes == "images") != (self.lift == "image"):
            required = "the lift 'image'" if takes == "images" else "a lift other than 'image'"
            raise ValueError(f"the network {self.network.name} takes {takes}: give it {required}")
        for_volumes = self.network.iterations > 1 or self.network.uncertainty or self.aggregation != "concatenate"
        if takes == "images" and for_volumes:
            name = self.network.name
            raise ValueError(f"iterations, uncertainty and aggregation are not for {name}, which takes images")
        paired = self.objective if isinstance(self.objective, PairedObjectiveConfig) else None
        if self.network.uncertainty and not (paired and paired.uncertainty):
            raise ValueError("network.uncertainty needs the objective paired with a weight of uncertainty above 0")
        if (self.data.any_views or self.data.any_geometry) and self.data.pairs == "offline":
            raise ValueError("any_views and any_geometry need online pairs")
        if self.data.pictures and (self.data.pairs == "online" or self.network.iterations > 1):
            raise ValueError("pictures need offline pairs and one iteration, since they hold no line integrals")
        if self.data.any_views and self.aggregation == "concatenate":
            raise ValueError("any_views needs the aggregation harmonics: concatenation has a channel for each view")
        if takes == "images" and any(view.angle % 90 for view in self.view_list):
            raise ValueError(f"the network {self.network.name} is for views at right angles")
        x2ct = self.objective if isinstance(self.objective, X2CTObjectiveConfig) else None
        if x2ct and takes != "images":
            raise ValueError("the objective x2ct is for networks that take images")
        if bool(x2ct and x2ct.class_maps) != (self.network.name == "ccx_raynet"):
            raise ValueError("the network ccx_raynet needs the objective x2ct with class_maps; no other allows them")
        return self

    @property
    def view_list(self) -> tuple[View, ...]:
        """The views as `View` objects."""
        return tuple(View.parse(view) for view in self.views)
