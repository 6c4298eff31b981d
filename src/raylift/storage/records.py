"""Records in files that a stranger may have written: read as far as they are plausible, refused in one line otherwise.

JSON and YAML of bounded size and depth, each key once, without NaN or infinity, from regular files.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from raylift.storage.paths import StoragePath, read_bytes

MOST_BYTES = 64 * 2**20
DEEPEST = 40  # lists and objects in one another
LONGEST_NUMBER = 400  # digits; those of the largest float64 are 309
Record = TypeVar("Record", bound="Typed")


def plain_name(name: str) -> str:
    """Return the name of a file in its folder. Raises ValueError for a path, and for names that some systems lack."""
    if (
        not 0 < len(name.encode(errors="replace")) <= 255
        or not name.isprintable()
        or name in (".", "..")
        or PurePosixPath(name).name != name
        or PureWindowsPath(name).name != name
    ):
        raise ValueError(f"{name[:60]!r} is no plain name of a file")
    return name


PlainName = Annotated[str, AfterValidator(plain_name)]
Millimetres = Annotated[float, Field(ge=-1e5, le=1e5)]  # of a position in the world
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Typed(BaseModel):
    """A record: values are of their type, numbers are finite. Keys of later versions are let through."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, strict=True)


def read_record(path: StoragePath, kind: type[Record], most_bytes: int = MOST_BYTES) -> Record:
    """Read JSON as a typed record.

    Raises:
        OSError: the file is missing, or cannot be read.
        ValueError: it is no such record; the message says where and why, in one line.
        Unreachable: the store does not answer.
    """
    return parse_record(read_json(path, most_bytes), kind)


def parse_record(data: object, kind: type[Record]) -> Record:
    """Check plain data as a typed record. Raises ValueError with one line that says where and why it is none."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(": ".join(filter(None, [place[:100], message[:200]]))) from None


def read_json(path: StoragePath, most_bytes: int = MOST_BYTES) -> Any:
    """Read JSON. Raises as `read_record` does."""
    return parse_json(_text(path, most_bytes))


def parse_json(text: str) -> Any:
    """Parse JSON. Raises ValueError."""
    try:
        return json.loads(
            text, parse_constant=_no_number, parse_int=_whole, parse_float=_finite, object_pairs_hook=_once
        )
    except RecursionError:
        raise ValueError("lists and objects stand in one another too deeply") from None


def parse_yaml(text: str) -> Any:
    """Read YAML. Raises ValueError, of which yaml.YAMLError is made one too, where it is none, or not plausible."""
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0]) from None


def read_yaml(path: Path, most_bytes: int = MOST_BYTES) -> Any:
    """Read YAML of a file. Raises OSError or ValueError."""
    return parse_yaml(_text(path, most_bytes))


def inside(folder: Path, name: str) -> Path:
    """Return the regular file of a plain name in a folder, which a link does not lead out of. Raises ValueError."""
    path = folder / plain_name(name)
    if not os.path.realpath(path).startswith(os.path.join(os.path.realpath(folder), "")):
        raise ValueError(f"{name} leads out of its folder")
    if not path.is_file():
        raise ValueError(f"{name} is missing, or no regular file")
    return path


def _text(path: StoragePath, most_bytes: int) -> str:
    try:
        return read_bytes(path, most_bytes).decode()
    except UnicodeDecodeError:
        raise ValueError("no text") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _whole(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError("a number is too long")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


class _Loader(yaml.SafeLoader):
    """YAML without aliases, of bounded depth, with each key once."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not understood")
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError("lists and blocks stand in one another too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            raise yaml.YAMLError("a key stands there twice")
        return found

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > LONGEST_NUMBER:
            raise yaml.YAMLError("a number is too long")
        return int(super().construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
