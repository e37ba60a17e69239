"""All that a page shows of one frame, read from the store artifact by artifact."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from nightisp import params as parameters
from nightisp.errors import NightispError, StoreError
from nightisp.export import EncodedPicture
from nightisp.image import Mosaic, Shot
from nightisp.picture_files import srgb_pixels
from nightisp.pipeline import PIPELINE
from nightisp.preview import preview
from nightisp.report import chains
from nightisp.report.chains import Start
from nightisp.report.distribution import Distribution, distribution
from nightisp.report.light import Light, light
from nightisp.report.pictures import Embedded, embedded
from nightisp.stage import Stage
from nightisp.stages import tone, white_balance
from nightisp.store import Entry, Store

Tell = Callable[[str, str], None]
"""Is told the frame and the stage that are being read."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a stage as text; `default` is empty where this nightisp knows none.

    `origin` is the look, sidecar or `--set` that it was set by when the artifact was made; empty for the params file.
    """

    name: str
    value: str
    default: str
    meaning: str
    origin: str = ""

    @property
    def changed(self) -> bool:
        """Whether it is not the default."""
        return self.value != self.default


@dataclass(slots=True)
class StageView:
    """What a page shows of one stage; `problem` says why there is less."""

    name: str
    summary: str
    key: str = ""
    problem: str = ""
    seconds: float = 0.0
    size: int = 0
    device: str = ""
    precision: str = ""
    created: str = ""
    hits: int = 0
    parameters: tuple[Parameter, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)
    thumbnail: Embedded | None = None
    distribution: Distribution | None = None

    @property
    def changed(self) -> tuple[Parameter, ...]:
        """The parameters that are not the defaults."""
        return tuple(parameter for parameter in self.parameters if parameter.changed)


@dataclass(slots=True)
class FrameView:
    """What a page shows of one frame."""

    frame: str
    others: tuple[str, ...] = ()
    stages: tuple[StageView, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    before: Embedded | None = None
    after: Embedded | None = None
    as_shot: bool = False
    size: tuple[int, int] | None = None
    light: Light | None = None
    tone: tone.ToneParams | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, each with the stages that it is wrong with."""
        wrong: dict[str, list[str]] = {}
        for stage in self.stages:
            if stage.problem:
                wrong.setdefault(stage.problem, []).append(stage.name)
        return tuple(f"{', '.join(names)}: {problem}" for problem, names in wrong.items())


def frame_view(
    store: Store, start: Start, networks: Any, longest: int, tell: Tell, hits: Mapping[str, int]
) -> FrameView:
    """Read a frame's artifacts, from the first stage to the last; what cannot be read is a problem of that stage.

    Parameters
    ----------
    networks
        `nightisp.models.weights.Compute`, for where FC4 looked.
    longest
        Bound of the longer side of the two large pictures; 0: none.
    tell
        Called before each artifact that is read.
    hits
        Key -> how often runs found it in the store, for those that they found.
    """
    entries = _entries(store, start)
    view, rows, before = FrameView(start.frame, start.others), [], None
    for stage in PIPELINE:
        tell(start.frame, stage.name)
        row, picture = StageView(stage.name, stage.summary), None
        rows.append(row)
        try:
            if entry := entries.get(stage.name):
                picture = _read(store, stage, entry, row)
                row.hits = hits.get(entry.key, 0)
                row.distribution = distribution(picture)
                _add(view, picture, longest)
                if stage is white_balance.STAGE:
                    lacking = f"that of {rows[-2].name} is missing or damaged."
                    view.light = light(picture, before or lacking, entry.attributes, networks)
                elif stage is tone.STAGE:
                    view.tone = _checked(tone.STAGE, entry)
            else:
                row.problem = _why_not(stage, start)
        except NightispError as error:
            row.problem = f"{error}. {_REMEDY}"
        before = picture if isinstance(picture, Mosaic) else None  # all that is needed: others are large
    view.stages = tuple(rows)
    return view


_REMEDY = "`nightisp flow run` makes anew what is missing of a picture"


def _entries(store: Store, start: Start) -> dict[str, Entry]:
    """Return the artifacts that led to a start, by stage; it ends where one is missing that would lead further."""
    entries: dict[str, Entry] = {}
    stage: Stage | None = start.stage
    key: str | None = start.key
    while stage and key:
        entries[stage.name] = entry = store.entry(stage.name, key)
        stage, key = chains.before(stage), chains.upstream(entry)
    return entries


def _why_not(stage: Stage, start: Start) -> str:
    if PIPELINE.index(stage) > PIPELINE.index(start.stage):
        return (
            f"has not run; the store holds this frame up to {start.stage.name}. `nightisp flow run` goes on from there"
        )
    return f"cannot be found, since what followed it is missing or damaged. {_REMEDY}"


def _read(store: Store, stage: Stage, entry: Entry, row: StageView) -> Any:
    """Return an artifact's picture; put what is recorded of it into the row.

    Raises
    ------
    StoreError
        If it is missing or damaged, or another nightisp wrote it, whose records are not ours.
    """
    try:
        picture = store.read(stage.name, entry.key, stage.gives)
        recorded = entry.attributes
        row.seconds, row.created = float(recorded["seconds"]), str(recorded["created"])
        row.device, row.precision = str(recorded["device"]), str(recorded.get("precision", ""))
        row.weights = {str(name): str(digest) for name, digest in recorded["weights"].items()}
        row.parameters = _parameters(stage, recorded["params"], _origins(recorded))
        row.key, row.size = entry.key, entry.size()
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StoreError(f"{entry.path}: another nightisp wrote it ({type(error).__name__}: {error})") from error
    row.thumbnail = embedded(store.read_array(entry, "preview"), small=True)
    return picture


def _checked(stage: Stage, entry: Entry) -> Any:
    """Return the parameters of an artifact, or raise `StoreError` if this nightisp does not know them."""
    try:
        return stage.params.model_validate(entry.attributes["params"])
    except ValidationError as error:
        raise StoreError(f"{entry.path}: has parameters of another nightisp ({error.error_count()} unknown)") from error


def _add(view: FrameView, picture: Any, longest: int) -> None:
    """Add what a picture tells of the frame as a whole."""
    if isinstance(picture, EncodedPicture):
        pixels = srgb_pixels(picture)
        view.after, view.size = embedded(pixels, longest), (pixels.shape[1], pixels.shape[0])
    elif not view.facts:
        view.facts = _facts(picture.shot)
    if isinstance(picture, Mosaic) and view.before is None and picture.balance.method == "none":
        view.before = embedded(preview(picture, longest or max(picture.samples.shape)))
        view.as_shot = picture.shot.as_shot_neutral is not None


def _origins(recorded: Mapping[str, Any]) -> Mapping[str, str]:
    """Return parameter -> where it was set; of artifacts from before that was recorded, what their sidecar set."""
    if (origins := recorded.get("origins")) is not None:
        return {str(name): str(origin) for name, origin in origins.items()}
    own = recorded.get("sidecar", {"name": "", "params": {}})
    return dict.fromkeys(own["params"], str(own["name"]))


def _parameters(stage: Stage, given: Mapping[str, Any], origins: Mapping[str, str]) -> tuple[Parameter, ...]:
    """Pair what was recorded with defaults and descriptions; names that this nightisp does not know have neither."""
    defaults, fields = parameters.canonical(stage.params()), stage.params.model_fields
    return tuple(
        Parameter(
            name,
            _text(value),
            _text(defaults[name]) if name in defaults else "",
            (fields[name].description or "") if name in fields else "",
            origins.get(name, ""),
        )
        for name, value in given.items()
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _facts(shot: Shot) -> tuple[tuple[str, str], ...]:
    exposure = shot.exposure_s
    facts = (
        ("Camera", shot.camera),
        ("Lens", shot.lens),
        (
            "Exposure",
            "" if exposure is None else f"1/{1 / exposure:.0f} s" if 0 < exposure < 0.3 else f"{exposure:g} s",
        ),
        ("Aperture", "" if shot.f_number is None else f"f/{shot.f_number:g}"),
        ("ISO", "" if shot.iso is None else f"{shot.iso:g}"),
        ("Focal length", "" if shot.focal_length_mm is None else f"{shot.focal_length_mm:g} mm"),
        ("Taken", (shot.captured or "").replace("T", " ")),
    )
    return tuple((name, value) for name, value in facts if value)
