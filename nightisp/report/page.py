"""Write pages: templates filled in with everything escaped, one file, and a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from nightisp import __version__
from nightisp.preview import BRIGHTEST_PERCENTILE
from nightisp.report.distribution import STOPS
from nightisp.report.drawings import TONE_STOPS, histogram, tone_plot

if TYPE_CHECKING:
    from jinja2 import Environment


def page(template: str, **content: Any) -> bytes:
    """Fill in a template of `templates/`; the same content gives the same bytes.

    The page needs no network and may use none: its Content-Security-Policy allows pictures that it carries, and the
    one style sheet and the one script by their digests.
    """
    style, script = (_text(name) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    filled = _environment().get_template(template).render(style=style, script=script, policy=policy, **content)
    return filled.encode("utf-8", "replace")  # a name may hold half a character, as file systems allow


def share(value: float) -> str:
    """Return a share for people: what is not nothing never reads as nothing.

    Examples
    --------
    >>> share(0), share(0.00004), share(0.0123), share(0.5)
    ('0 %', '< 0.01 %', '1.23 %', '50.0 %')
    """
    percent = 100 * value
    if percent == 0:
        return "0 %"
    if percent < 0.01:
        return "< 0.01 %"
    return f"{percent:.2f} %" if percent < 10 else f"{percent:.1f} %"


def seconds(value: float) -> str:
    """Return a time for people.

    Examples
    --------
    >>> seconds(0.0123), seconds(2.345), seconds(75)
    ('0.01 s', '2.3 s', '1 min 15 s')
    """
    if value < 60:
        return f"{value:.2f} s" if value < 1 else f"{value:.1f} s"
    return f"{value // 60:.0f} min {value % 60:.0f} s"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("nightisp.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"share": share, "seconds": seconds, "histogram": histogram, "tone_plot": tone_plot}
    made.globals |= {"version": __version__, "STOPS": STOPS, "TONE_STOPS": TONE_STOPS}
    made.globals["BRIGHTEST"] = f"{100 - BRIGHTEST_PERCENTILE:g}"
    return made


def _text(name: str) -> Any:
    from markupsafe import Markup

    return Markup(files("nightisp.report").joinpath("templates", name).read_text("utf-8"))  # noqa: S704 - ours


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
