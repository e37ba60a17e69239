"""Turn raw photographs taken at night into finished sRGB pictures."""

__version__ = "0.1.0"
