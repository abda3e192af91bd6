"""The shape of the tree: what may import what, how long things may be, what they may be called."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = sorted(
    path
    for folder in ("reconciler", "tests", "proto")
    for path in (ROOT / folder).rglob("*.py")
    if "_pb" not in path.parts
)
PRODUCT = [path for path in PYTHON if "tests" not in path.relative_to(ROOT).parts]

FILE_LINES = 300
FUNCTION_LINES = 40
NOT_NAMES = {
    "manager",
    "handler",
    "helper",
    "utils",
    "common",
    "base",
    "service",
    "data",
    "info",
    "process",
    "misc",
}
BARE = re.compile(r"# (noqa(: [A-Z]+\d+(, ?[A-Z]+\d+)*)?|type: ignore(\[[a-z-]+(, ?[a-z-]+)*\])?)\s*$")


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    first = function.body[0]
    docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    skipped = (first.end_lineno or 0) - first.lineno + 1 if docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - skipped


def test_imports_point_downwards():
    tool = Path(sys.executable).with_name("lint-imports")

    checked = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout


def test_the_import_contracts_can_be_broken(tmp_path: Path):
    """A contract that names a module which does not exist, or a typo in the layers, would hold for ever."""
    copy = tmp_path / "tree"
    subprocess.run(["cp", "-r", ROOT / "reconciler", ROOT / "pyproject.toml", copy.parent], check=True)
    (tmp_path / "reconciler" / "plan" / "pace.py").write_text(
        "import asyncio\nimport reconciler.loop.cycle\n"
    )

    tool = Path(sys.executable).with_name("lint-imports")
    checked = subprocess.run(
        [tool, "--no-cache", "--config", tmp_path / "pyproject.toml"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 1, checked.stdout
    assert "reads downwards BROKEN" in checked.stdout
    assert "touch nothing BROKEN" in checked.stdout


def test_files_and_functions_can_be_taken_in_at_a_glance():
    """A test may be as long as what it tells; the product may not."""
    long_files = [f"{path}" for path in PRODUCT if len(path.read_text().splitlines()) > FILE_LINES]
    long_functions = [
        f"{path}: {function.name}"
        for path in PRODUCT
        for function in functions(path)
        if body_lines(function) > FUNCTION_LINES
    ]

    assert long_files == []
    assert long_functions == []


def test_names_say_something():
    def words(name: str) -> set[str]:
        return set(re.findall(r"[a-z]+|[A-Z][a-z]+", name)) | set(name.lower().split("_"))

    named = [(path, path.stem) for path in PRODUCT]
    for path in PRODUCT:
        tree = ast.walk(ast.parse(path.read_text()))
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        named += [(path, node.name) for node in tree if isinstance(node, kinds)]

    empty = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, name in named
        if name.lower() in NOT_NAMES or (words(name.lower()) & NOT_NAMES and name[0].isupper())
    ]
    assert empty == []


def test_every_suppression_has_its_reason():
    bare = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in PYTHON
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(
            r"# (noqa(: [A-Z]+\d+(, ?[A-Z]+\d+)*)?|type: ignore(\[[a-z-]+(, ?[a-z-]+)*\])?)\s*$", line
        )
    ]

    assert bare == []


def test_the_pins_name_no_index():
    pins = (ROOT / ".constraints.txt").read_text().split()

    assert pins
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", pin) for pin in pins)
