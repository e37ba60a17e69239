# mypy: disallow-subclassing-any=False
"""FC4 estimates the color of the light by confidence-weighted pooling.

After :cite:`hu2017fc4`, on the features of SqueezeNet 1.1 (:cite:`iandola2016squeezenet`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

SMALLEST = 33  # below it nothing is left after the strided convolution and the three pools
_PLACES = (3, 4, 6, 7, 9, 10, 11)  # of the fire modules; ReLU and pools stand between them


class FC4(nn.Module):
    """Estimate the color of the light from a picture in camera RGB.

    Parameters
    ----------
    stem
        Features of the first convolution.
    squeeze
        Features that each of the seven fire modules squeezes to; it gives eight times as many.
    head
        Features before the last convolution.
    """

    def __init__(self, stem: int = 64, squeeze: Sequence[int] = (16, 16, 32, 32, 48, 48, 64), head: int = 64) -> None:
        super().__init__()
        if len(squeeze) != len(_PLACES):
            raise ValueError(f"squeeze has {len(squeeze)} widths; expected {len(_PLACES)}")
        layers: list[nn.Module] = [nn.Conv2d(3, stem, 3, stride=2), nn.ReLU(inplace=True)]
        features = stem
        for place, narrow in zip(_PLACES, squeeze, strict=True):
            if place > len(layers):
                layers.append(nn.MaxPool2d(3, stride=2, ceil_mode=True))
            layers.append(_Fire(features, narrow))
            features = 8 * narrow
        self.backbone = nn.Sequential(*layers)
        self.final_convs = nn.Sequential(
            nn.MaxPool2d(2, stride=1, ceil_mode=True),
            nn.Conv2d(features, head, 6, padding=3),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Conv2d(head, 4, 1),
            nn.ReLU(inplace=True),
        )

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the color of the light, and the local estimates and confidences that it was pooled from.

        Parameters
        ----------
        rgb
            float (N, 3, H, W) in [0, 1], camera RGB encoded by a gamma of 1 / 2.2. A side below 33 is grown by
            repeating its last row or column.

        Returns
        -------
        illuminant
            (N, 3), of length 1 and not negative; all zero where the network is confident of nothing.
        colors
            (N, 3, h, w), local estimates of length 1 (or 0), near a sixteenth of the width and height.
        confidence
            (N, 1, h, w), not negative.
        """
        short = [max(0, SMALLEST - side) for side in rgb.shape[-2:]]
        if any(short):
            rgb = F.pad(rgb, (0, short[1], 0, short[0]), mode="replicate")
        local = self.final_convs(self.backbone(rgb.to(self.backbone[0].weight.dtype)))  # (N, 4, h, w)
        colors = F.normalize(local[:, :3], dim=1)
        confidence = local[:, 3:]
        illuminant = F.normalize((colors * confidence).sum(dim=(2, 3)), dim=1)
        return illuminant, colors, confidence


class _Fire(nn.Module):
    """Squeeze to few features, then expand by 1 x 1 and 3 x 3 convolutions side by side."""

    def __init__(self, features: int, narrow: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(features, narrow, 1)
        self.expand1x1 = nn.Conv2d(narrow, 4 * narrow, 1)
        self.expand3x3 = nn.Conv2d(narrow, 4 * narrow, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x), inplace=True)
        return F.relu(torch.cat((self.expand1x1(x), self.expand3x3(x)), dim=1), inplace=True)


def variant(shapes: Mapping[str, torch.Size]) -> dict[str, object]:
    """Return the constructor's arguments that give tensors of these names and shapes."""
    return {
        "stem": shapes["backbone.0.weight"][0],
        "squeeze": tuple(shapes[f"backbone.{place}.squeeze.weight"][0] for place in _PLACES),
        "head": shapes["final_convs.1.weight"][0],
    }
