"""What `weights.json` says, as a typed record."""

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
    return Recipe.model_validate(data)


class Normalisation(Typed):
    """How Hounsfield units and line integrals are brought to the network's range."""

    window_hu: Annotated[list[float], Field(min_length=2, max_length=2)]
    xray_scale: Annotated[float, Field(gt=0)]


class Training(Typed):
    """What weights have learned from."""

    cases: Annotated[list[str], Field(max_length=MOST_CASES)]


class Calibration(Typed):
    """What brings the network's own word on its error to what was measured."""

    factor: Annotated[float, Field(gt=0, le=1000)] = 1.0


class WeightsInfo(Typed):
    """The content of `weights.json`.

    Args:
        format: 1.
        raylift: version that wrote it.
        recipe: of the training.
        geometry: X-ray unit, see `Geometry.to_dict`.
        voxels: edge of the cube in voxels.
        cube_mm: edge of the cube in mm.
        normalisation: of volumes and X-rays.
        training: what the weights have learned from.
        sha256: of the weights' file.
        members: networks that answer together.
        uncertainty: calibration of the uncertainty.
        ood_sha256: of the file on what X-rays of the training look like.
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
    def _named_earlier(cls, data: Any) -> Any:
        return modern_weights_info(data) if isinstance(data, dict) else data

    def model_post_init(self, context: object) -> None:
        """Check the geometry. Raises ValueError."""
        Geometry.from_dict(self.geometry)
