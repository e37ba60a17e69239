"""The command line as tests call it: in this process, in an empty folder."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from nightisp import cli

PROGRAM = [sys.executable, "-c", "from nightisp.__main__ import program; program()"]
"""The command line as a process of its own."""


@dataclass
class Done:
    status: int
    out: str
    err: str


class Terminal:
    """Calls the command line in this process, in an empty folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object, status: int = 0) -> Done:
        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "argv", ["nightisp", *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        out, err = self._capsys.readouterr()
        assert leaving.value.code == status, f"{out}\n{err}"
        assert "Traceback" not in err
        return Done(status, out, err)


def render(nightisp: Terminal, *arguments: object, status: int = 0) -> dict[str, Any]:
    done = nightisp("flow", "run", "--engine", "local", "--json", *arguments, status=status)
    report: dict[str, Any] = json.loads(done.out)
    return report
