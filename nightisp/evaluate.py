"""Measure what the pipeline makes of raws against the pictures that they should become, end to end and by stage."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nightisp.batch import FrameResult, Performed, Stop, named, perform, render_all, render_frame
from nightisp.engine import Engine, Plan
from nightisp.errors import ImageShapeError, RawFileNotFoundError
from nightisp.image import DisplayImage, Mosaic, Samples
from nightisp.metrics import angular_error, angular_summary, ciede2000, psnr, ssim
from nightisp.orientation import orient
from nightisp.params import Tree
from nightisp.picture_files import srgb_pixels
from nightisp.pipeline import NAMES, PIPELINE
from nightisp.references import SUFFIXES, Truth, read_truth
from nightisp.retry import retried
from nightisp.run import Observer, Options, begin

MOSAICS = ("ingest", "denoise")  # measured against the mosaic without noise
BALANCED = ("white_balance", "color")  # whose gains are measured against the light
_SECONDS = "seconds"


@dataclass
class FrameScore:
    """What was measured of one frame: `stages` has a row of numbers for each, `export` being the finished picture.

    `own` is what its sidecar sets.
    """

    frame: str
    source: Path
    reference: Path | None = None
    error: str | None = None
    own: Tree = field(default_factory=dict)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass
class Evaluation:
    """The account of an evaluation."""

    frames: list[FrameScore]
    wall_seconds: float = 0.0
    interrupted: bool = False
    computed: dict[str, int] = field(default_factory=dict)
    """How many frames each stage was computed for; the others were in the store. Stages without any are left out."""

    @property
    def status(self) -> int:
        """Exit status: 0 all measured, 3 some failed, 130 interrupted."""
        if self.interrupted:
            return 130
        return 3 if any(score.error for score in self.frames) else 0

    @property
    def measured(self) -> list[FrameScore]:
        """Those that did not fail."""
        return [score for score in self.frames if score.error is None]

    def means(self) -> dict[str, dict[str, float]]:
        """Return the mean of each number of each stage, over the frames that have it."""
        found: dict[str, dict[str, list[float]]] = {}
        for score in self.measured:
            for stage, numbers in score.stages.items():
                for name, value in numbers.items():
                    found.setdefault(stage, {}).setdefault(name, []).append(value)
        ordered = [stage for stage in NAMES if stage in found]
        return {stage: {name: float(np.mean(v)) for name, v in found[stage].items()} for stage in ordered}

    def angles(self) -> dict[str, dict[str, float]]:
        """Return for each stage that balances the summary of its angular errors, in degrees."""
        errors = {
            stage: [score.stages[stage]["angle"] for score in self.measured if "angle" in score.stages[stage]]
            for stage in BALANCED
        }
        return {stage: angular_summary(angles) for stage, angles in errors.items() if angles}


def evaluate(options: Options, references: Path, observer: Observer, stop: Stop) -> Evaluation:
    """Render every raw that `options` name, and measure it; what goes wrong with one is written down.

    The store is used as in every run: what it holds is not computed again, and its seconds are those it took then.

    Parameters
    ----------
    options
        Of the run; nothing is written to `output`.
    references
        Folder of finished pictures that have the stems of the raws and the size of what the pipeline makes of them.
        They are compared as they are: sRGB, upright.

    Raises
    ------
    NightispError
        If the options are at fault, or there is no such folder.
    """
    if not references.is_dir():
        raise RawFileNotFoundError(f"{references}: no such folder; expected the reference pictures. Check --references")
    begun = time.perf_counter()
    engine, _, batch, _ = begin(options.model_copy(update={"until": NAMES[-1], "output": references}))
    # References that lie among the raws are no raws that cannot be developed.
    refused = [r for r in batch.refused if not (r.source.parent == references and r.source.suffix.lower() in SUFFIXES)]
    batch = replace(batch, refused=tuple(refused))
    observer.found(batch)
    scores: dict[Path, FrameScore] = {}

    def one_frame(plan: Plan) -> FrameResult:
        source = plan.source
        score = scores[source.path] = FrameScore(source.frame, source.path, own=plan.own)
        try:
            truth = read_truth(references, source.path.stem)  # before an hour is spent on a raw without
            score.reference = truth.reference
            result = render_frame(engine, plan, NAMES[-1], one_stage, stop, observer.began)
            if result.outcome == "rendered":
                score.stages = measure(engine, plan, truth)
        except Exception as error:  # as in rendering: it costs this frame, not the others
            result = FrameResult(source.frame, source.path, "failed", error=named(source.path, error, "evaluate: "))
        score.error = result.error or (None if score.stages else f"{source.path}: not measured")
        return result

    def one_stage(plan: Plan, name: str) -> Performed:
        return retried(lambda: perform(engine, plan, name, None), stop.wait)

    rendered = render_all(
        batch, one_frame, workers=options.workers or 1, memory=options.memory, stop=stop, done=observer.ended
    )
    for result in [*batch.refused, *rendered]:
        scores.setdefault(
            result.source, FrameScore(result.frame, result.source, error=result.error or f"{result.source}: not begun")
        )
    frames = sorted(scores.values(), key=lambda score: (score.frame, str(score.source)))
    counts = {name: sum(result.stages.get(name) == "computed" for result in rendered) for name in NAMES}
    computed = {name: count for name, count in counts.items() if count}
    return Evaluation(frames, time.perf_counter() - begun, interrupted=bool(stop), computed=computed)


def measure(engine: Engine, plan: Plan, truth: Truth) -> dict[str, dict[str, float]]:
    """Return for each stage what it took, `seconds`, and how good its artifact is.

    `psnr` (decibels) of the mosaic of `ingest` and `denoise`; `angle` (degrees) of the light that the gains of
    `white_balance` and `color` are for; `psnr`, `ssim` and `ciede2000` of display light, at the size that it has.

    Raises
    ------
    ImageShapeError
        If the picture, or the clean mosaic, is of another size than its truth.
    """
    last = NAMES[-1]
    encoded = engine.load(plan, last)
    finished = srgb_pixels(encoded)
    _check_size("the picture", finished, "the reference", truth.reference, truth.picture)
    scores: dict[str, dict[str, float]] = {}
    shown, numbers_shown = np.empty(0, np.float32), dict[str, float]()
    for stage in PIPELINE:
        numbers = {}
        if stage.name == last:
            numbers = compare(finished, truth.picture)
        elif stage.name in MOSAICS and truth.clean is not None:
            mosaic: Mosaic = engine.load(plan, stage.name)
            _check_size("the mosaic", mosaic.visible(), "clean_mosaic", truth.reference, truth.clean)
            numbers = {"psnr": psnr(mosaic.visible(), truth.clean)}
        elif stage.name in BALANCED and truth.illuminant is not None:
            gains = engine.load(plan, stage.name).balance.gains
            numbers = {"angle": float(angular_error([1 / gain for gain in gains], truth.illuminant))}
        elif stage.gives is DisplayImage:
            image: DisplayImage = engine.load(plan, stage.name)
            picture = orient(image.visible(), image.shot.orientation)
            if not np.array_equal(picture, shown):  # a stage that is switched off need not be measured again
                shown, numbers_shown = picture, compare(picture, _reduced(truth.picture, image.reduction, picture))
            numbers = numbers_shown
        else:
            engine.ensure(plan, stage.name)
        record = engine.store.entry(stage.name, plan.keys[stage.name]).attributes
        scores[stage.name] = {**numbers, _SECONDS: float(record[_SECONDS])}
    return scores


def compare(picture: Samples, reference: Samples) -> dict[str, float]:
    """Return `psnr`, `ssim` and `ciede2000` of an sRGB picture, (H, W, 3) in [0, 1]."""
    return {
        "psnr": psnr(picture, reference),
        "ssim": ssim(picture, reference),
        "ciede2000": ciede2000(picture, reference),
    }


def _reduced(reference: Samples, reduction: int, picture: Samples) -> Samples:
    """Return the reference area-averaged to the size of a picture that a stage made smaller."""
    if reduction == 1:
        return reference
    import cv2

    return np.asarray(cv2.resize(reference, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_AREA))


def _check_size(what: str, samples: Samples, of_what: str, path: Path, truth: Samples) -> None:
    if samples.shape != truth.shape:
        raise ImageShapeError(
            f"{path}: {of_what} is {_size(truth)}; {what} is {_size(samples)}, and they must be alike. Give it that "
            "size, or set the parameters that made it: refine, super_resolution and export.longest change the size",
            expected=samples.shape,
            actual=truth.shape,
        )


def _size(samples: Samples) -> str:
    return " x ".join(str(length) for length in samples.shape[:2])


def as_json(evaluation: Evaluation, options: Options) -> dict[str, Any]:
    """Return an evaluation as JSON values; an infinite PSNR (nothing differs) is null."""
    from nightisp.params import defaults, merge
    from nightisp.run import read_tree

    return {
        "frames": [
            {
                "frame": score.frame,
                "source": str(score.source),
                "reference": str(score.reference) if score.reference else None,
                "error": score.error,
                "sidecar": score.own,
                "stages": {stage: _rounded(numbers) for stage, numbers in score.stages.items()},
            }
            for score in evaluation.frames
        ],
        "mean": {stage: _rounded(numbers) for stage, numbers in evaluation.means().items()},
        "angle": {stage: _rounded(numbers) for stage, numbers in evaluation.angles().items()},
        "params": merge(defaults(), read_tree(options)),
        "wall_seconds": round(evaluation.wall_seconds, 3),
    }


def as_metrics(evaluation: Evaluation) -> dict[str, float | int | None]:
    """Return the means by flat names for `dvc metrics`; those of the finished picture bear no stage's name."""
    means, last = evaluation.means(), NAMES[-1]
    flat = {name: value for name, value in means.get(last, {}).items() if name != _SECONDS}
    flat |= {
        f"{stage}_{name}": value
        for stage, numbers in means.items()
        for name, value in numbers.items()
        if (stage != last or name == _SECONDS) and name != "angle"
    }
    flat |= {
        f"{stage}_angle_{name}": value
        for stage, summary in evaluation.angles().items()
        for name, value in summary.items()
    }
    if means:
        flat[_SECONDS] = sum(numbers[_SECONDS] for numbers in means.values())
    measured = len(evaluation.measured)
    return {"frames": measured, "failed": len(evaluation.frames) - measured, **_rounded(flat)}


def as_row(evaluation: Evaluation, options: Options) -> dict[str, float | None]:
    """Return every parameter that is a number, as `tone_gamma`, and the means of the finished picture, by flat names.

    One row an evaluation: rows of several are points of quality against any parameter. Names have no dot, which Vega
    takes for a path into an object.
    """
    from nightisp.params import defaults, merge
    from nightisp.run import read_tree

    tree = merge(defaults(), read_tree(options))
    numbers = {
        f"{stage}_{name}": value
        for stage in NAMES
        for name, value in tree[stage].items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    means = evaluation.means().get(NAMES[-1], {})
    return {**numbers, **_rounded({name: value for name, value in means.items() if name != _SECONDS})}


def _rounded(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {name: round(value, 4) if math.isfinite(value) else None for name, value in numbers.items()}
