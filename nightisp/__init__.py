"""Turn raw photographs taken at night into finished sRGB pictures.

>>> import nightisp
>>> picture = nightisp.render("night.dng", tone={"gamma": 2.8})  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nightisp.inmemory import render, show, steps

__version__ = "0.1.0"
__all__ = ["__version__", "render", "show", "steps"]


def __getattr__(name: str) -> Any:
    """Import what computes only when it is asked for: the command line's help need not wait for it."""
    if name in __all__:
        from nightisp import inmemory

        return getattr(inmemory, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
