"""Find, check and load the weights of networks; torch is imported only where a network is loaded."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from nightisp.errors import (
    DeviceError,
    ParamsError,
    WeightsError,
    WeightsMismatchError,
    WeightsNotFoundError,
)
from nightisp.models import build
from nightisp.models.checkpoints import SLOTS, import_checkpoint
from nightisp.models.heap import MEMORY, keep_freed_memory
from nightisp.models.weightfile import SUFFIX, content_digest, mismatch, read_card, read_tensors, write

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["SLOTS", "Compute", "Entry", "Library", "import_checkpoint", "write"]


def is_name(name: str) -> bool:
    """Tell whether weights may be called so: no path, which would lead out of the folders of weights."""
    return re.fullmatch(r"[^/\\\x00]+", name) is not None and len(name.encode(errors="replace")) < _LONGEST_NAME


_LONGEST_NAME = 240  # bytes; file systems end at 255, suffix included


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of weights, as `nightisp weights list` shows it."""

    name: str
    path: Path
    size: int
    digest: str
    network: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    problem: str = ""  # why it cannot be used


class Library:
    """The weights in some folders; of two files of one name the one in the earlier folder counts.

    Parameters
    ----------
    folders
        In order of search. A folder that is not there counts as empty.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(Path(folder) for folder in folders)
        self._loaded: dict[tuple[Path, str], tuple[str, nn.Module]] = {}
        self._lock = Lock()

    def find(self, name: str) -> Path:
        """Return the file of the weights called `name`.

        Raises
        ------
        WeightsNotFoundError
            With the folders searched, and what to do.
        """
        if not is_name(name):
            raise WeightsNotFoundError(
                f"{name[:80]!r}: is no name of weights; expected a file's name, without folder and {SUFFIX}, "
                "for example hat. Put the file into weights/, or into the folder of --weights"
            )
        for folder in self.folders:
            path = folder / f"{name}{SUFFIX}"
            if path.is_file():
                return path
        stage, slot = next(
            ((stage, slot) for stage, slot in SLOTS.items() if re.fullmatch(rf"{slot.name}(_\w+)?", name)),
            ("STAGE", None),
        )
        raise WeightsNotFoundError(
            f"{name}: no weights of this name in {', '.join(map(str, self.folders)) or 'no folder at all'}. "
            f"Import them: `nightisp weights import {stage} FILE`"
            + (f", or choose a method that needs none: {slot.remedy}" if slot else "")
        )

    def digest(self, name: str) -> str:
        """Return the SHA-256 of the file of the weights called `name`."""
        return _digest_of(self.find(name))

    def load(self, name: str, device: torch.device | str = "cpu") -> nn.Module:
        """Return the network of the weights called `name`, in eval mode on a device; read once, then shared.

        Raises
        ------
        WeightsNotFoundError
            If there are none.
        WeightsMismatchError
            If the file is damaged, or does not fit the network that it names.
        DeviceError
            If the device has too little memory.
        """
        path = self.find(name)
        with self._lock:
            digest = _digest_of(path)
            known = self._loaded.get((path, str(device)))
            if known is None or known[0] != digest:
                known = digest, _loaded(path, str(device))
                if _digest_of(path) != digest:
                    raise WeightsMismatchError(f"{path}: was replaced while it was read; run again")
                self._loaded[path, str(device)] = known
            return known[1]

    def entries(self) -> list[Entry]:
        """Return all weights, by name; those that cannot be used say why in `problem`."""
        paths: dict[str, Path] = {}
        for folder in self.folders:
            for path in sorted(folder.glob(f"[!.]*{SUFFIX}")):
                paths.setdefault(path.stem, path)
        return [_entry(name, paths[name]) for name in sorted(paths)]

    def verify(self) -> dict[str, str]:
        """Read all weights in full and return, by name, what is wrong with each: "" if nothing is.

        Names and shapes must fit the network, numbers be finite, and the content's digest be the one written.
        """
        return {entry.name: entry.problem or _problem(entry) for entry in self.entries()}


class Compute:
    """Gives stages their networks on one device (`nightisp.stage.Networks`).

    Parameters
    ----------
    library
        Where the weights are.
    device
        "auto" (CUDA if there is one), "cpu", "cuda" or "cuda:N"; looked for when first needed.
    memory
        Bytes that the features of a network may take, where it can run in tiles without other pictures.
    """

    def __init__(self, library: Library, device: str = "auto", memory: int = MEMORY) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            raise ParamsError(f"{device}: no such device; expected auto, cpu, cuda or cuda:0, cuda:1, ...")
        keep_freed_memory()
        self.library = library
        self.memory = memory
        self._asked = device
        self._fetched: set[str] = set()
        self._guard = Lock()
        self._device: torch.device | None = None

    def limit(self, memory: int) -> None:
        """Let features take so many bytes, or what they may take by default if that is less."""
        self.memory = min(MEMORY, memory)

    def __call__(self, name: str) -> nn.Module:
        """Return the network of the weights called `name`."""
        return self.library.load(name, self.device)

    def fetch(self, names: Iterable[str], modules: Iterable[str] = ()) -> None:
        """Begin to load weights, then modules, in another thread: other stages run while PyTorch is imported.

        What goes wrong is told to whoever then asks for the network. The process does not end before it is done, as
        PyTorch cannot be left half imported.
        """

        def load(wanted: tuple[str, ...], lacking: tuple[str, ...]) -> None:
            with contextlib.suppress(Exception):
                for name in wanted:
                    self(name)
                for name in lacking:
                    import_module(name)

        lacking = tuple(name for name in modules if name not in sys.modules)
        with self._guard:
            wanted = tuple(name for name in names if name not in self._fetched)
            self._fetched.update(wanted)
        if wanted or lacking:
            Thread(target=load, args=(wanted, lacking), name="weights").start()

    @property
    def device(self) -> torch.device:
        """The device that networks run on.

        Raises
        ------
        DeviceError
            If CUDA was asked for and is not there.
        """
        if self._device is None:
            self._device = _resolved(self._asked)
        return self._device


def _resolved(asked: str) -> torch.device:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "auto":
        asked = "cuda" if count else "cpu"
    if asked == "cpu":
        return torch.device("cpu")
    number = int(asked.partition(":")[2] or 0)
    if number >= count:
        built = torch.version.cuda or "the CPU only"
        raise DeviceError(
            f"{asked}: torch (built for {built}) sees {count} CUDA devices; "
            "choose --device cpu or auto, or install a driver and a torch that fit the graphics card"
        )
    return torch.device("cuda", number)


def _digest_of(path: Path) -> str:
    try:
        stat = path.stat()
        return _digest(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, modified: int) -> str:  # noqa: ARG001 -- size and time make the memory forget
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _loaded(path: Path, device: str) -> nn.Module:
    import torch

    card = read_card(path)
    network = _empty(path, card)
    try:
        tensors = read_tensors(path, device, card["content_sha256"])
    except torch.OutOfMemoryError as error:
        raise DeviceError(f"{path}: does not fit into the memory of {device}; choose --device cpu") from error
    if difference := mismatch(network.state_dict(), tensors):
        raise WeightsMismatchError(f"{path}: does not fit its network: {difference}; import it again")
    network.load_state_dict(tensors, assign=True)
    network.to(memory_format=torch.channels_last)  # twice as fast on the CPU
    network.card = card  # what the network expects to see: a stage reads it where that differs between weights
    return network


def _empty(path: Path, card: dict[str, Any]) -> nn.Module:
    """Return the network without memory for its parameters: nothing is drawn only to be overwritten."""
    import torch

    try:
        with torch.device("meta"):
            return build(card["network"], **card["arguments"])
    except KeyError as error:
        raise WeightsMismatchError(f"{path}: its card lacks {error}; import it again") from error
    except (ParamsError, TypeError) as error:
        raise WeightsMismatchError(f"{path}: {error}; it may come from a newer nightisp") from error


def _entry(name: str, path: Path) -> Entry:
    try:
        size, digest = path.stat().st_size, _digest_of(path)
    except (OSError, WeightsError) as error:
        return Entry(name, path, 0, "", problem=str(error))
    try:
        card = read_card(path)
    except WeightsError as error:
        return Entry(name, path, size, digest, problem=str(error))
    return Entry(name, path, size, digest, card["network"], card["overrides"], card)


def _problem(entry: Entry) -> str:
    import torch
    from safetensors.torch import load_file

    try:
        difference = mismatch(_empty(entry.path, entry.card).state_dict(), read_tensors(entry.path))
    except WeightsError as error:
        return str(error)
    if difference:
        return f"{entry.path}: does not fit {entry.network}: {difference}"
    stored = load_file(entry.path)
    if content_digest(stored) != entry.card["content_sha256"]:
        return f"{entry.path}: its tensors are not those that were written; import it again"
    broken = [name for name, tensor in stored.items() if not torch.isfinite(tensor).all()]
    return f"{entry.path}: {broken[0]} holds NaN or infinity" if broken else ""
