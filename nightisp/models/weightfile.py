"""One file of weights: safetensors whose header says which network they are, beside a model card to be read."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nightisp.errors import WeightsError, WeightsMismatchError
from nightisp.models import PRESETS

SUFFIX = ".safetensors"
_HEADER = "nightisp"


def read_card(path: Path) -> dict[str, Any]:
    """Return what a weight file says of itself: at least `network`, `overrides` and `content_sha256`.

    Reads the header only, without torch.

    Raises
    ------
    WeightsMismatchError
        If the file is no safetensors file, or not one of nightisp's.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            header = (file.metadata() or {}).get(_HEADER)
        card = json.loads(header) if header else None
    except (SafetensorError, ValueError) as error:
        raise WeightsMismatchError(
            f"{path}: is damaged, or no safetensors file ({error}); import it again: "
            "`nightisp weights import STAGE FILE --overwrite`"
        ) from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not isinstance(card, dict) or not {"network", "overrides", "content_sha256"} <= card.keys():
        raise WeightsMismatchError(
            f"{path}: does not say which network it belongs to; expected a file that nightisp wrote: "
            "`nightisp weights import STAGE FILE` makes one of it"
        )
    return card


def read_tensors(path: Path, device: str = "cpu", digest: str | None = None) -> dict[str, Any]:
    """Return the tensors of a weight file, in float32 where they are floating-point.

    Parameters
    ----------
    digest
        What `content_digest` must say of them, as the card tells; None to take them as they are.

    Raises
    ------
    WeightsMismatchError
        If the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, ValueError) as error:
        raise WeightsMismatchError(f"{path}: is damaged: {error}; import it again") from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    if digest is not None and content_digest(tensors) != digest:
        raise WeightsMismatchError(f"{path}: is damaged: its tensors are not those that were written; import it again")
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def write(path: Path, tensors: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    """Write a weight file and its model card; each is there whole or not at all.

    Parameters
    ----------
    path
        Ends in ".safetensors"; the card lies beside it, ending in ".md".
    tensors
        Tensor by name.
    card
        JSON values, at least `network` and `overrides`; `content_sha256` is added.

    Raises
    ------
    WeightsError
        If the folder cannot be written to.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # All arguments, not only those that differ from the preset: the digest of the file, which enters keys, then stands
    # for everything that makes the network. The source's name stays out of it: it makes no difference to a picture.
    arguments = {**PRESETS.get(card["network"], {}), **card["overrides"]}
    card = {**card, "arguments": arguments, "content_sha256": content_digest(stored)}
    header = {name: value for name, value in card.items() if name != "source"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(path) as beside:
            save_file(stored, beside, metadata={_HEADER: json.dumps(header, sort_keys=True)})
        with _replacing(path.with_suffix(".md")) as beside:
            beside.write_text(_as_markdown(path.stem, card), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be written: {error}") from error


def content_digest(tensors: Mapping[str, Any]) -> str:
    """Return a SHA-256 over names, dtypes, shapes and bytes of tensors, whatever file they lie in."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].numpy()
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def mismatch(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Say how names and shapes of tensors differ from what a network has; "" if they do not."""
    shapes = {
        f"{name} is {tuple(found[name].shape)} instead of {tuple(tensor.shape)}": None
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    }
    findings = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": list(shapes),
    }
    return "; ".join(f"{len(names)} {what}: {_first(names)}" for what, names in findings.items() if names)


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    import psutil

    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        owner = left.suffixes[-2].lstrip(".")
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            left.unlink(missing_ok=True)  # of a process that was killed
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _as_markdown(name: str, card: Mapping[str, Any]) -> str:
    ours = "training" in card
    rows = "".join(f"| {key} | {_cell(value)} |\n" for key, value in card.items() if key != "training")
    if ours:
        rows += "".join(f"| training: {key} | {_cell(value)} |\n" for key, value in card["training"].items())
    closing = (
        "The photographs are those of the table named above, each under its own free license."
        if ours and "sources_and_licenses" in card["training"].get("photographs", {})
        else "License, training set and purpose are what their authors say; add them here."
    )
    opening = f"Weights of the network `{card['network']}`, for nightisp."
    return f"# {name}\n\n{opening}\n\n| | |\n| --- | --- |\n{rows}\n{closing}\n"


def _cell(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|")
