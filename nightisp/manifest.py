"""What DVC tracks of a stage: a small file that tells which frame has which key, or why it has none."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nightisp.errors import ProjectError
from nightisp.usage import beside as beside_file
from nightisp.usage import sweep

FOLDER = "manifests"


@dataclass(frozen=True, slots=True)
class Line:
    """One frame after one stage: `key`, or `error` with the stage that failed, which later stages pass on."""

    frame: str
    source: str
    digest: str = ""
    photosites: int = 0
    sidecar: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    key: str | None = None
    error: str | None = None
    stage: str | None = None


def path(root: Path, stage: str) -> Path:
    """Return where the manifest of a stage lies."""
    return root / FOLDER / f"{stage}.jsonl"


def read(file: Path, stage: str) -> list[Line]:
    """Read a manifest.

    Raises
    ------
    ProjectError
        If it is missing or is none.
    """
    try:
        return [Line(**json.loads(line)) for line in file.read_text("utf-8").splitlines()]
    except FileNotFoundError:
        raise ProjectError(f"{file}: no such manifest. Run `nightisp stage run {stage}` or `dvc repro` first") from None
    except (OSError, ValueError, TypeError) as error:
        raise ProjectError(f"{file}: is no manifest ({error}). Make it anew: `nightisp stage run {stage}`") from error


def write(file: Path, lines: Iterable[Line]) -> None:
    """Write a manifest, sorted by frame, in one step.

    Raises
    ------
    ProjectError
        If it cannot be written.
    """
    ordered = sorted(lines, key=lambda line: (line.frame, line.source))
    text = "".join(
        json.dumps({k: v for k, v in asdict(line).items() if v not in (None, "", 0, {})}, ensure_ascii=False) + "\n"
        for line in ordered
    )
    beside = beside_file(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, "utf-8")
        beside.replace(file)
        sweep(file.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise ProjectError(
            f"{file}: cannot be written ({error.strerror or error}). Make room, or make its folder writable"
        ) from error
