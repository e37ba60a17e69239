"""Sidecars: parameters of one picture, in a file beside its raw that may come from anyone."""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from nightisp import sidecar
from nightisp.batch import prepare
from nightisp.errors import ParamsError
from nightisp.pipeline import NAMES
from nightisp.run import open_engine
from tests.frames import nobody, write_frame, write_frames
from tests.terminal import Terminal, render

FROM_TONE = list(NAMES[NAMES.index("tone") :])


def beside(raw: Path, text: str) -> Path:
    path = raw.with_name(f"{raw.stem}.nightisp.yaml")
    path.write_text(text)
    return path


# --- the file ---


def test_that_of_the_file_comes_before_that_of_the_stem(tmp_path: Path) -> None:
    raw = tmp_path / "a.b.dng"
    assert sidecar.read(raw) is None
    stem = beside(raw, "tone:\n  exposure_ev: 1.5\n")
    assert sidecar.read(raw) == sidecar.Sidecar(stem, {"tone": {"exposure_ev": 1.5}})
    whole = tmp_path / "a.b.dng.nightisp.yaml"
    whole.write_text("")
    assert sidecar.read(raw) == sidecar.Sidecar(whole, {})


def test_as_an_editor_on_windows_writes_it(tmp_path: Path) -> None:
    raw = tmp_path / "a.dng"
    beside(raw, "").write_bytes(b"\xef\xbb\xbftone:\r\n  gamma: 2.5\r\n")
    found = sidecar.read(raw)
    assert found
    assert found.tree == {"tone": {"gamma": 2.5}}


BOMB = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]\n" for n in range(12))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tone: [", "cannot be read as YAML"),
        ("- tone", "holds a list; expected stages with their parameters"),
        ("2.8", "holds a float"),
        ("!!python/object:os.system {}", "cannot be read as YAML"),
        ("tone: !!python/object/apply:os.getcwd []", "cannot be read as YAML"),
        ("tone: {gamma: 2}\ntone: {gamma: 3}", "cannot be read as YAML"),
        ("tone: {gamma: 2}\n--- {}", "cannot be read as YAML"),
        ("a: &a {gamma: 2}\ntone: *a", r"line 2: \*a repeats another part; write it out"),
        ("tone: &a [*a]", "repeats another part"),
        (BOMB, "repeats another part"),
        ("[" * 60_000, "nested too deeply"),
        ("- " * 30_000, "nested too deeply"),
        ("{a: " * 15_000, "nested too deeply"),
        ("? " * 30_000, "nested too deeply"),
        ("tone: {gamma: 2021-03-26}", "'2021-03-26' is a date; expected numbers"),
        ("denoise: {weights: !!binary aGF0}", "is a bytes; expected numbers"),
        ("tone: !!set {a, b}", "is a set; expected numbers"),
        ("tone: {1: 2}", "1 is no name; expected"),
        ("tone: {gamma: 1" + "0" * 5000 + "}", "cannot be read as YAML"),
        ("#" * 65_537, "is larger than 64 KiB; leave in it what differs"),
        ("tone: {gamma: \x00}", "cannot be read as YAML"),
    ],
)
def test_what_is_no_sidecar_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = beside(tmp_path / "a.dng", text)
    begun = time.process_time()
    with pytest.raises(ParamsError, match=said) as raised:
        sidecar.read(tmp_path / "a.dng")
    assert str(raised.value).startswith(f"{path}: ")
    assert len(str(raised.value)) < 1000
    assert time.process_time() - begun < 10  # a bomb would take hours, depth minutes


def test_the_largest_is_read(tmp_path: Path) -> None:
    beside(tmp_path / "a.dng", "#" * 65_536)
    assert sidecar.read(tmp_path / "a.dng")


@pytest.mark.parametrize("target", ["elsewhere.yaml", "nowhere.yaml", "a.nightisp.yaml", "/etc/passwd"])
def test_no_link_is_followed(tmp_path: Path, target: str) -> None:
    (tmp_path / "elsewhere.yaml").write_text("tone: {gamma: 2}\n")
    (tmp_path / "a.nightisp.yaml").symlink_to(target)
    with pytest.raises(ParamsError, match=r"a\.nightisp\.yaml: is a link, and none is followed; copy the file"):
        sidecar.read(tmp_path / "a.dng")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.nightisp.yaml")
    with pytest.raises(ParamsError, match=r"a\.nightisp\.yaml: is no file"):
        sidecar.read(tmp_path / "a.dng")
    (tmp_path / "b.nightisp.yaml").mkdir()
    with pytest.raises(ParamsError, match=r"b\.nightisp\.yaml: is a folder"):
        sidecar.read(tmp_path / "b.dng")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    beside(tmp_path / "a.dng", "").write_bytes("tone: {}".encode("utf-16"))
    with pytest.raises(ParamsError, match=r"a\.nightisp\.yaml: is no UTF-8 text"):
        sidecar.read(tmp_path / "a.dng")
    hidden = beside(tmp_path / "b.dng", "tone: {}")
    hidden.chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    with nobody(), pytest.raises(ParamsError, match=r"b\.nightisp\.yaml: cannot be read \(Permission denied\)"):
        sidecar.read(tmp_path / "b.dng")


# --- what it does to a run ---


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tone: {gama: 2}", "tone.gama: no such parameter; tone has exposure_ev, curve, gamma. Did you mean gamma?"),
        ("tine: {gamma: 2}", "tine: no such stage"),
        ("tone: {gamma: 99}", "tone.gamma: 99: input should be"),
        ("tone: 3", "tone: 3 stands where its parameters are expected"),
        ("export: {bit_depth: 16}", "export: jpeg holds 8 bits per sample, not 16"),
        ("tone: [", "cannot be read as YAML"),
        ("denoise: {method: unet, weights: ../../weights/hat}", "'../../weights/hat': is no name of weights"),
        ("denoise: {method: unet, weights: /tmp/hat}", "'/tmp/hat': is no name of weights"),
        ("denoise: {method: unet, weights: 'a\\b'}", "is no name of weights"),
        (f"denoise: {{method: unet, weights: {'x' * 300}}}", "is no name of weights"),
        ("tone: {curve: " + "[" * 40 + "]" * 40 + "}", "nested too deeply"),
        ("tone: {curve: [[[0]]]}", "tone.curve"),
        ("tone: {gamma: " + "9" * 4000 + "}", "tone.gamma: "),
        ("tone: {gamma: .nan}", "tone.gamma: nan"),
    ],
)
def test_a_wrong_one_costs_its_own_frame(nightisp: Terminal, tmp_path: Path, text: str, said: str) -> None:
    raws = write_frames(tmp_path / "data", 2)
    path = beside(raws[1], text).relative_to(tmp_path)
    look = ("--look", "documentary")
    good, bad = render(nightisp, *look, status=3)["frames"]
    assert (good["outcome"], bad["outcome"]) == ("rendered", "failed")
    assert said in bad["error"]
    assert str(path) in bad["error"] or "weights" in text
    assert len(bad["error"]) < 2000
    assert (tmp_path / "output" / "frame0.jpg").exists()
    assert not (tmp_path / "output" / "frame1.jpg").exists()


def test_it_reruns_what_it_names_of_its_own_frame(nightisp: Terminal, tmp_path: Path) -> None:
    raws = write_frames(tmp_path / "data", 2)
    look = ("--look", "documentary")
    before = render(nightisp, *look)["frames"]
    assert [frame["sidecar"] for frame in before] == [{}, {}]
    path = beside(raws[0], "tone: {gamma: 2.2}\ndenoise:\n")
    one, two = render(nightisp, *look)["frames"]
    assert [stage for stage, did in one["stages"].items() if did == "computed"] == FROM_TONE
    assert set(two["stages"].values()) == {"cached"}
    assert (one["sidecar"], two["sidecar"]) == ({"tone": {"gamma": 2.2}}, {})
    path.unlink()
    again = render(nightisp, *look)["frames"]
    assert {did for frame in again for did in frame["stages"].values()} == {"cached"}


def test_what_is_set_on_the_command_line_goes_before_it(nightisp: Terminal, tmp_path: Path) -> None:
    raws = write_frames(tmp_path / "data", 2)
    look = ("--look", "documentary")
    render(nightisp, *look, "--set", "tone.gamma=2.8")
    beside(raws[0], "tone: {gamma: 2.2}\n")
    frames = render(nightisp, *look, "--set", "tone.gamma=2.8")["frames"]
    assert {did for frame in frames for did in frame["stages"].values()} == {"cached"}
    assert [frame["sidecar"] for frame in frames] == [{}, {}]  # none of it counted
    beside(raws[0], "tone: {gamma: 2.2, exposure_ev: 1}\n")
    one, two = render(nightisp, *look, "--set", "tone.gamma=2.8")["frames"]
    assert (one["sidecar"], two["sidecar"]) == ({"tone": {"exposure_ev": 1}}, {})
    assert "computed" in one["stages"].values()
    shown = nightisp("params", "show", raws[0], "--set", "tone.gamma=2.8", "--changed").out
    assert shown.split() == ["tone:", "exposure_ev:", "1.0", "gamma:", "2.8"]


def test_a_draft_is_a_draft_whatever_a_sidecar_says(nightisp: Terminal, tmp_path: Path) -> None:
    """`refine.binned` tells of `denoise.method`: a sidecar that changed one of them alone would part them."""
    (raw,) = write_frames(tmp_path / "data", 1)
    plain = ("--draft", "--set", "refine.method=none", "--set", "white_balance.method=as_shot")
    (before,) = render(nightisp, *plain)["frames"]
    beside(raw, "denoise: {method: none}\nsuper_resolution: {method: lanczos}\n")
    (after,) = render(nightisp, *plain)["frames"]
    assert set(after["stages"].values()) == {"cached"}
    assert after["output"] == before["output"]


def test_what_does_not_go_together_is_refused(nightisp: Terminal, tmp_path: Path) -> None:
    (raw,) = write_frames(tmp_path / "data", 1)
    beside(raw, "export: {format: png, bit_depth: 16}\n")
    (frame,) = render(nightisp, "--look", "documentary", "--set", "export.format=jpeg", status=3)["frames"]
    assert "frame0.nightisp.yaml with --set: export: jpeg holds 8 bits" in frame["error"]


def test_stages_that_are_not_run_ask_nothing_of_it(nightisp: Terminal, tmp_path: Path) -> None:
    (raw,) = write_frames(tmp_path / "data", 1)
    beside(raw, "tone: 3\ningest: {white_level: 60000}\n")
    (frame,) = render(nightisp, "--look", "documentary", "--until", "ingest")["frames"]
    assert frame["sidecar"] == {"ingest": {"white_level": 60000}}
    render(nightisp, "--look", "documentary", status=3)


def test_it_sets_how_the_file_is_written(nightisp: Terminal, tmp_path: Path) -> None:
    raws = write_frames(tmp_path / "data", 2)
    beside(raws[1], "export: {format: png, bit_depth: 16, longest: 32}\n")
    frames = render(nightisp, "--look", "documentary")["frames"]
    assert [Path(frame["output"]).name for frame in frames] == ["frame0.jpg", "frame1.png"]
    header = (tmp_path / "output" / "frame1.png").read_bytes()[16:25]
    assert struct.unpack(">IIB", header) == (32, 24, 16)  # width, height, bits


def test_every_account_tells_that_there_was_one(nightisp: Terminal, tmp_path: Path) -> None:
    from nightisp.run import Report
    from nightisp.summary import as_markdown

    raws = write_frames(tmp_path / "data", 2)
    beside(raws[0], "tone: {gamma: 2.2, exposure_ev: 1}\n")
    look = ("--look", "documentary")
    told = nightisp("flow", "run", "--dry-run", *look).out
    assert "frame0                   has a sidecar     tone.gamma=2.2 tone.exposure_ev=1" in told
    said = nightisp("flow", "run", "--engine", "local", *look).err
    assert "frame0: its sidecar sets tone.gamma=2.2 tone.exposure_ev=1" in said
    assert "frame1: its sidecar" not in said

    records = [json.loads(line) for line in nightisp("cache", "show", "frame0", "--json").out.splitlines()]
    of_stage: dict[str, Any] = {Path(record["path"]).parent.name: record.get("sidecar") for record in records}
    assert of_stage.pop("tone") == {"name": "frame0.nightisp.yaml", "params": {"gamma": 2.2, "exposure_ev": 1}}
    assert set(of_stage.values()) == {None}

    frames = render(nightisp, *look)["frames"]
    from nightisp.batch import FrameResult

    results = [FrameResult(f["frame"], Path(f["source"]), "rendered", own=f["sidecar"]) for f in frames]
    text = as_markdown(Report(results, 1.0))
    assert r"| frame0 | tone\.gamma=2\.2 tone\.exposure\_ev=1 |" in text
    assert text.count("tone") == 2
    assert "sidecar" not in as_markdown(Report(results[1:], 1.0))


def test_a_sidecar_leaves_no_trace_in_the_keys(tmp_path: Path) -> None:
    """The same parameters by another way are the same artifact."""
    raw = write_frame(tmp_path / "in" / "one.dng", 1)
    engine = open_engine(tmp_path / "store", None, "cpu")
    (plain,) = prepare(engine, {"tone": {"gamma": 2.2}}, [raw]).plans
    beside(raw, "tone: {gamma: 2.2}\n")
    (own,) = prepare(engine, {}, [raw]).plans
    assert own.keys == plain.keys
    assert (own.own, plain.own) == ({"tone": {"gamma": 2.2}}, {})


def test_stage_by_stage_it_counts_as_in_a_flow(nightisp: Terminal, tmp_path: Path) -> None:
    raws = write_frames(tmp_path / "data", 3)
    beside(raws[1], "tone: {gamma: 2.2}\n")
    path = beside(raws[2], "tone: {gama: 2.2}\n").relative_to(tmp_path)  # costs no stage before its own
    plain = [f"--set={setting}" for setting in ("denoise.method=none", "white_balance.method=as_shot")]
    plain += [f"--set={stage}.method=none" for stage in ("refine", "super_resolution")]
    for name in NAMES:
        assert (f"{path}: tone.gama" in nightisp("stage", "run", name, *plain).err) == (name in FROM_TONE)
    lines = [json.loads(line) for line in (tmp_path / "manifests" / "tone.jsonl").read_text().splitlines()]
    assert [line.get("sidecar") for line in lines] == [None, "frame1.nightisp.yaml", "frame2.nightisp.yaml"]
    nightisp("stage", "run", "tone", *plain, "--strict", status=3)
    frames = render(nightisp, *plain, status=3)["frames"]
    assert {did for frame in frames for did in frame["stages"].values()} == {"cached"}


def test_what_the_params_file_cures_is_cured_stage_by_stage(nightisp: Terminal, tmp_path: Path) -> None:
    """DVC runs export alone when its section changes: the frame must not have been refused before."""
    (raw,) = write_frames(tmp_path / "data", 1)
    beside(raw, "export: {bit_depth: 16}\n")
    plain = [f"--set={setting}" for setting in ("denoise.method=none", "white_balance.method=as_shot")]
    plain += [f"--set={stage}.method=none" for stage in ("refine", "super_resolution")]
    for name in NAMES[:-1]:
        nightisp("stage", "run", name, *plain, "--strict", "--set=export.quality=90")
    assert "jpeg holds 8 bits" in nightisp("stage", "run", "export", *plain, "--strict", status=3).err
    nightisp("stage", "run", "export", *plain, "--set=export.format=png", "--strict")


def test_of_a_copy_of_a_raw_it_is_the_copys_own(nightisp: Terminal, tmp_path: Path) -> None:
    one, copy = (write_frame(tmp_path / "data" / f"{name}.dng", 1) for name in ("one", "two"))
    assert one.read_bytes() == copy.read_bytes()
    beside(copy, "tone: {gamma: 2.2}\n")
    frames = render(nightisp, "--look", "documentary")["frames"]
    assert len({Path(frame["output"]).read_bytes() for frame in frames}) == 2


# --- `nightisp params` ---


def test_params_show_what_holds_for_a_raw(nightisp: Terminal, tmp_path: Path) -> None:
    raw = write_frame(tmp_path / "data" / "one.dng", 1)
    beside(raw, "tone: {gamma: 2.2}\n")
    shown = nightisp("params", "show", raw, "--look", "street", "--changed").out
    assert shown.split() == ["tone:", "exposure_ev:", "0.3", "gamma:", "2.2"]
    assert "gamma: 3.2" in nightisp("params", "show").out
    assert "none.dng: no such file" in nightisp("params", "show", "none.dng", status=2).err
    beside(raw, "tone: {gama: 2.2}\n")
    assert "one.nightisp.yaml: tone.gama" in nightisp("params", "show", raw, status=2).err


def test_params_check_sidecars(nightisp: Terminal, tmp_path: Path) -> None:
    raws = write_frames(tmp_path / "data", 3)
    beside(raws[0], "tone: {gamma: 2.2}\n")
    assert "1 of 1 sidecars are good" in nightisp("params", "check", "data").out
    beside(raws[1], "tone: {gamma: 22}\n")
    lonely = beside(tmp_path / "data" / "frame9.dng", "")
    done = nightisp("params", "check", "data", status=3)
    assert "1 of 3 sidecars are good" in done.out
    assert "frame1.nightisp.yaml: tone.gamma: 22" in done.err
    assert f"{lonely.relative_to(tmp_path)}: belongs to no raw beside it" in done.err
    assert nightisp("params", "check").out == "parameters are good\n"
