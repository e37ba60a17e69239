"""What pictures are called: a template such as `{frame}_{look}`, filled in with what is known of each shot."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from string import Formatter

from nightisp.errors import ParamsError
from nightisp.image import Shot
from nightisp.pipeline import nearest
from nightisp.publish import FORBIDDEN
from nightisp.sources import Source

FRAME = "{frame}"
"""The template of those who choose none."""

FIELDS = {
    "frame": "the raw's name without its suffix",
    "look": "name of the look, `default` without one",
    "camera": "make and model",
    "lens": "model of the lens",
    "date": "of the shot, local: 2021-03-26",
    "time": "of the shot, local: 21-16-32",
    "iso": "sensitivity: 3200",
}
"""What may stand in a template; what a raw does not tell becomes `unknown`."""

UNKNOWN = "unknown"
_NO_LOOK = "default"


@dataclass(frozen=True, slots=True)
class Naming:
    """How the pictures of a run are called.

    Parameters
    ----------
    template
        Text with fields of `FIELDS` in braces, a brace itself doubled; a name, never a path.
    look
        Name of the run's look, if it has one.

    Raises
    ------
    ParamsError
        If the template names an unknown field, holds what no file name may, or is empty.

    Examples
    --------
    >>> shot = Shot(camera="Canon EOS 7D", captured="2021-03-26T21:16:32")
    >>> Naming("{date}_{camera}_{look}", "street").name("IMG_1", shot)
    '2021-03-26_Canon EOS 7D_street'
    """

    template: str = FRAME
    look: str | None = None

    def __post_init__(self) -> None:
        told = f"--name {self.template}"
        try:
            parts = list(Formatter().parse(self.template))
        except ValueError as error:
            raise ParamsError(f"{told}: {error}; expected for example {{frame}}_{{look}}, {{{{ for a brace") from None
        for literal, field, form, conversion in parts:
            if found := FORBIDDEN.search(literal):
                raise ParamsError(
                    f"{told}: {found[0]!r} may not stand in a file's name; choose the folder with --output, and part "
                    "fields by _ or -"
                )
            if field is not None and (field not in FIELDS or form or conversion):
                written = field + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
                raise ParamsError(
                    f"{told}: {{{written}}}: no such field; there are "
                    f"{', '.join(f'{{{known}}}' for known in FIELDS)}{nearest(field, tuple(FIELDS))}"
                )
        if not self.template.strip() or self.template.startswith("."):
            raise ParamsError(f"{told}: empty, or hidden by a dot; expected for example {{frame}}_{{look}}")

    def name(self, frame: str, shot: Shot) -> str:
        """Return the name of a frame's picture, without suffix.

        What no file name may hold becomes `_` in what the raw tells. Of the frame's name `nightisp.publish.target`
        takes care, which keeps names apart that would become one.
        """
        date, time = _moment(shot.captured)
        told = {
            "look": self.look or _NO_LOOK,
            "camera": shot.camera,
            "lens": shot.lens,
            "date": date,
            "time": time,
            "iso": f"{shot.iso:.0f}" if shot.iso else "",
        }
        return self.template.format(frame=frame, **{field: _cleaned(text) or UNKNOWN for field, text in told.items()})


def give_names(named: Iterable[tuple[Source, str]]) -> list[Source]:
    """Return sources with the names of their pictures, so that no two of a run get one file.

    Of different raws that want one name, the first has it; the others take it only if it is theirs since an earlier run
    (`nightisp.publish.claim`). Copies of one raw, which may differ in their sidecars, are numbered: `dusk`, `dusk-2`.
    """
    wanted: dict[str, set[str]] = {}
    sources = []
    for source, first in named:
        name, copies = first, 1
        while source.digest in wanted.get(_folded(name), ()):
            copies += 1
            name = f"{first}-{copies}"
        digests = wanted.setdefault(_folded(name), set())
        sources.append(replace(source, picture=name, yields=bool(digests)))
        digests.add(source.digest)
    return sources


def _folded(name: str) -> str:
    """Return what is the same for names that some file system takes for one."""
    return unicodedata.normalize("NFC", name).casefold()


def _moment(captured: str | None) -> tuple[str, str]:
    try:
        moment = datetime.fromisoformat(captured or "")
    except ValueError:
        return "", ""
    return f"{moment:%Y-%m-%d}", f"{moment:%H-%M-%S}"


def _cleaned(text: str) -> str:
    """Return a text on one line, with `_` for what no file name holds and for what cannot be seen."""
    safe = "".join(letter if letter.isprintable() else "_" for letter in " ".join(text.split()))
    return FORBIDDEN.sub("_", safe).strip(" .")
