"""The pure stages, in order. Adding one: write its module, add its line."""

from nightisp.stages import color, demosaic, denoise, refine, super_resolution, tone, white_balance

STAGES = (
    denoise.STAGE,
    white_balance.STAGE,
    demosaic.STAGE,
    color.STAGE,
    tone.STAGE,
    refine.STAGE,
    super_resolution.STAGE,
)
