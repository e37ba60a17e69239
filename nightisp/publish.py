"""Put finished files into a folder: whole or not at all, and only where something changes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from nightisp.errors import OutputError, is_transient
from nightisp.usage import beside, sweep

LONGEST_NAME = 255  # bytes of a file name, on the file systems in use

FORBIDDEN = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f-\x9f\ud800-\udfff]')
"""What no file name holds on Linux, macOS or Windows: separators, wildcards, control characters, lone surrogates."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)

_REMEDIES = {
    errno.ENOSPC: "free some space and run again; every finished stage is kept in the store",
    errno.EDQUOT: "free some of your quota and run again; every finished stage is kept in the store",
    errno.EROFS: "the file system is read-only; choose another folder with --output",
    errno.EACCES: "make it writable for you, or choose another folder with --output",
    errno.EPERM: "make it writable for you, or choose another folder with --output",
    errno.ENOTDIR: "a part of the path is a file; choose another folder with --output",
    errno.EEXIST: "a file stands where the folder should be; move it, or choose another folder with --output",
    errno.EISDIR: "a folder has the picture's name; move it, or choose another folder with --output",
}


def target(output: Path, frame: str, suffix: str) -> Path:
    """Return where the picture of a frame goes: always a file directly in `output`.

    A frame whose name is no file name everywhere (separators, `..`, control characters, Windows' reserved names, too
    many bytes) gets one from what can be kept of it and 8 hex digits of its SHA-256, so that two frames never share
    one.

    Examples
    --------
    >>> target(Path("output"), "IMG_8210", ".jpg").name
    'IMG_8210.jpg'
    >>> target(Path("output"), "../IMG_8210", ".jpg").name
    '_IMG_8210-74875719.jpg'
    """
    room = LONGEST_NAME - len(suffix.encode())
    safe = FORBIDDEN.sub("_", frame).lstrip(".")
    reserved = _RESERVED.fullmatch(frame) is not None
    if safe != frame or not safe or reserved or len(safe.encode()) > room:
        digest = hashlib.sha256(frame.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        kept = safe.replace(".", "_") if reserved else safe or "frame"  # CON.x is reserved as CON is
        safe = f"{kept.encode()[: room - 9].decode('utf-8', 'ignore')}-{digest}"
    return output / f"{safe}{suffix}"


def claim(
    output: Path,
    frame: str,
    suffix: str,
    raw: Path,
    digest: str,
    is_ours: Callable[[Path], bool],
    *,
    yields: bool = False,
) -> Path:
    """Return where the picture of a frame goes, never in the place of a file that is not that frame's.

    Who owns a picture stands in `.nightisp/<name>.sha256` beside it: the digest of its raw, and the way to it. A raw
    that was moved, or changed in its place, keeps its picture's name. A name that another raw has, or a file that
    nightisp did not write (a camera's JPEG, the raw itself), is left alone: the first 8 digits of the digest join the
    name.

    Parameters
    ----------
    raw, digest
        The raw file, and the digest of its content.
    is_ours
        Tells whether a file that nobody owns is the very picture, so that it may be taken over.
    yields
        Whether a name that nobody has yet is left to another raw that wants it too.

    Raises
    ------
    OutputError
        If both names are taken, or the folder cannot be written.
    """
    way = Path(os.path.relpath(raw, output)).as_posix()
    for name in (frame, f"{frame}-{digest[:8]}"):
        path = target(output, name, suffix)
        mark = _mark(path)
        try:
            text = mark.read_text("utf-8", "surrogateescape") if mark.exists() else ""
            owner = text.split("\n") if text else []  # empty: cut off while an older nightisp wrote it
            left = yields and name == frame
            free = not owner and (is_ours(path) if os.path.lexists(path) else not left)
            if free or digest in owner[:1] or way in owner[1:]:
                if owner != [digest, way]:
                    publish(f"{digest}\n{way}".encode("utf-8", "surrogateescape"), mark)
                return path
        except OutputError:
            raise
        except OSError as error:
            raise _explained(mark, error) from error
    raise OutputError(f"{path}: the file there is not nightisp's; move it, or choose another folder with --output")


def is_published(path: Path) -> bool:
    """Tell whether a file is a picture that nightisp wrote."""
    with contextlib.suppress(OSError):  # a name as long as names may be has no room for a mark
        return _mark(path).is_file()
    return False


def _mark(path: Path) -> Path:
    name = path.name
    if len(os.fsencode(name)) > LONGEST_NAME - len(".sha256"):
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return _marks(path.parent) / f"{name}.sha256"


def _marks(output: Path) -> Path:
    return output / ".nightisp"


def publish(content: bytes, path: Path) -> bool:
    """Write a file so that it is there whole or not at all; leave one that is the same already untouched.

    The bytes go to a temporary file beside, reach the disk, and take the name in one step. On any failure, an
    interrupt too, the temporary file is removed and what was there before stays.

    Returns
    -------
    bool
        Whether anything was written.

    Raises
    ------
    OutputError
        If the folder cannot be written, the disk is full, or a folder has the file's name.
    """
    if path.is_dir():
        raise OutputError(f"{path}: {os.strerror(errno.EISDIR)}; {_REMEDIES[errno.EISDIR]}")
    if _holds(path, content):
        return False
    temporary = beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _explained(path, error) from error
    return True


def check_writable(folder: Path) -> None:
    """Create the folder if it is missing, make sure that a file can be written into it; remove what the killed left.

    Raises
    ------
    OutputError
        If it cannot.
    """
    probe = beside(folder / "probe")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
        sweep(folder)
        sweep(_marks(folder))
    except OSError as error:
        raise _explained(folder, error) from error


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:  # missing, or not readable: either way it is to be written
        return False


def _explained(path: Path, error: OSError) -> OutputError:
    remedy = _REMEDIES.get(error.errno or 0, "choose another folder with --output")
    explained = OutputError(f"{path}: cannot be written ({error.strerror or error}); {remedy}")
    explained.transient = is_transient(error)
    return explained
