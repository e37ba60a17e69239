"""Looks: parameters under a name, shipped or the user's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nightisp import looks
from nightisp.errors import ParamsError
from nightisp.params import load, validate
from nightisp.pipeline import NAMES
from tests.frames import write_frame
from tests.terminal import Terminal, render


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", looks.paths([]))
def test_shipped_looks_are_good_and_change_something(name: str) -> None:
    look = looks.read(name, [])
    assert 20 < len(look.description) < 110
    assert validate(look.tree, name) != validate({}, "defaults")


def test_ones_own_look_comes_before_a_shipped_one(tmp_path: Path) -> None:
    write(tmp_path / "a", "street", "tone: {gamma: 2.1}\n")
    write(tmp_path / "b", "street", "tone: {gamma: 2.2}\n")
    mine = write(tmp_path / "b", "Köln 2", "description: At the river.\ntone: {gamma: 2.3}\n")
    folders = [tmp_path / "none", tmp_path / "a", tmp_path / "b"]
    assert looks.read("street", folders).tree == {"tone": {"gamma": 2.1}}
    assert looks.read("Köln 2", folders).path == mine
    assert set(looks.paths(folders)) == {*looks.paths([]), "Köln 2"}


def test_order_of_precedence(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("tone: {gamma: 2.0, exposure_ev: 1}\ncolor: {strength: 0.5}\n")
    tree = load(params, ["tone.gamma=2.9"], {"tone": {"gamma": 2.5, "exposure_ev": 2}})
    chosen = validate(tree, "test")
    assert (chosen["tone"].gamma, chosen["tone"].exposure_ev, chosen["color"].strength) == (2.9, 2, 0.5)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["strete", "../street", "/street", "a/street", "", ".street", "street.yaml"])
def test_what_is_no_look(name: str, tmp_path: Path) -> None:
    write(tmp_path / "a", "mine", "tone: {}\n")
    with pytest.raises(ParamsError, match=r"no such look; there are documentary, mine, moonlight, stars, street"):
        looks.read(name, [tmp_path / "a"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tone: {gama: 2}\n", "mine.yaml: tone.gama: no such parameter"),
        ("tine: {}\n", "mine.yaml: tine: no such stage"),
        ("tone: {gamma: 99}\n", "mine.yaml: tone.gamma: 99"),
        ("description: [1]\n", "mine.yaml: description"),
        ("- 1\n", "mine.yaml"),
        ("tone: !!python/object/apply:os.getcwd []\n", "mine.yaml"),
    ],
)
def test_a_look_that_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    write(tmp_path, "mine", text)
    with pytest.raises(ParamsError) as raised:
        looks.read("mine", [tmp_path])
    assert said in str(raised.value)


def test_a_look_reruns_what_it_changes_and_a_sidecar_comes_before_it(nightisp: Terminal, tmp_path: Path) -> None:
    for number, name in enumerate(("one", "two")):
        write_frame(tmp_path / "data" / f"{name}.dng", number)
    (tmp_path / "data" / "two.nightisp.yaml").write_text("tone: {gamma: 2.2}\n")
    write(tmp_path / "looks", "soft", "tone: {gamma: 3.5}\n")
    render(nightisp)
    report = render(nightisp, "--look", "soft")
    one, two = report["frames"]
    assert [s for s, did in one["stages"].items() if did == "computed"] == list(NAMES[NAMES.index("tone") :])
    assert set(two["stages"].values()) == {"cached"}
    assert "Did you mean soft" in nightisp("flow", "run", "--look", "sofd", status=2).err


def test_looks_beside_the_params_file_come_first(nightisp: Terminal, tmp_path: Path) -> None:
    write(tmp_path / "looks", "street", "tone: {gamma: 2.1}\n")
    params = tmp_path / "night" / "mine.yaml"
    params.parent.mkdir()
    params.write_text("tone: {exposure_ev: 1}\n")
    write(tmp_path / "night" / "looks", "street", "tone: {gamma: 2.4}\n")
    shown = nightisp("params", "show", "--params", params, "--look", "street", "--changed").out
    assert shown.split() == ["tone:", "exposure_ev:", "1.0", "gamma:", "2.4"]
    assert "gamma: 2.1" in nightisp("params", "show", "--look", "street", "--changed").out
    assert "tone.gamma=2.4" in nightisp("params", "looks", "--params", params).out


def test_a_look_that_does_not_go_with_the_params_is_named(nightisp: Terminal, tmp_path: Path) -> None:
    """Each is good for itself: the params ask for 16 bits, the look for a JPEG."""
    (tmp_path / "mine.yaml").write_text("export: {format: png, bit_depth: 16}\n")
    write(tmp_path / "looks", "small", "export: {format: jpeg}\n")
    said = nightisp("params", "check", "--params", "mine.yaml", "--look", "small", status=2).err
    assert "small.yaml: export: jpeg holds 8 bits" in said
    nightisp("params", "check", "--look", "small", "--set", "export.bit_depth=8")


def test_a_dry_run_and_a_folder_that_is_watched_take_a_look(nightisp: Terminal, tmp_path: Path) -> None:
    write_frame(tmp_path / "data" / "one.dng", 1)
    write(tmp_path / "looks", "soft", "tone: {gamma: 3.5}\n")
    render(nightisp)
    told = json.loads(nightisp("flow", "run", "--look", "soft", "--dry-run", "--json").out)["stages"]
    assert [row["stage"] for row in told if row["would"] == "compute"] == list(NAMES[NAMES.index("tone") :])
    assert next(row["why"] for row in told if row["stage"] == "tone") == "tone.gamma: 3.2 -> 3.5"
    assert "Did you mean soft" in nightisp("flow", "watch", "data", "--look", "sofd", status=2).err


def test_looks_are_listed(nightisp: Terminal, tmp_path: Path) -> None:
    write(tmp_path / "looks", "mine", "description: For tests.\ntone: {gamma: 2.3}\ncolor:\n")
    lines = nightisp("params", "looks").out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("mine "))
    assert lines[at].split(maxsplit=1)[1] == "For tests."
    assert lines[at + 1].strip() == "tone.gamma=2.3"
    listed = [json.loads(line) for line in nightisp("params", "looks", "--json").out.splitlines()]
    assert [look["look"] for look in listed] == ["documentary", "mine", "moonlight", "stars", "street"]
    assert "gamma: 2.3" in nightisp("params", "show", "--look", "mine", "--changed").out
