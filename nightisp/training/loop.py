"""Train a network: seeded, resumable after a kill at any moment, on the CPU or on CUDA.

What step n sees depends on the seed and on n alone, so that a run that was broken off goes on as if it had not been.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from nightisp.errors import WeightsError, WeightsMismatchError
from nightisp.models.weightfile import mismatch
from nightisp.stage import Params
from nightisp.training.checkpoints import Progress, resume, save
from nightisp.training.muon import Muon

Arrays = tuple[NDArray[Any], ...]
Metrics = dict[str, float]

_AHEAD = 3  # batches made while the network trains


class Schedule(Params):
    """How long, how fast, in what precision a network is trained."""

    steps: int = Field(10000, ge=1, description="steps of the optimizer")
    batch: int = Field(16, ge=1, description="samples a step")
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="muon: orthogonal steps, see training/muon.py")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="at its height")
    warmup: int = Field(200, ge=0, description="steps over which the rate rises to its height")
    decay: float = Field(0.3, ge=0, le=1, description="share of the steps, at the end, over which the rate falls to 0")
    weight_decay: float = Field(0.0, ge=0, description="share of the parameters taken off, times the rate")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    average: float = Field(0.999, ge=0, lt=1, description="decay of the averaged copy, which is validated and kept")
    precision: Literal["float32", "bfloat16"] = Field("bfloat16", description="what the network computes in")
    seed: int = Field(1, ge=0, description="of everything that is drawn")
    pool_every: int = Field(200, ge=1, description="steps that learn from one pool of prepared samples")
    validate_every: int = Field(1000, ge=1, description="steps between two validations")
    checkpoint_every: float = Field(120, gt=0, le=300, description="seconds between two checkpoints")


class Task(Protocol):
    """What is learned: a network, samples for it, a loss, and a measure on what was held out."""

    @property
    def stage(self) -> str:
        """The stage that the weights are for."""
        ...

    @property
    def network(self) -> str:
        """Name of the network, one of `nightisp.models.PRESETS`."""
        ...

    @property
    def overrides(self) -> Mapping[str, Any]:
        """What differs from the preset."""
        ...

    @property
    def schedule(self) -> Schedule:
        """Steps, rate and precision."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that makes a run another run, beside the schedule: parameters and digests, as JSON values."""
        ...

    @property
    def card(self) -> Mapping[str, Any]:
        """What the model card says beside what the loop knows, such as what the network expects to see."""
        ...

    def build(self) -> nn.Module:
        """Return the network, its parameters drawn."""
        ...

    def pool(self, rng: np.random.Generator) -> Any:
        """Prepare what `pool_every` steps draw their samples from."""
        ...

    def draw(self, pool: Any, rng: np.random.Generator) -> Arrays:
        """Return one batch from a pool."""
        ...

    def loss(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """Return the loss of a batch, a number."""
        ...

    def validate(self, network: nn.Module) -> Metrics:
        """Measure a network in eval mode on what was held out; the first measure is the main one, higher is better."""
        ...


def train(
    task: Task,
    folder: Path,
    device: str = "cpu",
    tell: Callable[[Progress], None] = lambda _: None,
    *,
    start: nn.Module | None = None,
    begun: str = "",
) -> tuple[nn.Module, Progress]:
    """Train a network, or go on from the checkpoint in `folder`.

    `checkpoint.pt`, `curve.csv` and `metrics.json` are written there, each replaced as a whole.

    Parameters
    ----------
    task
        What to learn.
    folder
        Of this run; another task's checkpoint in it is an error.
    device
        "cpu", "cuda" or "cuda:N".
    tell
        Called after every step.
    start
        A network to begin with in place of a fresh one, of the same widths and depths.
    begun
        What `start` is. A run that has a checkpoint keeps what it was told at its beginning.

    Returns
    -------
    network, progress
        The averaged copy, in eval mode on `device`, and how it did.

    Raises
    ------
    WeightsMismatchError
        If the checkpoint belongs to another run: other parameters, photographs or network. Its steps may differ. Or if
        `start` is another network.
    WeightsError
        If the loss is no longer finite.
    """
    schedule = task.schedule
    torch.manual_seed(schedule.seed)
    network = task.build().to(device).train()
    if start is not None:
        if difference := mismatch(network.state_dict(), start.state_dict()):
            raise WeightsMismatchError(f"the network to begin with does not fit: {difference}; choose its widths")
        network.load_state_dict(start.state_dict())
    averaged = task.build().to(device).eval()
    averaged.load_state_dict(network.state_dict())
    if device == "cpu":
        network, averaged = (n.to(memory_format=torch.channels_last) for n in (network, averaged))
    optimizer = _optimizer(network, schedule)
    progress = resume(task, folder, network, averaged, optimizer) or Progress(begun=begun)
    saved = time.monotonic()
    for step, arrays in _batches(task, progress.step):
        started = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * rate(schedule, step)
        torch.manual_seed(schedule.seed * 1_000_003 + step)  # for dropout
        batch = tuple(_on(device, array) for array in arrays)
        with _precision(schedule, device):
            loss = task.loss(network, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), schedule.clip)
        optimizer.step()
        _average(averaged, network, min(schedule.average, (1 + step) / (10 + step)))
        value = float(loss.detach())
        if not np.isfinite(value):
            raise WeightsError(
                f"{folder}: at step {step} the loss is {value}; lower learning_rate, or choose precision: float32"
            )
        progress.loss = value if np.isnan(progress.loss) else 0.99 * progress.loss + 0.01 * value
        progress.step = step + 1
        progress.seconds += time.monotonic() - started
        last = progress.step == schedule.steps
        if last or progress.step % schedule.validate_every == 0:
            progress.metrics = validated(task, averaged, schedule, device)
            progress.curve.append(
                {"step": progress.step, "seconds": round(progress.seconds), "loss": progress.loss, **progress.metrics}
            )
        if last or time.monotonic() - saved > schedule.checkpoint_every:
            save(task, folder, network, averaged, optimizer, progress)
            saved = time.monotonic()
        tell(progress)
    if not progress.metrics:
        progress.metrics = validated(task, averaged, schedule, device)
    return averaged, progress


def limit_threads(count: int | None) -> None:
    """Let the CPU train with so many threads; None leaves it to torch."""
    if count:
        torch.set_num_threads(count)


def rate(schedule: Schedule, step: int) -> float:
    """Return the share of the learning rate at a step: up, level, and down to 0 at the end.

    As it is level in between, a run can be given more steps, or fewer, while it goes.

    Examples
    --------
    >>> schedule = Schedule.model_validate({"steps": 100, "warmup": 10, "decay": 0.5})
    >>> [round(rate(schedule, step), 2) for step in (0, 9, 30, 75, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.02]
    """
    up = (step + 1) / schedule.warmup if schedule.warmup else 1.0
    falling = schedule.decay * schedule.steps
    down = (schedule.steps - step) / falling if falling else 1.0
    return min(1.0, up, down)


def _optimizer(network: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    if schedule.optimizer == "muon":
        return Muon(network.parameters(), schedule.learning_rate, weight_decay=schedule.weight_decay)
    return torch.optim.AdamW(
        network.parameters(), lr=schedule.learning_rate, betas=(0.9, 0.99), weight_decay=schedule.weight_decay
    )


def validated(task: Task, network: nn.Module, schedule: Schedule, device: str) -> Metrics:
    """Return what a task measures of a network, in the precision that it is trained in."""
    with torch.inference_mode(), _precision(schedule, device):
        return task.validate(network)


def _batches(task: Task, first: int) -> Iterator[tuple[int, Arrays]]:
    """Give the batches from a step on, made ahead in other threads; the same whatever the first step is."""
    schedule = task.schedule
    workers = max(1, min(8, torch.get_num_threads() // 2))
    with ThreadPoolExecutor(1) as pools, ThreadPoolExecutor(workers) as draws:
        made: dict[int, Future[Any]] = {}

        def pool(number: int) -> Future[Any]:
            if number not in made:
                made[number] = pools.submit(task.pool, np.random.default_rng((schedule.seed, 0, number)))
            return made[number]

        def draw(step: int, prepared: Future[Any]) -> Arrays:
            return task.draw(prepared.result(), np.random.default_rng((schedule.seed, 1, step)))

        waiting: list[Future[Arrays]] = []
        try:
            for step in range(first, schedule.steps):
                while len(waiting) < _AHEAD + workers and step + len(waiting) < schedule.steps:
                    ahead = step + len(waiting)
                    waiting.append(draws.submit(draw, ahead, pool(ahead // schedule.pool_every)))
                number = step // schedule.pool_every
                if (number + 1) * schedule.pool_every < schedule.steps:
                    pool(number + 1)
                made.pop(number - 1, None)
                yield step, waiting.pop(0).result()
        finally:
            for future in (*waiting, *made.values()):
                future.cancel()


def _on(device: str, array: NDArray[Any]) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _precision(schedule: Schedule, device: str) -> Any:
    if schedule.precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16)


def _average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    ours, theirs = averaged.state_dict(), network.state_dict()
    floating = [name for name, tensor in ours.items() if tensor.is_floating_point()]
    with torch.no_grad():
        torch._foreach_lerp_([ours[name] for name in floating], [theirs[name] for name in floating], 1 - decay)
