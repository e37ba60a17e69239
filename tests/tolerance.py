"""How far two numbers may lie apart, and why; a test that needs more says so here."""

FLOAT32 = 1e-6
"""A handful of float32 roundings of values near 1: 2**-23 each."""

UINT16 = 0.5 / 65535 + 1e-7
"""Half a step of 16 bits, and the float32 arithmetic around it."""

FLOAT16 = 2.0**-11
"""Relative: half a step of float16's 11 significant bits."""

NETWORK = 1e-5
"""The same convolutions, summed in another order by another tile."""

GOLDEN_COLOR = 2e-6
"""Golden values come from float64 matrices, ours from float32 ones."""

PUBLISHED_CURVE = 0.003
"""Asked for at the 17 published samples, which are rounded to four digits and read off by nearest sample."""

PUBLISHED_FOOT = 0.02
"""Relative; asked for at the three small published samples."""

GOLDEN_TONE = 0.004
"""Asked for: golden values read the published curve at the nearest of 1025 samples, up to 0.0013 off where steepest."""

GOLDEN_GAMMA = 1e-6
"""Asked for: a power in float32 and in float64."""

EDGE_AWARE_GAINS = 2 / 65535
"""Edge-aware interpolation before and after gains: its integer means round either way, and gains enlarge that."""

BLACK_BODY_XY = 1e-3
"""The cubic fit of the black-body locus against its integral by Planck's law; its authors claim less."""

KELVIN = 0.01
"""Relative; correlated color temperature by search along the locus, whose steps are half a mired."""

SRGB_MATRIX = 1e-3
"""Camera to sRGB by another's printed matrices, which have four digits and other white points in the last."""

STORAGE_OVER_NOISE = 0.1
"""Asked for: what storing adds stays below a tenth of the noise that is there."""
