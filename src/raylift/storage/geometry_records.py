"""Geometries, views and grids in records: read and written in the form of their `to_dict`."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from raylift.geometry import Geometry, View, VolumeGrid


def _validator(parse: Callable[[Any], object]) -> BeforeValidator:
    """Return a validator that parses a dictionary; other values are left to be refused."""

    def validate(data: object) -> object:
        try:
            return parse(data) if isinstance(data, Mapping) else data
        except KeyError as error:
            raise ValueError(f"{error} is missing") from None
        except TypeError as error:
            raise ValueError(str(error)) from None

    return BeforeValidator(validate)


_serializer = PlainSerializer(lambda value: value.to_dict())
GeometryRecord = Annotated[Geometry, _validator(Geometry.from_dict), _serializer]
ViewRecord = Annotated[View, _validator(View.from_dict), _serializer]
GridRecord = Annotated[VolumeGrid, _validator(VolumeGrid.from_dict), _serializer]
