"""Records are read as far as they are plausible, and refused in one line otherwise; a slice of a siege besides."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raylift.storage.records import Typed, file_inside, parse_json, parse_yaml, plain_name, read_json, read_record
from repository import ROOT


class Point(Typed):
    x: float
    name: str = ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"x": NaN}', "NaN is no number"),
        ('{"x": -Infinity}', "-Infinity is no number"),
        ('{"x": 1e999}', "1e999 is no finite number"),
        ('{"x": 1, "x": 2}', "a key occurs twice"),
        ('{"x": ' + "9" * 5000 + "}", "a number is too long"),
        ("[" * 200_000, "too deeply"),
        ('{"x": "1"}', "x: Input should be a valid number"),
        ('{"x": true}', "x: Input should be a valid number"),
        ("{}", "x: Field required"),
        ("[]", "valid dictionary"),
        ("", "Expecting value"),
    ],
)
def test_json_that_is_no_record(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=words) as raised:
        read_record(tmp_path / "a.json", Point)
    assert len(str(raised.value).splitlines()) == 1


def test_keys_of_later_versions_are_let_through(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x": 2, "later": [1, 2]}')
    read = read_record(tmp_path / "a.json", Point)
    assert (read.x, read.model_dump()["later"]) == (2.0, [1, 2])


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "circle"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.json"
    {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "device": lambda: path.symlink_to("/dev/zero"),
        "circle": lambda: path.symlink_to(path),
    }[kind]()
    with pytest.raises(OSError, match=r"not a regular file|Too many levels"):
        read_json(path)


def test_a_long_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").touch()
    os.truncate(tmp_path / "a.json", 2**40)
    with pytest.raises(ValueError, match="longer than the 64 MB"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [x]\nb: *a\n", "aliases"),
        ("a: 1\na: 2\n", "a key occurs twice"),
        ("[" * 100, "too deeply"),
        ("a: " + "9" * 5000, "a number is too long"),
        ("a: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("a: [", "while parsing"),
    ],
)
def test_yaml_that_is_none(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_yaml(text)


def test_what_is_plain_is_read() -> None:
    assert parse_yaml("a: [1, 2.5, x, true]\nb: {c: 1e-4}\n") == {"a": [1, 2.5, "x", True], "b": {"c": "1e-4"}}
    assert parse_json('{"a": [1, 2.5, "x", true, null]}') == {"a": [1, 2.5, "x", True, None]}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\\b", "a\0", "a\n", "C:a", "a" * 300])
def test_names_that_are_ways(name: str) -> None:
    with pytest.raises(ValueError, match="no plain file name"):
        plain_name(name)


def test_a_file_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("")
    (tmp_path / "b").write_text("")
    (folder / "b").symlink_to(tmp_path / "b")
    (folder / "c").symlink_to(folder / "a")
    assert file_inside(folder, "a") == folder / "a"
    assert file_inside(folder, "c").read_text() == ""
    for name, words in (("b", "leads out of its folder"), ("d", "is missing"), ("..", "no plain file name")):
        with pytest.raises(ValueError, match=words):
            file_inside(folder, name)


def test_a_siege_of_recipes_and_xrays() -> None:
    siege = ROOT / "benchmarks" / "hostile_records.py"
    done = subprocess.run([sys.executable, siege, "recipes", "X-ray sets"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
