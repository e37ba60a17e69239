"""What a stage is: one record that the flow, DVC, the command line, the cache keys and the docs follow from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from nightisp.errors import ImageTypeError
from nightisp.image import Shot


class Params(BaseModel):
    """Parameters of a stage: frozen, unknown names refused, every field with bounds and a description."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


PRECISION = "what the network computes in; auto: bfloat16 where the device computes it natively, else float32"
"""Description of the parameter `precision`, the same wherever a network runs."""


class Networks(Protocol):
    """Gives a stage its networks; the device they run on never enters a key."""

    def __call__(self, name: str) -> Any:
        """Return the loaded network whose weights are called `name`, in eval mode on its device.

        Raises
        ------
        WeightsNotFoundError, WeightsMismatchError, DeviceError
        """
        ...


def _no_weights(_params: Any) -> tuple[str, ...]:
    return ()


def _nothing_to_check(_shot: Shot, _params: Any) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the pipeline.

    `run` is pure: `run(image, params)`, or `run(image, params, networks)` where `device` is "gpu". It reads no file,
    clock or global, and modifies no input. `weights` names the weights that these params use; their digests enter
    the key. `check` raises before any pixel is computed if the shot gives the params no ground to work from. `imports`
    names the modules that `run` imports at its first call, for whoever has time to do so before.
    """

    name: str
    run: Callable[..., Any]
    takes: type
    gives: type
    params: type[Params]
    device: Literal["cpu", "gpu"] = "cpu"
    weights: Callable[[Any], tuple[str, ...]] = _no_weights
    check: Callable[[Shot, Any], None] = _nothing_to_check
    cite: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """Name of the module that holds `run`."""
        return self.run.__module__

    @property
    def summary(self) -> str:
        """First line of the docstring of `run`."""
        return (inspect.getdoc(self.run) or "").partition("\n")[0]

    def __call__(self, image: Any, params: Params, networks: Networks | None = None) -> Any:
        """Run the stage, having checked that `image` is what it takes.

        Raises
        ------
        ImageTypeError
            If `image` is in another state than `takes`.
        """
        if not isinstance(image, self.takes):
            raise ImageTypeError(f"{self.name} takes a {self.takes.__name__}, not a {type(image).__name__}")
        return self.run(image, params, networks) if self.device == "gpu" else self.run(image, params)
