"""Geometries, views and grids in records: read and written in the form of their `to_dict`."""

from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

from raylift.geometry import Geometry, View, VolumeGrid


def _geometry(data: object) -> object:
    return Geometry.from_dict(data) if isinstance(data, dict) else data


def _view(data: object) -> object:
    return View.from_dict(data) if isinstance(data, dict) else data


def _grid(data: object) -> object:
    return VolumeGrid.from_dict(data) if isinstance(data, dict) else data


GeometryRecord = Annotated[Geometry, BeforeValidator(_geometry), PlainSerializer(lambda value: value.to_dict())]
ViewRecord = Annotated[View, BeforeValidator(_view), PlainSerializer(lambda value: value.to_dict())]
GridRecord = Annotated[VolumeGrid, BeforeValidator(_grid), PlainSerializer(lambda value: value.to_dict())]
