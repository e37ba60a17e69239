"""What the network of drafts learns: to make of a binned picture what U-Net and MWISPNet together make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from nightisp.errors import ParamsError
from nightisp.metrics import ciede2000, psnr, ssim
from nightisp.models.weights import Compute
from nightisp.training.loop import Arrays, Metrics
from nightisp.training.photographs import Photographs
from nightisp.training.rendering import render_draft
from nightisp.training.retouching import (
    REDUCTION,
    Array,
    RefineTraining,
    Retouching,
    planes,
    repeated,
)


class DraftTraining(RefineTraining):
    """How the network of drafts is trained."""

    widths: tuple[int, int, int] = Field((32, 48, 64), description="features of the network at 1/8, 1/16 and 1/32")
    blocks: int = Field(3, ge=1, description="residual blocks of each of its groups")
    denoiser: str = Field("denoise_unet", min_length=1, description="weights of the U-Net that it is to do without")
    teacher: str = Field("mwispnet", min_length=1, description="weights of the MWISPNet that it is to stand for")


@dataclass
class Drafting(Retouching):
    """The task of `nightisp train draft`: a narrow MWISPNet that a wide one teaches.

    What it sees is binned and noisy; what it is to give is what the wide one gives of the same part, denoised and in
    full size.
    """

    params: DraftTraining
    photographs: Photographs
    networks: Compute | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Raise `ParamsError` if there are no weights to learn from."""
        if self.networks is None:
            raise ParamsError(f"teacher: {self.params.teacher}: expected weights to take it from")

    @property
    def identity(self) -> Mapping[str, Any]:
        """Parameters, digest of the photographs, and those of the networks that are learned from."""
        assert self.networks is not None
        return {**super().identity, "teacher_sha256": self.networks.library.digest(self.params.teacher)}

    @property
    def card(self) -> Mapping[str, Any]:
        """What the weights expect to see, and what they stand for."""
        assert self.networks is not None
        stands_for = {name: self.networks.library.digest(name) for name in (self.params.denoiser, self.params.teacher)}
        return {"sees": "what tone gives of a binned mosaic", "stands_for": stands_for}

    def pair(self, photograph: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return a night as the first six stages render it in full size, and as they render its draft."""
        assert self.networks is not None
        return render_draft(photograph, self.draw_night(rng, photograph), rng, self.networks, self.params.denoiser)

    def draw(self, pool: list[tuple[Array, Array]], rng: np.random.Generator) -> Arrays:
        """Return crops of drafts, and of the full size."""
        side, samples = self.params.crop, []
        for number in rng.integers(len(pool), size=self.schedule.batch):
            full, draft = pool[number]
            top, left = (int(rng.integers((length - side) // REDUCTION + 1)) for length in full.shape[:2])
            seen = draft[2 * top :, 2 * left :][: side // 2, : side // 2]
            whole = full[REDUCTION * top :, REDUCTION * left :][:side, :side]
            samples.append((planes(seen), planes(whole)))
        return tuple(np.stack(arrays) for arrays in zip(*samples, strict=True))

    def loss(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """Return the mean absolute difference to what the teacher gives, and what of it repeats from block to block."""
        seen, full = batch
        with torch.no_grad():
            wanted = self._teacher(full).float()
        difference = network(seen, binned=True).float() - wanted
        return difference.abs().mean() + self.params.grid * repeated(difference)

    def validate(self, network: nn.Module) -> Metrics:
        """Return how near held-out drafts come to the finished pictures, and how near the teacher's own come.

        In float32, as both sides of the comparison come from networks.
        """
        device = next(network.parameters()).device
        with torch.autocast(device.type, enabled=False):
            return self._validated(network, device)

    def _validated(self, network: nn.Module, device: torch.device) -> Metrics:
        rows = []
        for full, draft in self.held_out:
            seen, whole = (torch.from_numpy(planes(p)).unsqueeze(0).to(device) for p in (draft, full))
            wanted = _picture(self._teacher(whole))
            rows.append(
                [
                    f(_picture(refined(seen, binned=True)), wanted)
                    for refined in (network, self._teacher)
                    for f in (psnr, ciede2000, ssim)
                ]
            )
        names = ("psnr", "ciede2000", "ssim")
        both = (*names, *(f"{name}_of_teacher" for name in names))
        return dict(zip(both, np.mean(rows, axis=0).tolist(), strict=True))

    @cached_property
    def _teacher(self) -> nn.Module:
        assert self.networks is not None
        teacher: nn.Module = self.networks(self.params.teacher)
        return teacher


def _picture(output: Tensor) -> Array:
    return np.asarray(np.clip(output.float()[0].permute(1, 2, 0).cpu().numpy(), 0, 1))
