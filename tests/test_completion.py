"""Shell completion, by its protocol, without a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nightisp.pipeline import NAMES, PIPELINE
from tests.frames import write_frame
from tests.terminal import Terminal, render

REPOSITORY = Path(__file__).parents[1]
Offered = Callable[[str], list[str]]
CODE = "import sys; sys.argv = ['nightisp']; from nightisp.__main__ import program; program()"


@pytest.fixture
def offered(nightisp: Terminal, monkeypatch: pytest.MonkeyPatch) -> Offered:
    """Return the words that bash is offered for the last word of a line."""

    def complete(line: str) -> list[str]:
        words = line.split(" ")
        with monkeypatch.context() as asked:
            asked.setenv("_NIGHTISP_COMPLETE", "complete_bash")
            asked.setenv("COMP_WORDS", line)
            asked.setenv("COMP_CWORD", str(len(words) - 1))
            return nightisp().out.split()

    return complete


def test_looks_of_the_project_and_shipped_ones(offered: Offered, tmp_path: Path) -> None:
    (tmp_path / "looks").mkdir()
    (tmp_path / "looks" / "starboard.yaml").write_text("tone: {gamma: 2.2}\n")
    assert offered("nightisp flow run --look sta") == ["starboard", "stars"]
    assert offered("nightisp params show --look zzz") == []


def test_stages(offered: Offered) -> None:
    assert offered("nightisp flow run --until ") == list(NAMES)
    assert offered("nightisp stage run de") == ["denoise", "demosaic"]
    assert offered("nightisp cache show --stage exp") == ["export"]
    assert offered("nightisp train ") == ["denoise", "white_balance", "refine", "super_resolution", "draft"]
    assert offered("nightisp weights import ") == ["denoise", "white_balance", "refine", "super_resolution"]


def test_parameters_and_their_values(offered: Offered) -> None:
    assert offered("nightisp flow run --set tone.ga") == ["tone.gamma="]
    assert "white_balance.method=" in offered("nightisp compare --set white_")
    assert {"export.format=jpeg", "export.format=png"} <= set(offered("nightisp flow run --set export.format="))
    assert offered("nightisp flow run --set refine.binned=t") == ["refine.binned=true"]


def test_frames_of_the_input_and_of_the_store(offered: Offered, nightisp: Terminal, tmp_path: Path) -> None:
    write_frame(tmp_path / "raws" / "harbor.dng", 1)
    write_frame(tmp_path / "raws" / "street.dng", 2)
    (tmp_path / "raws" / "street.nightisp.yaml").write_text("")
    assert offered("nightisp flow run --input raws --frames ") == ["harbor", "street"]
    assert offered("nightisp flow run --input nowhere --frames ") == []
    assert offered("nightisp cache show ") == []
    render(nightisp, "--input", "raws", "--until", "ingest", "--frames", "street", "--store", "kept")
    assert offered("nightisp cache show --store kept ") == ["street"]
    assert offered("nightisp report --store kept s") == ["street"]


def test_zsh_is_told_what_a_parameter_means(nightisp: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_NIGHTISP_COMPLETE", "complete_zsh")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "nightisp flow run --set tone.gam")
    told = nightisp().out
    assert "tone.gamma=" in told
    assert PIPELINE[NAMES.index("tone")].params.model_fields["gamma"].description in told.replace("\\", "")


@pytest.mark.parametrize("line", ["flow run --set tone.g", "flow run --look s", "flow run --until t", "cache show "])
def test_nobody_waits_for_what_is_heavy(line: str, tmp_path: Path) -> None:
    words = f"nightisp {line}"
    environment = os.environ | {
        "_NIGHTISP_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "PYTHONPATH": str(REPOSITORY),
    }
    code = (
        "import atexit, sys; atexit.register(lambda: print([n for n in ('torch', 'prefect', 'zarr', 'cv2', 'rawpy')"
        f" if n in sys.modules], file=sys.stderr)); {CODE}"
    )
    begun = os.times().children_user
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"
    assert os.times().children_user - begun < 1.5  # 0.3 s where nobody else computes; a broken one takes 3


def test_completion_installs_itself(tmp_path: Path) -> None:
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY), "SHELL": "/bin/bash"}
    code = CODE.replace("['nightisp']", "['nightisp', '--install-completion', 'bash']")
    subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert "_NIGHTISP_COMPLETE=complete_bash" in (tmp_path / ".bash_completions" / "nightisp.sh").read_text()
    assert "nightisp.sh" in (tmp_path / ".bashrc").read_text()
