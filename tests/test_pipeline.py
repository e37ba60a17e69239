"""The table: its order, what `check_table` refuses, the names that the rest of the world may rely on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nightisp import errors
from nightisp.errors import NightispError, ParamsError
from nightisp.image import DisplayImage, LinearImage, Mosaic
from nightisp.pipeline import NAMES, PIPELINE, check_table, index, nearest
from nightisp.stages import STAGES
from nightisp.stages.tone import STAGE as TONE


def test_the_nine_stages_in_order() -> None:
    written = "ingest denoise white_balance demosaic color tone refine super_resolution export"
    assert " ".join(NAMES) == written
    assert PIPELINE[1:-1] == STAGES


def test_states_of_the_picture() -> None:
    assert [stage.gives for stage in PIPELINE[:-1]] == [
        *(Mosaic, Mosaic, Mosaic, LinearImage, LinearImage),
        *(DisplayImage, DisplayImage, DisplayImage),
    ]
    # Tone is the only door to display light.
    assert [s.name for s in STAGES if s.gives is DisplayImage and s.takes is not DisplayImage] == ["tone"]


def test_check_table_takes_the_table_and_its_parts() -> None:
    for table in (PIPELINE, STAGES, PIPELINE[:1], ()):
        check_table(table)


def test_check_table_refuses_a_name_used_twice() -> None:
    with pytest.raises(TypeError, match=r"not unique.*'refine', 'refine'"):
        check_table((PIPELINE[6], PIPELINE[6]))


def test_check_table_refuses_types_that_do_not_chain() -> None:
    with pytest.raises(TypeError, match="refine takes DisplayImage; color gives LinearImage"):
        check_table(tuple(stage for stage in PIPELINE if stage.name != "tone"))
    with pytest.raises(TypeError, match="again takes LinearImage; tone gives DisplayImage"):
        check_table((TONE, replace(TONE, name="again")))


def test_index() -> None:
    assert [index(name) for name in NAMES] == list(range(9))
    with pytest.raises(ParamsError, match=r"demosaik: no such stage; the stages are .*Did you mean demosaic\?"):
        index("demosaik")


def test_nearest() -> None:
    assert nearest("expsure", ["exposure_ev", "gamma"]) == ". Did you mean exposure_ev?"
    assert nearest("xyz", ["exposure_ev", "gamma"]) == ""
    assert nearest("xyz", []) == ""


ERRORS = """
NightispError
    RawFileError
        DecoderError
        UnsupportedSensorError
        RawFileNotFoundError
    ParamsError
    StageError
        ImageShapeError
        ImageTypeError
        NoGroundError
    WeightsError
        WeightsNotFoundError
        WeightsMismatchError
    StoreError
        ArtifactNotFoundError
        ArtifactDamagedError
        StoreVersionError
    OutputError
    ServerError
    RunnerError
    ProjectError
    DeviceError
"""


def drawn(kind: type[NightispError], depth: int = 0) -> list[str]:
    below = [line for child in kind.__subclasses__() for line in drawn(child, depth + 1)]
    return ["    " * depth + kind.__name__, *below]


def test_the_error_tree() -> None:
    assert drawn(NightispError) == ERRORS.strip().splitlines()


def test_the_error_tree_is_the_one_that_is_drawn() -> None:
    """Names, depth, and in brackets what a stranger would catch."""
    picture = (errors.__doc__ or "").partition("NightispError\n")[2].partition("\n\n")[0]
    lines = []
    for line in picture.splitlines():
        name, _, builtin = line.lstrip("│├└─ ").split("  ")[0].partition("(")
        depth = (len(line) - len(line.lstrip("│├└─ "))) // 4
        lines.append("    " * depth + name)
        if builtin:
            caught = __builtins__[builtin.rstrip(")")] if isinstance(__builtins__, dict) else None
            assert caught in getattr(errors, name).__bases__, name
    assert ["NightispError", *lines] == drawn(NightispError)


def test_errors_know_their_facts() -> None:
    error = errors.ImageShapeError("2 x 3", expected="even", actual=(2, 3))
    assert (str(error), error.expected, error.actual) == ("2 x 3", "even", (2, 3))
