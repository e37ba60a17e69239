"""Variants of pictures that differ in one or two parameters: rendered from what they share, and measured.

The engine finds in the store what two variants have in common, so that only what lies downstream of the parameter runs.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nightisp import params as parameters
from nightisp import sources
from nightisp.batch import FrameResult, Performed, Stop, named, perform, prepare, render_all, render_frame
from nightisp.engine import Engine, Plan
from nightisp.errors import ParamsError
from nightisp.metrics import ciede2000, psnr
from nightisp.params import Tree
from nightisp.picture_files import srgb_pixels
from nightisp.pipeline import NAMES
from nightisp.report.pictures import Embedded, embedded
from nightisp.retry import retried
from nightisp.run import Observer, Options, check_networks, open_engine, read_tree

LONGEST = 1024
"""Pixels of the longer side that a page carries of each variant: about 0.2 MB."""
MOST = 36
"""Variants of a picture at most: more than can be looked at."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A parameter that is varied, and its values, two or more, as they were given."""

    stage: str
    parameter: str
    values: tuple[Any, ...]

    @property
    def name(self) -> str:
        """The parameter as people write it."""
        return f"{self.stage}.{self.parameter}"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to render: what it sets of what is varied, and all parameters."""

    settings: tuple[tuple[str, Any], ...]
    tree: Tree


@dataclass(slots=True)
class Rendered:
    """One variant of one frame.

    `psnr` and `difference` (CIEDE2000) are against the first variant, at full size; None for the first itself, and
    where the sizes differ. `psnr` is infinite where nothing does.
    """

    settings: tuple[tuple[str, Any], ...]
    key: str = ""
    error: str = ""
    picture: Embedded | None = None
    size: tuple[int, int] = (0, 0)
    psnr: float | None = None
    difference: float | None = None
    computed: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def label(self) -> str:
        """What it sets, as people write it."""
        return ", ".join(f"{name} {value}" for name, value in self.settings)


@dataclass(slots=True)
class Comparison:
    """All frames with all their variants, in rows as the second axis has values, or in one."""

    axes: tuple[Axis, ...]
    frames: list[tuple[str, list[Rendered]]]
    refused: list[FrameResult]
    wall_seconds: float = 0.0
    interrupted: bool = False

    @property
    def status(self) -> int:
        """Exit status: 0 all rendered, 3 some failed, 130 interrupted."""
        if self.interrupted:
            return 130
        return 3 if self.refused or any(r.error for _, variants in self.frames for r in variants) else 0

    def rows(self, variants: list[Rendered]) -> list[list[Rendered]]:
        """Return variants in rows, one column for each value of the first axis."""
        columns = len(self.axes[0].values)
        return [variants[at : at + columns] for at in range(0, len(variants), columns)]


def read_axes(settings: Sequence[str]) -> tuple[tuple[str, ...], tuple[Axis, ...]]:
    """Part settings into those with one value, which hold for all variants, and what is varied.

    Several values stand behind one `=` with commas between, as in a YAML list, or in several settings.

    Raises
    ------
    ParamsError
        If nothing is varied, or more than two parameters, or a value is named twice.

    Examples
    --------
    >>> read_axes(["tone.gamma=2.2,3.2", "refine.method=none"])
    (('refine.method=none',), (Axis(stage='tone', parameter='gamma', values=(2.2, 3.2)),))
    """
    values: dict[tuple[str, str], list[Any]] = {}
    given: dict[tuple[str, str], str] = {}
    for setting in settings:
        ((stage, named),) = parameters.parse_sets([setting if "=" not in setting else _as_list(setting)]).items()
        ((parameter, several),) = named.items()
        if not several:
            raise ParamsError(f"--set {setting}: names no value; expected for example tone.gamma=2.2,3.2")
        values.setdefault((stage, parameter), []).extend(several)
        given[stage, parameter] = setting
    for (stage, parameter), several in values.items():
        for at, value in enumerate(several):
            if value in several[:at]:
                raise ParamsError(f"--set {stage}.{parameter}: {value} stands there twice; name each value once")
    axes = tuple(Axis(*at, tuple(several)) for at, several in values.items() if len(several) > 1)
    if not axes:
        raise ParamsError("compare: nothing is varied; give two or more values: --set tone.gamma=2.2,3.2")
    if len(axes) > 2:
        names = ", ".join(axis.name for axis in axes)
        raise ParamsError(f"compare: {len(axes)} parameters are varied ({names}); expected one or two")
    if (count := int(np.prod([len(axis.values) for axis in axes]))) > MOST:
        raise ParamsError(f"compare: {count} variants of each picture; expected {MOST} at most: leave out some values")
    return tuple(given[at] for at, several in values.items() if len(several) == 1), axes


def _as_list(setting: str) -> str:
    name, _, text = setting.partition("=")
    return f"{name}=[{text}]"


def variants_of(axes: Sequence[Axis], tree: Tree) -> list[Variant]:
    """Return every combination, the first axis going fastest; all are checked.

    Raises
    ------
    ParamsError
        For an unknown stage or parameter, or a value that is out of bounds.
    """
    variants = []
    fixed = tree.settings if isinstance(tree, parameters.Layered) else {}
    for values in itertools.product(*(axis.values for axis in reversed(axes))):
        chosen = list(zip(axes, reversed(values), strict=True))
        varied = parameters.merge(*({axis.stage: {axis.parameter: value}} for axis, value in chosen))
        layered = parameters.Layered(tree, parameters.merge(fixed, varied))
        parameters.validate(layered, "--set")
        variants.append(Variant(tuple((axis.name, value) for axis, value in chosen), layered))
    return variants


def compare(options: Options, observer: Observer, stop: Stop, longest: int = LONGEST) -> Comparison:
    """Render every picture that `options` name once for each variant, and measure them against the first.

    Nothing is written but to the store: pictures of variants are no results.

    Parameters
    ----------
    options
        Of the run; its settings are read by `read_axes`.
    longest
        Bound of the longer side of the pictures that are kept; 0: none.

    Raises
    ------
    NightispError
        If the options are at fault; before anything is computed.
    """
    begun = time.perf_counter()
    fixed, axes = read_axes(options.settings)
    variants = variants_of(axes, read_tree(options.model_copy(update={"settings": fixed})))
    engine = open_engine(options.store, options.weights, options.device)
    for variant in variants:
        check_networks(engine, variant.tree, NAMES[-1], options.device)
    batch = prepare(
        engine,
        variants[0].tree,
        options.inputs,
        recursive=options.recursive,
        exclude=engine.store.folders,
        frames=options.frames,
    )
    observer.found(batch)
    done: dict[str, list[Rendered]] = {}

    def one_frame(plan: Plan) -> FrameResult:
        result, done[plan.source.frame] = _render(engine, plan.source, variants, longest, observer, stop)
        return result

    workers = options.workers or os.cpu_count() or 1
    render_all(batch, one_frame, workers=workers, memory=options.memory, stop=stop, done=observer.ended)
    frames = sorted(done.items())
    return Comparison(axes, frames, [*batch.refused], time.perf_counter() - begun, interrupted=bool(stop))


def _render(
    engine: Engine, source: sources.Source, variants: Sequence[Variant], longest: int, observer: Observer, stop: Stop
) -> tuple[FrameResult, list[Rendered]]:
    """Render a frame in all variants; what goes wrong with one is its own error."""

    def one_stage(plan: Plan, name: str) -> Performed:
        return retried(lambda: perform(engine, plan, name, None, wait=False), stop.wait)

    whole = FrameResult(source.frame, source.path, "rendered")
    done: list[Rendered] = []
    first: Any = None
    for variant in variants:
        rendered = Rendered(variant.settings)
        done.append(rendered)
        try:
            plan = engine.plan(source, variant.tree)
            result = render_frame(engine, plan, NAMES[-1], one_stage, stop, observer.began)
            rendered.computed = tuple(name for name, did in result.stages.items() if did == "computed")
            rendered.seconds, rendered.error = sum(result.seconds.values()), result.error or ""
            if result.outcome == "rendered":
                pixels = srgb_pixels(engine.load(plan, NAMES[-1]))
                rendered.key = plan.keys[NAMES[-1]]
                rendered.picture, rendered.size = embedded(pixels, longest), (pixels.shape[1], pixels.shape[0])
                if len(done) == 1:
                    first = pixels
                elif first is not None and first.shape == pixels.shape:
                    rendered.psnr, rendered.difference = psnr(pixels, first), ciede2000(pixels, first)
            elif result.outcome == "skipped":
                rendered.error = "was not rendered: interrupted"
        except Exception as error:  # as in rendering: it costs this variant, not the others
            rendered.error = named(source.path, error, "compare: ")
        if rendered.error:
            whole.outcome, whole.error = "failed", f"{rendered.label}: {rendered.error}"
    return whole, done
