"""Parameters of a run: params.yaml, a look, the frame's sidecar, `--set`, in this order; each checked."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nightisp.errors import ParamsError
from nightisp.pipeline import NAMES, PIPELINE, index, nearest
from nightisp.stage import Params

DRAFT = ("denoise.method=bin", "refine.binned=true", "super_resolution.method=none")
"""Settings of a draft: a quarter of the size, without the networks that take the time."""

_SHORT = reprlib.Repr()  # what is wrong may be long, or nested without end
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 80, 80

_DEEPEST = 6  # stage, parameter, a list of lists, and some more

Tree = Mapping[str, Any]
StageParams = Mapping[str, Params]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader.

    Raises
    ------
    ParamsError
        If the file is missing, unreadable, no YAML, or no mapping.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; leave out --params to use the defaults") from None
    except (OSError, ValueError) as error:  # ValueError: no UTF-8
        raise ParamsError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}; correct it") from error
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path, *, ours: bool = True) -> dict[str, Any]:
    """Turn a YAML mapping into values with the safe loader; nothing at all counts as an empty one.

    Parameters
    ----------
    path
        What a message names as the place of the fault.
    ours
        Whether the file is the user's own. One that may come from anyone has no part repeated by `*name`, a few lines
        of which write out to gigabytes, and is nested as deeply as parameters are, for depth costs its square in time.

    Raises
    ------
    ParamsError
        If it is no YAML, or no mapping.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        if not ours:
            _check_events(YAML(typ="safe", pure=True).parse(text), path)
        tree = YAML(typ="safe", pure=True).load(text)
    except RecursionError:
        raise ParamsError(f"{path}: is nested too deeply; expected stages with their parameters") from None
    except ParamsError:
        raise
    except (ValueError, YAMLError) as error:  # ValueError: a date that there is not, a number of too many digits
        raise ParamsError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}; correct it") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ParamsError(f"{path}: holds a {type(tree).__name__}; expected stages with their parameters")
    return tree


def _check_events(events: Iterable[Any], path: Path) -> None:
    from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

    depth = 0
    for event in events:
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > _DEEPEST:
            raise ParamsError(f"{path}: is nested too deeply; expected stages with their parameters")
        if isinstance(event, AliasEvent):
            line = event.start_mark.line + 1
            raise ParamsError(f"{path}: line {line}: *{event.anchor} repeats another part; write it out")


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


class Layered(dict[str, Any]):
    """The parameters of a run as a tree, and those of them that were set last of all: no sidecar changes `settings`.

    `look` is what a look sets, under `look_name`. A tree of another kind has neither.
    """

    def __init__(self, tree: Tree, settings: Tree, look: Tree | None = None, look_name: str = "") -> None:
        super().__init__(merge(tree, settings))
        self.settings = settings
        kept = tree if look is None and isinstance(tree, Layered) else None
        self.look: Tree = kept.look if kept else look or {}
        self.look_name: str = kept.look_name if kept else look_name


def validate(tree: Tree, origin: str, until: str = NAMES[-1]) -> dict[str, Params]:
    """Check every section and give each stage its parameters, defaults filled in.

    Parameters
    ----------
    tree
        Stage name -> parameter name -> value.
    origin
        What a message should name as the place of the fault: a file, or `--set`.
    until
        The last stage whose parameters are checked and given; those of later ones may still change.

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
    for stage in PIPELINE[: index(until) + 1]:
        values = tree.get(stage.name)
        if values is not None and not isinstance(values, Mapping):
            raise ParamsError(f"{origin}: {stage.name}: {_SHORT.repr(values)} stands where its parameters are expected")
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
        f"{origin}: {where}: {_SHORT.repr(error['input'])}: {message[:1].lower()}{message[1:]}"
        if error["loc"]
        else (f"{origin}: {stage}: {message}")
    )


def load(
    path: Path | None, settings: Sequence[str] = (), look: Tree | None = None, look_origin: str = "look"
) -> Layered:
    """Return the checked tree of a params file (None: the defaults), a look laid over it, and `--set` over both.

    Each layer is checked with what lies under it, so that a message names the one at fault; `look_origin` is the look's
    name in it.
    """
    tree = read_yaml(path) if path else {}
    validate(tree, str(path) if path else "defaults")
    if look:
        tree = merge(tree, look)
        validate(tree, look_origin)
    layered = Layered(tree, parse_sets(settings), look, Path(look_origin).stem)
    validate(layered, "--set")
    return layered


def for_frame(tree: Tree, overrides: Tree, origin: str, until: str = NAMES[-1]) -> dict[str, Params]:
    """Return the parameters of one frame, up to a stage: its sidecar's values over everybody's, `--set` over both."""
    settled = merge(tree, overrides, _settings(tree))
    with contextlib.suppress(ParamsError):
        return _together(settled, origin, until)
    _together(merge(tree, overrides), origin, until)  # raises unless only the two together are at fault
    return _together(settled, f"{origin} with --set", until)


def _together(tree: Tree, origin: str, until: str) -> dict[str, Params]:
    """Check a tree as `validate` does, and what stages have to agree on."""
    chosen: dict[str, Any] = validate(tree, origin, until)
    if "refine" in chosen and chosen["refine"].binned and chosen["denoise"].method != "bin":
        raise ParamsError(
            f"{origin}: refine.binned: true stands for denoise.method: bin, not {chosen['denoise'].method}; set both, "
            "as a draft does, or neither, in params.yaml, --set and sidecar together"
        )
    return chosen


def is_draft(chosen: Mapping[str, Params]) -> bool:
    """Tell whether these parameters of a frame make a draft: what stands in for its picture as long as it has none."""
    refine: Any = chosen.get("refine")
    return refine is not None and bool(refine.binned)


def own(tree: Tree, overrides: Tree, until: str = NAMES[-1]) -> dict[str, dict[str, Any]]:
    """Return what a sidecar sets up to a stage, those left out that `--set` sets otherwise; it is checked before."""
    settings = _settings(tree)
    found = {
        stage: {name: value for name, value in overrides[stage].items() if name not in settings.get(stage, {})}
        for stage in NAMES[: index(until) + 1]
        if overrides.get(stage)
    }
    return {stage: values for stage, values in found.items() if values}


def origins(tree: Tree, overrides: Tree, sidecar: str, until: str = NAMES[-1]) -> dict[str, dict[str, str]]:
    """Return where parameters come from that a look, a frame's sidecar or `--set` sets: stage -> parameter -> which.

    Examples
    --------
    >>> origins({}, {"tone": {"gamma": 2.8}}, "one.nightisp.yaml")
    {'tone': {'gamma': 'one.nightisp.yaml'}}
    """
    look = (tree.look, f"look {tree.look_name}") if isinstance(tree, Layered) else ({}, "")
    layers = (look, (overrides, sidecar), (_settings(tree), "--set"))
    named = merge(
        *(
            {s: dict.fromkeys(values, origin) for s, values in layer.items() if isinstance(values, Mapping)}
            for layer, origin in layers
        )
    )
    return {stage: named[stage] for stage in NAMES[: index(until) + 1] if named.get(stage)}


def _settings(tree: Tree) -> Tree:
    return tree.settings if isinstance(tree, Layered) else {}


def canonical(params: Params) -> dict[str, Any]:
    """Return parameters as they enter a key: JSON values, defaults filled in."""
    return params.model_dump(mode="json")


def defaults() -> dict[str, dict[str, Any]]:
    """Return the whole tree of default values."""
    return {stage.name: canonical(stage.params()) for stage in PIPELINE}


def as_settings(tree: Tree) -> list[str]:
    """Return what a tree sets as `--set` takes it: `tone.gamma=2.8`, for people."""
    return [f"{stage}.{name}={value}" for stage, values in tree.items() for name, value in (values or {}).items()]
