"""The content of `weights.json` as a typed record."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from raylift.config.earlier_names import modern_weights_info
from raylift.config.recipe import Recipe
from raylift.geometry import Geometry
from raylift.storage.records import Sha256, Typed

MOST_MEMBERS = 64
MOST_CASES = 2_000_000


def _recipe(data: object) -> Recipe:
    """Return the recipe in a record, checked."""
    return Recipe.model_validate(data)


class Normalisation(Typed):
    """How Hounsfield units and line integrals are scaled to the network's range."""

    window_hu: Annotated[list[float], Field(min_length=2, max_length=2)]
    xray_scale: Annotated[float, Field(gt=0)]


class Training(Typed):
    """The cases that weights were trained on."""

    cases: Annotated[list[str], Field(max_length=MOST_CASES)]


class Calibration(Typed):
    """The factor that scales the network's uncertainty to its measured errors."""

    factor: Annotated[float, Field(gt=0, le=1000)] = 1.0


class WeightsInfo(Typed):
    """The content of `weights.json`.

    Args:
        format: 1.
        raylift: version that wrote the file.
        recipe: of the training.
        geometry: X-ray geometry, see `Geometry.to_dict`.
        voxels: edge of the cube in voxels.
        cube_mm: edge of the cube in mm.
        normalisation: of volumes and X-rays.
        training: the cases that the weights were trained on.
        sha256: of the weights' file.
        members: number of networks in the ensemble.
        uncertainty: calibration of the uncertainty.
        ood_sha256: of the file with the OOD detector.
    """

    format: Literal[1]
    raylift: Annotated[str, Field(max_length=100)]
    recipe: Annotated[Recipe, BeforeValidator(_recipe)]
    geometry: dict[str, Any]
    voxels: Annotated[int, Field(ge=8, le=512)]
    cube_mm: Annotated[float, Field(ge=10, le=2000)]
    normalisation: Normalisation
    training: Training
    sha256: Sha256
    members: Annotated[int, Field(ge=1, le=MOST_MEMBERS)] = 1
    uncertainty: Calibration | None = None
    ood_sha256: Sha256 | None = None

    @model_validator(mode="before")
    @classmethod
    def _rename_earlier(cls, data: Any) -> Any:
        """Return the record with names of earlier versions replaced by those of today."""
        return modern_weights_info(data) if isinstance(data, dict) else data

    def model_post_init(self, context: object) -> None:
        """Check the geometry; raises KeyError or ValueError, through `Geometry.from_dict`, where it is malformed."""
        Geometry.from_dict(self.geometry)
