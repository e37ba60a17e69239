"""The digest of the code behind a stage: what changes it, what does not, what stands behind what."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightisp import code
from nightisp.pipeline import PIPELINE

REPOSITORY = Path(__file__).parents[1]
STAGE = "nightisp.stages.glow"

FILES = {
    "nightisp/__init__.py": "",
    "nightisp/deep.py": "STEPS = 3\n",
    "nightisp/middle.py": "from nightisp.deep import STEPS\n\ndef twice():\n    return 2 * STEPS\n",
    "nightisp/hints.py": "class Hint:\n    pass\n",
    "nightisp/late.py": "LATE = 1\n",
    "nightisp/unused.py": "UNUSED = 1\n",
    "nightisp/stages/__init__.py": "from nightisp.stages import glow\n",
    "nightisp/stages/glow.py": '''"""Make lamps glow."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nightisp import middle

if TYPE_CHECKING:
    from nightisp.hints import Hint


def glow(x: Hint) -> float:
    """Return x, glowing."""
    # brighter
    from nightisp.late import LATE

    return math.sqrt(x) * middle.twice() + LATE
''',
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of our name with one stage: it imports a module that imports another."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    for function in (code.digest, code.modules_behind, code._read):
        function.cache_clear()


def digest_after(package: Path, name: str, old: str, new: str) -> str:
    path = package / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    forget()
    return code.digest(STAGE)


def test_modules_behind(package: Path) -> None:
    """Also those imported within a function; not those for type checkers, nor what merely lies there."""
    assert code.modules_behind(STAGE) == (
        "nightisp.deep",
        "nightisp.late",
        "nightisp.middle",
        "nightisp.stages.glow",
    )


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("stages/glow.py", '"""Make lamps glow."""', '"""Another description."""'),
        ("stages/glow.py", '    """Return x, glowing."""\n', ""),
        ("stages/glow.py", "    # brighter\n", "    # darker\n\n\n"),
        ("stages/glow.py", "math.sqrt(x) * middle.twice() + LATE", "(\n        math.sqrt(x)*middle.twice()  +LATE)"),
        ("deep.py", "STEPS = 3", "# how many\nSTEPS = 3"),
        ("hints.py", "pass", "length: int = 3"),
        ("unused.py", "UNUSED = 1", "UNUSED = 2"),
        ("__init__.py", "", "__version__ = '2'\n"),
        ("stages/__init__.py", "glow", "glow as g"),
    ],
)
def test_what_leaves_the_digest(package: Path, name: str, old: str, new: str) -> None:
    before = code.digest(STAGE)
    assert digest_after(package, f"nightisp/{name}", old, new) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("stages/glow.py", "math.sqrt(x)", "math.cbrt(x)"),
        ("stages/glow.py", "middle.twice() + LATE", "middle.twice() - LATE"),
        ("stages/glow.py", "x: Hint", "y: Hint"),
        ("middle.py", "2 *", "2.0 *"),
        ("middle.py", "2 *", "True *"),
        ("deep.py", "STEPS = 3", "STEPS = 4"),  # two imports away
        ("deep.py", "STEPS = 3", "STEPS = None"),
        ("deep.py", "STEPS = 3", "STEPS = '3'"),
        ("late.py", "1", "2"),
    ],
)
def test_what_changes_the_digest(package: Path, name: str, old: str, new: str) -> None:
    before = code.digest(STAGE)
    assert digest_after(package, f"nightisp/{name}", old, new) != before


def test_every_constant_is_another(package: Path) -> None:
    """Those that Python holds for equal, or for nothing, too."""
    digests = []
    for value in ("0", "0.0", "-0.0", "False", "''", "b''", "None", "()", "[]", "{}", "1", "1.0", "True", "..."):
        (package / "nightisp/deep.py").write_text(f"STEPS = {value}\n")
        forget()
        digests.append(code.digest(STAGE))
    assert len(set(digests)) == len(digests)


def test_a_module_that_changes_places_with_another_changes_the_digest(package: Path) -> None:
    before = code.digest(STAGE)
    (package / "nightisp/deeper.py").write_text(FILES["nightisp/deep.py"])
    assert digest_after(package, "nightisp/middle.py", "nightisp.deep", "nightisp.deeper") != before


def behind(stage: str) -> set[str]:
    return {name.removeprefix("nightisp.") for name in code.modules_behind(f"nightisp.stages.{stage}")}


def test_what_stands_behind_the_stages() -> None:
    assert "stages.demosaic" not in behind("tone")
    assert not {name for name in behind("tone") if name.startswith("models")}
    assert not {name for name in behind("denoise") if "hat" in name or "fc4" in name or "mwispnet" in name}
    assert {"models.hat", "models.tiling", "models.attention"} <= behind("super_resolution")
    assert {"models.denoise_unet", "models.tiling", "bayer"} <= behind("denoise")
    assert {"models.fc4", "bayer", "colorimetry"} <= behind("white_balance")
    assert {"models.mwispnet", "orientation"} <= behind("refine")


@pytest.mark.parametrize("stage", PIPELINE, ids=lambda stage: stage.name)
def test_stages_stand_on_themselves_and_on_what_is_below(stage) -> None:  # type: ignore[no-untyped-def]
    modules = code.modules_behind(stage.module)
    assert {stage.module, "nightisp.image", "nightisp.stage", "nightisp.errors"} <= set(modules)
    others = {other.module for other in PIPELINE if other is not stage}
    above = {f"nightisp.{name}" for name in ("pipeline", "params", "engine", "store", "code", "run", "batch", "cli")}
    assert not (others | above) & set(modules)


def test_imports_are_written_so_that_they_are_found() -> None:
    """Relative imports and stars would escape the digest."""
    for path in (REPOSITORY / "nightisp").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: line {node.lineno}"
                assert node.names[0].name != "*", f"{path}: line {node.lineno}"


@pytest.mark.parametrize("python", ["python3.11", "python3.12", "python3.13", "python3.14"])
def test_the_same_under_another_python(python: str) -> None:
    """A store is shared by machines whose Python differs."""
    program = shutil.which(python)
    if not program or subprocess.run([program, "-V"], capture_output=True, check=False).returncode:
        pytest.skip(f"{python} is not installed")
    modules = [stage.module for stage in PIPELINE]
    script = f"from nightisp.code import digest\nprint(*map(digest, {modules}))"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    found = subprocess.run([program, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [code.digest(module) for module in modules]
