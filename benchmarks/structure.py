"""The structure of Raylift's source in numbers, of several checkouts side by side; or the words that it should not use.

    python benchmarks/structure.py . ../raylift-before
    python benchmarks/structure.py --words .

Rooms are the packages and loose modules of `src/raylift`. An import runs against the stream where two rooms import
each other, and it is of the rarer direction. With --words, names in the code and words of the prose are looked for that
only this project ever used where the field has its own; exit code 1 where one is left.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from raylift.cli.console import print_table

FREE = {"__init__", "__main__", "errors", "about"}  # modules that belong in no room
# Word → the field's. Names are parts of identifiers; prose is looked for in sentences too.
NAMES = {
    "made": "result",
    "found": "matches",
    "told": "declared",
    "said": "predicted",
    "taken": "parsed",
    "hung": "oriented",
    "hanging": "orientation",
    "familiar": "in distribution",
    "familiarise": "fit_ood_detector",
    "strangeness": "ood_score",
    "doubt": "uncertainty",
    "arcs": "angular weights",
    "crew": "supervisor",
    "bulk": "cases",
    "painting": "implicit shapes",
    "canvas": "implicit shapes",
    "apart": "per-sample parallel",
    "passes": "iterations",
    "engines": "executors",
    "shadow": "projection",
    "places": "storage",
    "unit": "geometry, or normalised",
}
PROSE = {
    "hung": "oriented",
    "hanging": "orientation",
    "familiarity": "out-of-distribution detector",
    "familiarise": "fit the out-of-distribution detector",
    "strangeness": "out-of-distribution score",
    "doubt": "uncertainty",
    "begin-with": "init-from",
    "begin_with": "init_from",
    "kept_copy": "cached_copy",
    "add_up": "forward_project",
}
# Of libraries, of the standard one, and of mathematics.
OTHERS = {
    "FileNotFoundError", "PackageNotFoundError", "NOT_FOUND_ERRORS", "connection_made", "unit", "unit_length",
    "ResidualUnit", "num_res_units",
}  # fmt: skip
EARLIER = "earlier_names.py"  # where files of before are read


def modules(checkout: Path) -> dict[str, ast.Module]:
    """Return the syntax of each module of a checkout, by its dotted name within the package."""
    root = checkout / "src" / "raylift"
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): ast.parse(path.read_text())
        for path in sorted(root.rglob("*.py"))
    }


def imports(trees: dict[str, ast.Module]) -> Iterator[tuple[str, str]]:
    """Yield (importing module, imported module) for each import from the package, wherever it stands in a module."""
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("raylift."):
                target = (node.module or "").removeprefix("raylift.")
                for alias in node.names:
                    inner = f"{target}.{alias.name}"
                    known = inner if inner in trees else target if target in trees else f"{target}.__init__"
                    yield name, known


def circles(pairs: set[tuple[str, str]]) -> int:
    """Return how many modules import each other in a circle."""
    names = sorted({name for pair in pairs for name in pair})
    index = {name: k for k, name in enumerate(names)}
    rows, columns = zip(*((index[a], index[b]) for a, b in pairs), strict=True)
    graph = csr_array(([1] * len(rows), (rows, columns)), shape=(len(names),) * 2)
    _, labels = connected_components(graph, connection="strong")
    return sum(count for count in Counter(labels.tolist()).values() if count > 1)


def functions(trees: dict[str, ast.Module]) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield each function with its module."""
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield name, node


def public(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """Yield a module's public classes, functions and constants."""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names = [node.name]
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
        else:
            continue
        for name in names:
            if not name.startswith("_"):
                yield name, node


def undocumented(tree: ast.Module) -> int:
    """Return how many of a module's public classes, functions and methods have no docstring."""
    count = 0
    for _, node in public(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            count += ast.get_docstring(node) is None
        if isinstance(node, ast.ClassDef):
            methods = (one for one in node.body if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)))
            count += sum(not one.name.startswith("_") and ast.get_docstring(one) is None for one in methods)
    return count


def measure(checkout: Path) -> dict[str, object]:
    """Return the numbers of a checkout, by what they count."""
    trees = modules(checkout)
    source = [path.read_text() for path in sorted((checkout / "src" / "raylift").rglob("*.py"))]
    all_imports = list(imports(trees))
    rooms = Counter((a.split(".")[0], b.split(".")[0]) for a, b in all_imports)
    against = sum(
        min(count, rooms[other, room]) for (room, other), count in rooms.items() if room < other and rooms[other, room]
    )
    where = defaultdict(set)
    for module, tree in trees.items():
        for name, node in public(tree):
            if not (isinstance(node, ast.Assign) and module.endswith("__init__")):
                where[name].add(module)
    loose = [name for name in trees if "." not in name and name not in FREE]
    longest = max(functions(trees), key=lambda one: (one[1].end_lineno or 0) - one[1].lineno)
    length = (longest[1].end_lineno or 0) - longest[1].lineno + 1
    return {
        "rooms": len({name.split(".")[0] for name in trees if "." in name}),
        "loose modules": len(loose),
        "modules in a circle of imports": circles(set(all_imports)),
        "imports against the stream": against,
        "lines with dict[str, Any]": sum(
            line.count("dict[str, Any]") > 0 for text in source for line in text.split("\n")
        ),
        "public names in two files or more": sum(len(modules_of) > 1 for modules_of in where.values()),
        "lines": sum(text.count("\n") for text in source),
        "files": len(source),
        "longest file, lines": max(text.count("\n") for text in source),
        "longest function, lines": f"{length} ({longest[0]}.{longest[1].name})",
        "public names without docstring": sum(undocumented(tree) for tree in trees.values()),
    }


def old_words(checkout: Path) -> Iterator[str]:
    """Yield file, line and word of each name in the code and each word of the prose that has a word of the field's."""
    for path in sorted((checkout / "src").rglob("*.py")):
        if path.name == EARLIER:
            continue
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
            if token.type == tokenize.NAME and token.string not in OTHERS:
                parts = re.sub("([a-z])([A-Z])", r"\1_\2", token.string).lower().split("_")
                for part in set(parts) & NAMES.keys():
                    yield f"{path.relative_to(checkout)}:{token.start[0]}: {token.string}: {NAMES[part]}"
    prose = [checkout / "README.md", *(checkout / "docs").glob("*.md")]
    prose += [path for folder in ("web", "slicer") for path in (checkout / folder).rglob("*") if _is_text(path)]
    pattern = re.compile(rf"\b({'|'.join(PROSE)})\b", re.IGNORECASE)
    for path in [*prose, *(checkout / "src").rglob("*.py")]:
        if path.name in (EARLIER, "commands.md"):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for word in pattern.findall(line):
                yield f"{path.relative_to(checkout)}:{number}: {word}: {PROSE[word.lower()]}"


def _is_text(path: Path) -> bool:
    return path.suffix in {".py", ".js", ".html", ".css", ".md"} and "node_modules" not in path.parts


def main() -> None:
    """Print the table, or the words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path, nargs="+")
    parser.add_argument("--words", action="store_true", help="look for words instead")
    options = parser.parse_args()
    checkouts = [checkout.resolve() for checkout in options.checkouts]
    if options.words:
        left = [line for checkout in checkouts for line in old_words(checkout)]
        print("\n".join(left) or "no such word is left")
        sys.exit(bool(left))
    numbers = {checkout.name: measure(checkout) for checkout in checkouts}
    print_table([{"": what, **{name: f"{of[what]}" for name, of in numbers.items()}} for what in measure(checkouts[0])])


if __name__ == "__main__":
    main()
