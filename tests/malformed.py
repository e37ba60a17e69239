"""Malformed inputs, made by a seeded generator: what to write beside a good raw, and what must become of it."""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import tifffile
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.frames import write_frame, write_pair

Outcome = Literal["either", "rendered", "same", "failed"]
"""What must become of it: rendered or a named error; rendered; the undamaged picture; a named error."""

REPOSITORY = Path(__file__).parents[1]
DATA = REPOSITORY / "data"
ABSURD = (0, 1, 2, 3, 100_000, 65_535, 2**31 - 1, 2**31, 2**32 - 1)
"""Values that end up where a header has sizes, offsets, counts and levels."""

NAMES = (
    "with space",
    " leading and trailing ",
    "two\nlines",
    "tab\tand\rreturn",
    'it\'s "quoted" `so`',
    "$(touch harm); rm *",
    "-rf",
    "--help",
    "%s %n {frame} {0}",
    "[brackets]*?",
    "back\\slash",
    "夜の写真",
    "ночь",
    "لیل",
    "e\u0301 and \u00e9",
    "🌃" * 20,
    "\u202egnp",
    "CON",
    "dots...",
    "x" * 251,
    "長" * 83,
    os.fsdecode(b"latin-\xe9"),
)


@dataclass(frozen=True)
class Case:
    """One input: a kind to count it under, what it writes, what must become of its frame, whose name it begins with."""

    kind: str
    write: Callable[[Path, str], None]
    outcome: Outcome = "either"
    base: str = ""  # whose picture `same` means
    suffix: str = ".dng"
    name: str | None = None


def _content(content: bytes, suffix: str = ".dng") -> Callable[[Path, str], None]:
    return lambda folder, name: (folder / f"{name}{suffix}").write_bytes(content) and None


class Bases:
    """The undamaged files that damage is done to: small DNGs of every phase, pairs, data/, and cameras' raws."""

    def __init__(self, folder: Path, shared: Path | None) -> None:
        from nightisp.image import CFA

        self.tiny: dict[str, bytes] = {}
        for n, cfa in enumerate(CFA):
            odd = n % 2
            path = write_frame(folder / f"tiny{n}.dng", n, cfa=cfa, height=48 - odd, width=64 - odd)
            self.tiny[path.stem] = path.read_bytes()
        pair = write_pair(folder / "pair.png", 9)
        self.png, self.json = pair.read_bytes(), json.loads(pair.with_suffix(".json").read_text())
        self.real = {path.name: path.read_bytes() for path in sorted(DATA.glob("*.dng"))}
        if shared:
            raws = sorted((shared / "data" / "raw").glob("*.*"))
            self.real |= {path.name: path.read_bytes() for path in raws if path.stat().st_size < 5_000_000}
        self.real = {name: content for name, content in self.real.items() if not name.endswith(".png")}


def offset_of(content: bytes, code: int) -> tuple[int, int]:
    """Return where the values of a tag of the first TIFF directory begin, and how many bytes they take."""
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 9: 4, 10: 8, 11: 4, 12: 8}
    (ifd,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, ifd)
    for place in range(ifd + 2, ifd + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from("<HHI", content, place)
        if tag == code:
            size = sizes[kind] * count
            return (place + 8 if size <= 4 else struct.unpack_from("<I", content, place + 8)[0]), size
    raise KeyError(code)


def entry_of(content: bytes, code: int) -> int:
    """Return where the entry of a tag in the first TIFF directory begins."""
    (ifd,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, ifd)
    tags = {struct.unpack_from("<H", content, ifd + 2 + 12 * n)[0]: ifd + 2 + 12 * n for n in range(entries)}
    return tags[code]


def replaced(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def flipped(content: bytes, rng: random.Random, first: int, last: int, bits: int) -> bytes:
    damaged = bytearray(content)
    for _ in range(bits):
        damaged[rng.randrange(first, last)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


# Raws


def of_tiny(bases: Bases, rng: random.Random) -> Case:
    """Damage a small DNG: cut, flip, overwrite, insert, delete; half of it in the tags."""
    name = rng.choice(list(bases.tiny))
    content = bases.tiny[name]
    start, size = offset_of(content, 273)[0], 48 * 64 * 2
    (strip,) = struct.unpack_from("<I", content, start)
    match rng.randrange(7):
        case 0:
            return Case("DNG cut off", _content(content[: rng.randrange(len(content))]))
        case 1:
            damaged = flipped(content, rng, 0, strip, rng.choice((1, 1, 2, 8, 64)))
            return Case("DNG with flipped bits in its tags", _content(damaged))
        case 2:
            first, last = strip, min(strip + size, len(content))
            damaged = flipped(content, rng, first, last, rng.choice((1, 10, 1000)))
            return Case("DNG with flipped bits in its samples", _content(damaged), "rendered")
        case 3:
            at = rng.randrange(0, strip - 4, 2)
            damaged = replaced(content, at, struct.pack("<I", rng.choice(ABSURD)))
            return Case("DNG with an absurd number in its tags", _content(damaged))
        case 4:
            at, count = rng.randrange(len(content)), rng.randrange(1, 200)
            extra = rng.randbytes(count)
            return Case("DNG with bytes inserted", _content(content[:at] + extra + content[at:]))
        case 5:
            at, count = rng.randrange(len(content)), rng.randrange(1, 200)
            return Case("DNG with bytes deleted", _content(content[:at] + content[at + count :]))
        case _:
            extra = rng.randbytes(rng.randrange(1, 5000))
            return Case("DNG with bytes behind its end", _content(content + extra), "same", name)


def of_entry(bases: Bases, rng: random.Random) -> Case:
    """Set one tag's value, count or type to what it never is."""
    name = rng.choice(list(bases.tiny))
    content = bases.tiny[name]
    (ifd,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, ifd)
    place = ifd + 2 + 12 * rng.randrange(entries)
    match rng.randrange(3):
        case 0:
            damaged = replaced(content, place + 8, struct.pack("<I", rng.choice(ABSURD)))
        case 1:
            damaged = replaced(content, place + 4, struct.pack("<I", rng.choice(ABSURD)))
        case _:
            damaged = replaced(content, place + 2, struct.pack("<H", rng.choice((0, 1, 2, 5, 12, 13, 255, 65535))))
    return Case("DNG with a nonsensical tag", _content(damaged))


def of_real(bases: Bases, rng: random.Random) -> Case:
    """Cut a real raw off or flip bits in it."""
    name = rng.choice(list(bases.real))
    content, suffix = bases.real[name], Path(name).suffix
    match rng.randrange(4):
        case 0:
            length = int(len(content) * rng.random() ** 3)
            return Case("real raw cut off", _content(content[:length], suffix), suffix=suffix)
        case 1:
            damaged = flipped(content, rng, 0, min(4096, len(content)), rng.choice((1, 4, 32)))
            return Case("real raw with flipped bits in its head", _content(damaged, suffix), suffix=suffix)
        case 2:
            damaged = flipped(content, rng, max(0, len(content) - 4096), len(content), rng.choice((1, 4, 32)))
            return Case("real raw with flipped bits at its end", _content(damaged, suffix), suffix=suffix)
        case _:
            damaged = flipped(content, rng, 0, len(content), rng.choice((1, 100, 10_000)))
            return Case("real raw with flipped bits anywhere", _content(damaged, suffix), suffix=suffix)


def directed_tags(bases: Bases) -> Iterator[Case]:
    """Levels, sizes, matrices and neutrals that cannot be, each by itself, in a DNG that is else as it was."""
    content = bases.tiny["tiny0"]

    def with_tag(code: int, values: bytes) -> bytes:
        at, size = offset_of(content, code)
        return replaced(content, at, (values * (size // len(values) + 1))[:size])

    def whole(value: int, code: int) -> bytes:
        return struct.pack("<H" if offset_of(content, code)[1] == 2 else "<I", value & 0xFFFFFFFF)

    for side in (0, 1, 2, 3, 21, 100_000, 2**31 - 1, 2**32 - 1):
        for codes in ((256,), (257,), (256, 257)):
            damaged = content
            for code in codes:
                entry = entry_of(content, code)
                damaged = replaced(damaged, entry + 2, struct.pack("<HII", 4, 1, side))
            yield Case("absurd size", _content(damaged), "failed" if side > 3 and side != 21 else "either")
    for white in (0, 1, 2**16 - 1, 2**31, 2**32 - 1):
        entry = entry_of(content, 50717)
        damaged = replaced(content, entry + 2, struct.pack("<HII", 4, 1, white))
        yield Case("zero or absurd white level", _content(damaged), "either")
    for black in (0, 1, 2**31, 2**32 - 1, 0xFFFF0000):
        yield Case("zero, absurd or inverted black level", _content(with_tag(50714, struct.pack("<I", black))))
    for matrix in ((0, 1), (1, 1), (-1, 1), (1, 0), (0, 0), (2**31 - 1, 1), (1, 2**31 - 1)):
        yield Case("singular or absurd matrix", _content(with_tag(50721, struct.pack("<ii", *matrix))))
    rows = struct.pack("<18i", *(1, 2, 2, 2, 3, 2) * 3)
    yield Case("singular or absurd matrix", _content(with_tag(50721, rows)))
    yield Case("no matrix", _content(replaced(content, entry_of(content, 50721), struct.pack("<H", 50999))), "either")
    for neutral in ((0, 1), (1, 0), (0, 0), (1, 1), (2**32 - 1, 1), (1, 2**32 - 1)):
        yield Case("absurd neutral", _content(with_tag(50728, struct.pack("<II", *neutral))))
    for number in (np.nan, np.inf, -np.inf, -1.0, 1e308, 5e-324):
        yield Case("absurd noise profile", _content(with_tag(51041, struct.pack("<d", number))))
    for pattern in (b"\0\0\0\0", b"\1\1\1\1", b"\0\1\2\3", b"\2\2\1\0", b"\xff\xff\xff\xff"):
        yield Case("absurd color filters", _content(with_tag(33422, pattern)))


def _dng(samples: np.ndarray[Any, Any], **options: Any) -> bytes:
    tags = [
        (33421, "H", 2, (2, 2), True),
        (33422, "B", 4, bytes((0, 1, 1, 2)), True),
        (50706, "B", 4, bytes((1, 4, 0, 0)), True),
        (50708, "s", 0, "Acme One", True),
        (50714, "I", 1, 512, True),
        (50717, "I", 1, 60_000, True),
        (50721, "2i", 9, tuple(n for v in (66, -8, -9, -45, 125, 22, -10, 20, 61) for n in (v, 100)), True),
        (50728, "2I", 3, (1, 2, 1, 1, 3, 5), True),
    ]
    file = BytesIO()
    given = {"photometric": 32803, "metadata": None, "software": "", "byteorder": "<"} | options
    tifffile.imwrite(file, samples, extratags=tags, **given)
    return file.getvalue()


def directed_scenes(bases: Bases) -> Iterator[Case]:
    """All black, all white, one hot pixel, one row, odd sizes, and floats with NaN, infinite and negative samples."""
    for value in (0, 511, 512, 513, 30_000, 59_999, 60_000, 65_535):
        flat = np.full((48, 64), value, np.uint16)
        yield Case("flat picture", _content(_dng(flat)))  # gray world finds no light in a black one
        hot = flat.copy()
        hot[17, 23] = 65_535 - value
        yield Case("one hot or dead pixel", _content(_dng(hot)))
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (1, 64), (64, 1), (2, 2), (3, 3), (21, 21), (22, 22), (23, 25), (47, 63), (22, 2001)):
        content = _dng(rng.integers(500, 60_000, (height, width)).astype(np.uint16))
        yield Case("tiny or odd size", _content(content), "rendered" if min(height, width) > 21 else "either")
        pixels = rng.integers(500, 60_000, (height, width)).astype(np.uint16)
        done, png = cv2.imencode(".png", pixels)
        assert done

        def write(folder: Path, name: str, png: bytes = png.tobytes()) -> None:
            _write_pair(folder, name, png, bases.json)

        yield Case("tiny or odd size", write, "rendered" if min(height, width) > 1 else "failed", suffix=".png")
    for value in (np.nan, np.inf, -np.inf, -1.0, -1e30, 1e30):
        for share in (0.001, 1.0):
            floats = rng.uniform(600, 50_000, (48, 64)).astype(np.float32)
            floats[rng.random((48, 64)) <= share] = value
            yield Case("floats with NaN, infinite, negative", _content(_dng(floats)))


# The challenge's pairs


def _write_pair(folder: Path, name: str, png: bytes, document: Any) -> None:
    (folder / f"{name}.png").write_bytes(png)
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    (folder / f"{name}.json").write_bytes(text)


_FIELDS = [
    "black_level",
    "white_level",
    "cfa_pattern",
    "as_shot_neutral",
    "color_matrix_1",
    "color_matrix_2",
    "noise_profile",
    "orientation",
    "linearization_table",
    "calibration_illuminant_1",
    "camera_name",
]
_NUMBERS = st.one_of(
    st.sampled_from(
        [0, -1, 1, 2, 65535, 2**16, 2**31, 2**63, 10**400, -0.0, 1e-320, 1e308, float("nan"), float("inf")]
    ),
    st.integers(-(2**40), 2**40),
    st.floats(),
    st.builds(lambda a, b: {"Fraction": [a, b]}, st.integers(-9, 9), st.integers(-1, 9)),
)
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.text(max_size=8), _NUMBERS),
    lambda inner: st.lists(inner, max_size=10) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=20,
)
_LISTS = st.sampled_from([1, 2, 3, 4, 6, 8, 9]).flatmap(lambda n: st.lists(_NUMBERS, min_size=n, max_size=n))
DOCUMENTS = st.one_of(
    st.dictionaries(st.sampled_from(_FIELDS), st.one_of(_VALUES, _LISTS), min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(_FIELDS), _LISTS, min_size=1, max_size=2),
)
"""Fields to lay over a good JSON."""


def drawn(strategy: st.SearchStrategy[Any], count: int, number: int) -> list[Any]:
    """Draw so many examples, the same for the same seed."""
    found: list[Any] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found


def of_json(bases: Bases, rng: random.Random, documents: list[dict[str, Any]]) -> Case:
    """Lay hypothesis' fields over a good JSON, or damage its text."""
    whole = json.dumps(bases.json).encode()
    match rng.randrange(8):
        case 0:
            document: Any = whole[: rng.randrange(len(whole))]
        case 1:
            document = flipped(whole, rng, 0, len(whole), rng.choice((1, 3)))
        case 2:
            name = rng.choice(list(bases.json))
            document = {key: value for key, value in bases.json.items() if key != name}
        case _:
            document = bases.json | rng.choice(documents)
    return Case("JSON fuzzed", lambda folder, name: _write_pair(folder, name, bases.png, document), suffix=".png")


def of_png(bases: Bases, rng: random.Random) -> Case:
    """Cut a PNG off or flip bits in it; or put absurd sizes and a right checksum into its header."""
    import zlib

    content = bases.png
    outcome: Outcome = "failed"
    match rng.randrange(4):
        case 0:
            damaged = content[: rng.randrange(len(content) - 1)]
        case 1:
            damaged = flipped(content, rng, 0, len(content), 1)
            outcome = "either"  # the checksum of IEND may be hit, or the suffix of a chunk that nobody needs
        case 2:
            head = b"IHDR" + struct.pack(">IIBBBBB", rng.choice(ABSURD), rng.choice(ABSURD), 16, 0, 0, 0, 0)
            damaged = replaced(content, 12, head + struct.pack(">I", zlib.crc32(head)))
        case _:
            kept = rng.randrange(0, 25)
            head = (b"IHDR" + struct.pack(">IIBBBBB", 64, 48, 16, 0, 0, 0, 0))[:kept].ljust(4, b"X")
            damaged = content[:8] + struct.pack(">I", len(head) - 4) + head + struct.pack(">I", zlib.crc32(head))
            damaged += content[33:]
            outcome = "failed" if kept < 17 else "either"
    write = lambda folder, name: _write_pair(folder, name, damaged, bases.json)  # noqa: E731
    return Case("PNG damaged", write, outcome, suffix=".png")


def same_pair(bases: Bases, rng: random.Random) -> Case:
    """Write what means the same: fields in another order, blanks, fields that nobody knows."""
    items = [*bases.json.items(), (f"unknown{rng.random()}", rng.choice([None, [], {"a": 1}, "x" * 1000]))]
    rng.shuffle(items)
    text = json.dumps(dict(items), indent=rng.randrange(9)).encode()
    write = lambda folder, name: _write_pair(folder, name, bases.png, text)  # noqa: E731
    return Case("JSON in another order", write, "same", "pair", ".png")


# Sidecars

SIDECARS = st.one_of(
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=200),
    st.dictionaries(
        st.sampled_from(["tone", "export", "ingest", "color", "nonsense"]), st.one_of(_VALUES, _LISTS), max_size=2
    ).map(lambda tree: json.dumps(tree).encode()),
    st.tuples(
        st.sampled_from(
            [
                "ingest.black_level",
                "ingest.white_level",
                "tone.gamma",
                "export.longest",
                "export.format",
                "export.quality",
            ]
        ),
        st.one_of(_NUMBERS, _VALUES),
    ).map(lambda pair: json.dumps({pair[0].split(".")[0]: {pair[0].split(".")[1]: pair[1]}}).encode()),
)


def of_sidecar(bases: Bases, rng: random.Random, contents: list[bytes]) -> Case:
    """Put what hypothesis drew beside a good DNG as its sidecar."""
    name = rng.choice(list(bases.tiny))
    sidecar = rng.choice(contents)

    def write(folder: Path, stem: str) -> None:
        (folder / f"{stem}.dng").write_bytes(bases.tiny[name])
        (folder / f"{stem}.dng.nightisp.yaml").write_bytes(sidecar)

    return Case("sidecar fuzzed", write)


# Files and names


def directed_files(bases: Bases) -> Iterator[Case]:
    """Loops, dangling links, folders, pipes, devices, files without rights, names as no one should have them."""
    content = bases.tiny["tiny1"]

    def file(act: Callable[[Path], Any]) -> Callable[[Path, str], None]:
        return lambda folder, name: act(folder / f"{name}.dng") and None

    yield Case("link to itself", file(lambda path: path.symlink_to(path.name)), "failed")
    yield Case("dangling link", file(lambda path: path.symlink_to("nowhere.dng")), "failed")
    yield Case("link to its folder", file(lambda path: path.symlink_to(".")), "failed")
    yield Case("folder with a raw's name", file(lambda path: path.mkdir()), "failed")
    yield Case("pipe", file(os.mkfifo), "failed")
    for device in ("/dev/zero", "/dev/null", "/dev/full"):
        yield Case("device", file(lambda path, device=device: path.symlink_to(device)), "failed")
    yield Case("endless file of the system", file(lambda path: path.symlink_to("/proc/self/mem")), "failed")
    yield Case("empty file", file(lambda path: path.touch()), "failed")
    yield Case("large and hollow", file(_hollow), "failed")

    def linked(folder: Path, name: str) -> None:
        (folder / f".{name}").write_bytes(content)
        (folder / f"{name}.dng").symlink_to(f".{name}")

    yield Case("link to a raw", linked, "same", "tiny1")

    def unreadable(folder: Path, name: str) -> None:
        (folder / f"{name}.dng").write_bytes(content)
        (folder / f"{name}.dng").chmod(0)

    yield Case("no right to read", unreadable)  # root may
    for name in NAMES:
        yield Case("odd name", _content(content), "same" if name.isprintable() else "either", "tiny1", name=name)


def _hollow(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(300 * 10**6)


def cases(bases: Bases, count: int, number: int) -> list[Case]:
    """Return so many cases: those directed at what is known to hurt, and random ones; the same for the same seed."""
    rng = random.Random(number)
    found = [*directed_files(bases), *directed_scenes(bases), *directed_tags(bases)]
    documents, sidecars = drawn(DOCUMENTS, max(count // 4, 20), number), drawn(SIDECARS, max(count // 8, 20), number)
    makers: list[Callable[[], Case]] = [
        *[lambda: of_tiny(bases, rng)] * 8,
        *[lambda: of_entry(bases, rng)] * 4,
        *[lambda: of_real(bases, rng)] * 4,
        *[lambda: of_json(bases, rng, documents)] * 6,
        *[lambda: of_png(bases, rng)] * 2,
        lambda: same_pair(bases, rng),
        *[lambda: of_sidecar(bases, rng, sidecars)] * 3,
    ]
    while len(found) < count:
        found.append(rng.choice(makers)())
    rng.shuffle(found)
    return found[:count]
