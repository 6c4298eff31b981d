"""The content of `weights.json`, as a typed record."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from raylift.about import __version__
from raylift.config.earlier_names import modern_weights_info
from raylift.config.recipe import Recipe
from raylift.geometry import Geometry
from raylift.images.hounsfield import WATER_MU, WINDOW
from raylift.lifting.scaling import XRAY_SCALE
from raylift.storage.geometry_records import GeometryRecord
from raylift.storage.records import Sha256, Typed

PURPOSE = "research only; not a medical device"
MAX_MEMBERS = 64
MAX_CASE_NAMES = 2_000_000
CaseNames = Annotated[list[str], Field(max_length=MAX_CASE_NAMES)]


class Normalisation(Typed):
    """How Hounsfield units and line integrals are scaled to the network's range."""

    window_hu: Annotated[list[float], Field(min_length=2, max_length=2)]
    xray_scale: Annotated[float, Field(gt=0)]
    water_mu_per_mm: float = WATER_MU


NORMALISATION = Normalisation(window_hu=list(WINDOW), water_mu_per_mm=WATER_MU, xray_scale=XRAY_SCALE)  # this version's


class InitFrom(Typed):
    """The weights that a training began with.

    Args:
        sha256: of their file.
        share: of the network's values that they gave.
        cases: that they had been trained on.
    """

    sha256: Sha256
    share: float = 1.0
    cases: CaseNames = Field(default_factory=list)


class Training(Typed):
    """What weights were trained on.

    Args:
        cases: names of the training cases.
        source: name of the folder of scans.
        licence: of the scans.
        steps: of the training.
        hours: that it took.
        validation: the protocol's means over the held-out cases, and their names.
        init_from: the weights it began with.
        members: of an ensemble, the same for each network.
        sha256: of a member's weights.
    """

    cases: CaseNames
    source: str = ""
    licence: str = ""
    steps: int = 0
    hours: float = 0.0
    validation: dict[str, Any] | None = None
    init_from: InitFrom | None = None
    members: Annotated[list[Training], Field(max_length=MAX_MEMBERS)] = Field(default_factory=list)
    sha256: Sha256 | None = None

    @property
    def seen_cases(self) -> set[str]:
        """The names of the cases of the training, and of those of the weights it began with."""
        return {*self.cases, *(self.init_from.cases if self.init_from else ())}


class Calibration(Typed):
    """What scales the network's uncertainty to its measured errors.

    Args:
        factor: of the standard deviations.
        widths: of the intervals that hold `raylift.evaluation.calibration.LEVELS` of the voxels, in σ.
        cases: names of the patients that it was measured on.
        usual_error: the largest `error_inside` (see `raylift.reconstruction.reconstructor`) of patients that were not
            trained on.
    """

    factor: Annotated[float, Field(gt=0, le=1000)] = 1.0
    widths: list[float] | None = None
    cases: CaseNames = Field(default_factory=list)
    usual_error: Annotated[float, Field(gt=0)] | None = None


class WeightsDescription(Typed):
    """The content of `weights.json` before its weights are written.

    Args:
        format: 1.
        raylift: version that wrote the file.
        purpose: what the weights are for.
        recipe: of the training.
        geometry: X-ray geometry.
        voxels: edge of the cube in voxels.
        cube_mm: edge of the cube in mm.
        normalisation: of volumes and X-rays.
        training: what the weights were trained on.
        members: number of networks in the ensemble.
        uncertainty: calibration of the uncertainty; None before it is calibrated.
        exported_from: of an exported model, the SHA-256 of the weights it was exported from.
    """

    format: Literal[1]
    raylift: Annotated[str, Field(max_length=100)]
    purpose: str = PURPOSE
    recipe: Annotated[Recipe, BeforeValidator(Recipe.model_validate)]
    geometry: GeometryRecord
    voxels: Annotated[int, Field(ge=8, le=512)]
    cube_mm: Annotated[float, Field(ge=10, le=2000)]
    normalisation: Normalisation
    training: Training
    members: Annotated[int, Field(ge=1, le=MAX_MEMBERS)] = 1
    uncertainty: Calibration | None = None
    exported_from: Sha256 | None = None

    @model_validator(mode="before")
    @classmethod
    def _rename_earlier(cls, data: Any) -> Any:
        """Return the record with names of earlier versions replaced by those of today."""
        return modern_weights_info(data) if isinstance(data, dict) else data

    @classmethod
    def of(
        cls, recipe: Recipe, geometry: Geometry, voxels: int, cube_mm: float, training: Training, members: int = 1
    ) -> Self:
        """Return the description of weights that this version of Raylift has trained."""
        return cls(
            format=1,
            raylift=__version__,
            purpose=PURPOSE,
            recipe=recipe,
            geometry=geometry,
            voxels=voxels,
            cube_mm=cube_mm,
            normalisation=NORMALISATION,
            training=training,
            members=members,
        )

    @property
    def usual_error(self) -> float | None:
        """The largest error with which a patient's volume explained its X-rays; None where it was not measured."""
        return None if self.uncertainty is None else self.uncertainty.usual_error

    @property
    def uncertainty_factor(self) -> float:
        """The factor of the network's standard deviations; 1 before they are calibrated."""
        return 1.0 if self.uncertainty is None else self.uncertainty.factor

    @property
    def uncertainty_widths(self) -> list[float] | None:
        """The widths of `Calibration`; None before the uncertainty is calibrated."""
        return None if self.uncertainty is None else self.uncertainty.widths

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON-ready content of the file: the whole recipe, and what else is known."""
        return self.model_dump(mode="json", exclude_unset=True) | {"recipe": self.recipe.model_dump(mode="json")}


class WeightsInfo(WeightsDescription):
    """The content of `weights.json`.

    Args:
        sha256: of the weights' file; the other arguments are those of `WeightsDescription`.
        ood_sha256: of the file with the OOD detector; None without one.
    """

    sha256: Sha256
    ood_sha256: Sha256 | None = None

    @property
    def identity(self) -> list[Any]:
        """The entries on which a reconstruction depends, JSON-ready."""
        return [self.sha256, self.ood_sha256, self.uncertainty and self.uncertainty.model_dump(exclude_unset=True)]
