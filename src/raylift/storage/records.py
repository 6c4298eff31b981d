"""Read records from files that anybody may have written, and refuse implausible ones with an error of one line.

JSON and YAML must be of bounded size and depth, in regular files, with unique keys, and without NaN or infinity.
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
DEEPEST = 40  # levels of nested lists and objects
LONGEST_NUMBER = 400  # digits; the largest float64 has 309
Record = TypeVar("Record", bound="Typed")


def plain_name(name: str) -> str:
    """Return a file name after checking that it has no folder part and that every system accepts it.

    Raises:
        ValueError: it is a path, or a name that some systems do not allow.
    """
    if (
        not 0 < len(name.encode(errors="replace")) <= 255
        or not name.isprintable()
        or name in (".", "..")
        or PurePosixPath(name).name != name
        or PureWindowsPath(name).name != name
    ):
        raise ValueError(f"{name[:60]!r} is no plain file name")
    return name


PlainName = Annotated[str, AfterValidator(plain_name)]
Millimetres = Annotated[float, Field(ge=-1e5, le=1e5)]  # a coordinate in the world
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Typed(BaseModel):
    """A record whose values have their declared types and whose numbers are finite; unknown keys are kept."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, strict=True)


def read_record(path: StoragePath, kind: type[Record], most_bytes: int = MOST_BYTES) -> Record:
    """Read a typed record from a JSON file.

    Raises, through `read_bytes` and `parse_record`, OSError where the file is missing or cannot be read, Unreachable
    where a store does not answer, and ValueError, whose one line says where and why, where it holds no such record.

    Args:
        path: the file.
        kind: the class of the record.
        most_bytes: the size that the file may have.

    Returns:
        The record.
    """
    return parse_record(read_json(path, most_bytes), kind)


def parse_record(data: object, kind: type[Record]) -> Record:
    """Return parsed JSON or YAML as a typed record.

    Raises:
        ValueError: the data is no such record; the message's one line says where and why.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(": ".join(filter(None, [location[:100], message[:200]]))) from None


def read_json(path: StoragePath, most_bytes: int = MOST_BYTES) -> Any:
    """Read a JSON file. Raises the same as `read_record`.

    Returns:
        The value: dictionaries, lists, strings, numbers, booleans and None.
    """
    return parse_json(_text(path, most_bytes))


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: the text is no JSON, repeats a key, has a number that is too long or not finite, or is nested too
            deeply.
    """
    try:
        return json.loads(
            text, parse_constant=_refuse, parse_int=_integer, parse_float=_finite, object_pairs_hook=_unique_keys
        )
    except RecursionError:
        raise ValueError("lists and objects are nested too deeply") from None


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        ValueError: the text is no YAML, repeats a key, has an alias or a number that is too long, or is nested too
            deeply.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0]) from None


def read_yaml(path: Path, most_bytes: int = MOST_BYTES) -> Any:
    """Read a YAML file. Raises OSError or ValueError, through `read_bytes` and `parse_yaml`.

    Returns:
        The value, as `read_json` returns it.
    """
    return parse_yaml(_text(path, most_bytes))


def file_inside(folder: Path, name: str) -> Path:
    """Return the path of a regular file that lies in a folder.

    Args:
        folder: the folder.
        name: the file's plain name.

    Raises:
        ValueError: the name is not plain, a symbolic link leads out of the folder, or there is no regular file.
    """
    path = folder / plain_name(name)
    if not os.path.realpath(path).startswith(os.path.join(os.path.realpath(folder), "")):
        raise ValueError(f"{name} leads out of its folder")
    if not path.is_file():
        raise ValueError(f"{name} is missing or not a regular file")
    return path


def _text(path: StoragePath, most_bytes: int) -> str:
    """Return the text of a file in UTF-8.

    Raises:
        ValueError: the file is longer than `most_bytes`, or no text.
    """
    try:
        return read_bytes(path, most_bytes).decode()
    except UnicodeDecodeError:
        raise ValueError("not a text file in UTF-8") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key occurs twice")
    return values


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _integer(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError("a number is too long")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


class _Loader(yaml.SafeLoader):
    """A loader of YAML without aliases, of bounded depth, with unique keys."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not supported")
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError("lists and blocks are nested too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        values = super().construct_mapping(node, deep)
        if len(values) < len(node.value):
            raise yaml.YAMLError("a key occurs twice")
        return values

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > LONGEST_NUMBER:
            raise yaml.YAMLError("a number is too long")
        return int(super().construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
