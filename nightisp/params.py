"""Parameters of a run: params.yaml, a look, `--set`, the frame's sidecar, in this order; each checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nightisp.errors import ParamsError
from nightisp.pipeline import NAMES, PIPELINE, index, nearest
from nightisp.stage import Params

DRAFT = ("denoise.method=bin", "refine.binned=true", "super_resolution.method=none")
"""Settings of a draft: a quarter of the size, without the networks that take the time."""

Tree = Mapping[str, Any]
StageParams = Mapping[str, Params]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader.

    Raises
    ------
    ParamsError
        If the file is missing, unreadable, no YAML, or no mapping.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        tree = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; leave out --params to use the defaults") from None
    except (OSError, ValueError, YAMLError) as error:  # ValueError: no UTF-8, or a date that there is not
        raise ParamsError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ParamsError(f"{path}: holds a {type(tree).__name__}; expected stages with their parameters")
    return tree


def parse_sets(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Turn `["tone.gamma=2.8"]` into `{"tone": {"gamma": 2.8}}`; values are YAML.

    Raises
    ------
    ParamsError
        If a setting is not `STAGE.NAME=VALUE`.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    tree: dict[str, dict[str, Any]] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        stage, dot, parameter = name.strip().partition(".")
        if not (equals and dot and parameter):
            raise ParamsError(f"--set {setting}: expected STAGE.NAME=VALUE, for example tone.gamma=2.8")
        try:
            tree.setdefault(stage, {})[parameter] = YAML(typ="safe", pure=True).load(text)
        except (ValueError, YAMLError) as error:
            raise ParamsError(f"--set {setting}: {text!r} is no YAML value") from error
    return tree


def merge(*trees: Tree) -> dict[str, dict[str, Any]]:
    """Lay trees over one another, later ones on top, parameter by parameter."""
    merged: dict[str, dict[str, Any]] = {}
    for tree in trees:
        for stage, values in tree.items():
            if values is None:  # a section whose lines are all comments
                merged.setdefault(stage, {})
            elif isinstance(values, Mapping) and isinstance(merged.get(stage, {}), Mapping):
                merged[stage] = {**merged.get(stage, {}), **values}
            else:
                merged[stage] = values
    return merged


def validate(tree: Tree, origin: str) -> dict[str, Params]:
    """Check every section and give each stage its parameters, defaults filled in.

    Parameters
    ----------
    tree
        Stage name -> parameter name -> value.
    origin
        What a message should name as the place of the fault: a file, or `--set`.

    Raises
    ------
    ParamsError
        For an unknown stage or parameter (with the nearest name), or a value that is out of bounds.
    """
    for section in tree:
        if section not in NAMES:
            known = f"{origin}: {section}: no such stage; the stages are {', '.join(NAMES)}"
            raise ParamsError(known + nearest(str(section), NAMES))
    checked: dict[str, Params] = {}
    for stage in PIPELINE:
        values = tree.get(stage.name)
        if values is not None and not isinstance(values, Mapping):
            raise ParamsError(f"{origin}: {stage.name}: {values!r} stands where its parameters are expected")
        try:
            checked[stage.name] = stage.params.model_validate(dict(values or {}))
        except ValidationError as error:
            raise ParamsError(
                "\n".join(_explain(origin, stage.name, stage.params, e) for e in error.errors())
            ) from None
    return checked


def _explain(origin: str, stage: str, model: type[Params], error: Any) -> str:
    where = ".".join([stage, *map(str, error["loc"])])
    names = list(model.model_fields)
    if error["type"] == "extra_forbidden":
        name = str(error["loc"][0])
        has = f"{stage} has {', '.join(names)}" if names else f"{stage} has none"
        return f"{origin}: {where}: no such parameter; {has}{nearest(name, names)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return (
        f"{origin}: {where}: {error['input']!r}: {message[:1].lower()}{message[1:]}"
        if error["loc"]
        else (f"{origin}: {stage}: {message}")
    )


def load(
    path: Path | None, settings: Sequence[str] = (), look: Tree | None = None, look_origin: str = "look"
) -> dict[str, dict[str, Any]]:
    """Return the checked tree of a params file (None: the defaults), a look laid over it, and `--set` over both.

    Each layer is checked with what lies under it, so that a message names the one at fault; `look_origin` is the look's
    name in it.
    """
    tree = read_yaml(path) if path else {}
    validate(tree, str(path) if path else "defaults")
    if look:
        tree = merge(tree, look)
        validate(tree, look_origin)
    merged = merge(tree, parse_sets(settings))
    validate(merged, "--set")
    return merged


def for_frame(tree: Tree, overrides: Tree, origin: str) -> dict[str, Params]:
    """Return the parameters of one frame: its sidecar's values over everybody's."""
    chosen: dict[str, Any] = {**validate(merge(tree, overrides), origin)}
    if chosen["refine"].binned and chosen["denoise"].method != "bin":
        raise ParamsError(
            f"refine.binned: true stands for denoise.method: bin, not {chosen['denoise'].method}; set both, as a draft "
            "does, or neither, in params.yaml, --set and sidecar together"
        )
    return chosen


def canonical(params: Params) -> dict[str, Any]:
    """Return parameters as they enter a key: JSON values, defaults filled in."""
    return params.model_dump(mode="json")


def defaults() -> dict[str, dict[str, Any]]:
    """Return the whole tree of default values."""
    return {stage.name: canonical(stage.params()) for stage in PIPELINE}


def changed(tree: Tree, stage: str) -> list[str]:
    """Return `name: value` of what differs from the default, for people."""
    stage_params = PIPELINE[index(stage)].params
    given, default = canonical(stage_params.model_validate(tree.get(stage, {}))), canonical(stage_params())
    return [f"{name}: {value}" for name, value in given.items() if value != default[name]]
