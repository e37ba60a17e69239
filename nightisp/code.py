"""A digest of the code behind a stage, so that changed code is a changed key and nobody has to remember a version.

Code is digested as syntax: comments, docstrings, layout and the Python version leave it as it is. It covers the
module and every module of ours that it imports, anywhere in it, in turn.
"""

from __future__ import annotations

import ast
import hashlib
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = "nightisp"
ROOT = Path(__file__).parents[1]

_PARSING = threading.Lock()  # CPython 3.11's parser is not safe in threads: "AST constructor recursion depth mismatch"


@cache
def modules_behind(module: str) -> tuple[str, ...]:
    """Return the names of `module` and of all modules of this package that it stands on, sorted.

    A package's `__init__` counts where it is imported itself, not where one of its modules is.
    """
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo.extend(_read(name)[1])
    return tuple(sorted(seen))


@cache
def digest(module: str) -> str:
    """Return the SHA-256, in hexadecimal, of the syntax of all `modules_behind` a module."""
    total = hashlib.sha256()
    for name in modules_behind(module):
        total.update(name.encode() + b"\0" + _read(name)[0] + b"\0")
    return total.hexdigest()


def file_of(module: str) -> Path:
    """Return the source file of a module of this package."""
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _read(module: str) -> tuple[bytes, tuple[str, ...]]:
    """Return the syntax of a module as bytes, and what it imports of ours."""
    with _PARSING:
        tree = ast.parse(file_of(module).read_bytes())
    return _syntax(tree).encode(), tuple(_imports(tree))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in _walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.module and _is_ours(node.module):
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            existing = [name for name in submodules if file_of(name).is_file()]
            yield from existing
            if len(existing) < len(submodules):
                yield node.module


def _walk(tree: ast.AST) -> Iterator[ast.AST]:
    """Like `ast.walk`, but for expressions, and for imports that only type checkers make."""
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, ast.expr):
            todo.extend(child for child in ast.iter_child_nodes(node) if not _is_typing(child))


def _is_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _is_ours(module: str) -> bool:
    return module == PACKAGE or module.startswith(PACKAGE + ".")


def _syntax(node: object) -> str:
    """Write a tree out without positions, docstrings and empty fields; these differ between Python versions."""
    if isinstance(node, list):
        return "[" + ",".join(map(_syntax, node)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    written = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            value = [s for s in value if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
        if value not in (None, []) and name not in ("kind", "type_ignores", "type_comment"):
            written.append(f"{name}={_syntax(value)}")
    return f"{type(node).__name__}({','.join(written)})"
