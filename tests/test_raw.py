import json
import os
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import exiv2
import numpy as np
import pytest
import rawpy
import tifffile

from nightisp import exif, libraw
from nightisp.bayer import positions
from nightisp.errors import RawFileError, RawFileNotFoundError, UnsupportedSensorError, is_transient
from nightisp.image import CFA, Mosaic
from nightisp.raw import INGEST, IngestParams, RawFile, ingest, inspect, linearize
from nightisp.refusals import CAUSES, readable

SHARED = Path(os.environ.get("NIGHTISP_SHARED", Path(__file__).parents[1] / "../shared"))
RAWS = SHARED / "data" / "raw"
needs_raws = pytest.mark.skipif(not RAWS.is_dir(), reason="the shared camera raws are not here (NIGHTISP_SHARED)")

# Positions of the 2 x 2 block differ by color and by green, so that a wrong phase shows.
LEVELS = {"R": 0.25, "G": 0.5, "B": 0.75}
# LibRaw takes nothing below 22 x 22; 23 x 25 is odd in both directions.
SHAPE = (24, 26)


def write_dng(
    path: Path,
    samples: np.ndarray,
    cfa: str = "RGGB",
    *,
    black: tuple[int, ...] = (0, 0, 0, 0),
    white: int = 65535,
    tags: tuple[tuple, ...] = (),
    **options: object,
) -> Path:
    given = {tag[0] for tag in tags}
    basic = [
        (271, "s", 0, "Acme", True),
        (272, "s", 0, "Acme One", True),
        (33421, "H", 2, (2, 2), True),
        (33422, "B", 4, bytes("RGB".index(color) for color in cfa), True),
        (50706, "B", 4, bytes((1, 4, 0, 0)), True),
        (50708, "s", 0, "Acme One", True),
        (50713, "H", 2, (2, 2), True),
        (50714, "I", 4, black, True),
        (50717, "I", 1, white, True),
    ]
    extra = [tag for tag in basic if tag[0] not in given] + [tag for tag in tags if tag[2] is not None]
    options = {"photometric": 32803, "metadata": None, "software": "", "byteorder": "<"} | options
    tifffile.imwrite(path, samples, extratags=extra, **options)
    return path


def rationals(*values: float) -> tuple[int, ...]:
    return tuple(part for value in values for part in (round(value * 10_000), 10_000))


def colored(shape: tuple[int, int], cfa: CFA) -> np.ndarray:
    return np.array([[LEVELS[cfa.color_at(y, x)] for x in range(shape[1])] for y in range(shape[0])])


def write_png(path: Path, samples: np.ndarray, color: int = 0) -> Path:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(samples.dtype.newbyteorder(">")).tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 8 * samples.dtype.itemsize, color, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


PAIR = {"black_level": [100, 200, 300, 400], "white_level": 1100, "cfa_pattern": [1, 2, 0, 1]}
ZERO_BY_ZERO = {"Fraction": [0, 0]}


def write_pair(folder: Path, samples: np.ndarray, **fields: object) -> Path:
    kept = {name: value for name, value in (PAIR | fields).items() if value != "absent"}
    (folder / "shot.json").write_text(json.dumps(kept))
    return write_png(folder / "shot.png", samples.astype(np.uint16))


def read(path: Path, **params: float) -> Mosaic:
    return ingest(RawFile(path), IngestParams(**params))


# Levels and phase


def test_linearize_by_hand() -> None:
    samples = np.array([[64, 1023], [0, 543]], np.uint16)
    linear = linearize(samples, (64, 23, 10, 63), 1023)
    np.testing.assert_allclose(linear, [[0, 1], [-10 / 1013, 0.5]], rtol=1e-6)
    assert linear.dtype == np.float32
    assert samples[0, 0] == 64


@pytest.mark.parametrize("cfa", list(CFA))
@pytest.mark.parametrize("shape", [(24, 26), (23, 26), (24, 25), (23, 25)])
def test_dng_in_every_phase(tmp_path: Path, cfa: CFA, shape: tuple[int, int]) -> None:
    black = (100, 200, 300, 400)
    block = np.tile(np.array(black).reshape(2, 2), (13, 13))[: shape[0], : shape[1]]
    samples = (block + colored(shape, cfa) * (8000 - block)).astype(np.uint16)
    mosaic = read(write_dng(tmp_path / "a.dng", samples, cfa, black=black, white=8000))

    assert mosaic.cfa == CFA.BGGR
    assert mosaic.samples.dtype == np.float32
    assert mosaic.samples.shape[0] % 2 == mosaic.samples.shape[1] % 2 == 0
    assert mosaic.visible().shape == shape
    assert mosaic.shot.black_level == black
    assert mosaic.shot.white_level == 8000
    for color, level in LEVELS.items():
        for y, x in positions(CFA.BGGR, color):
            np.testing.assert_allclose(mosaic.samples[y::2, x::2], level, atol=2e-4)


@pytest.mark.parametrize("cfa", list(CFA))
@pytest.mark.parametrize("area", [(4, 2, 28, 30), (3, 2, 28, 30), (4, 5, 28, 31), (3, 5, 28, 30), (1, 1, 29, 31)])
def test_active_area_moves_pattern_and_black(tmp_path: Path, cfa: CFA, area: tuple[int, int, int, int]) -> None:
    # DNG counts CFAPattern and BlackLevel from the active area's corner. LibRaw rounds odd margins up by one.
    top, left, bottom, right = area
    black = np.array([[100, 200], [300, 400]])
    samples = np.full((30, 32), 65000, np.uint16)  # what is masked must not be seen
    size = (bottom - top, right - left)
    block = np.tile(black, (16, 16))[: size[0], : size[1]]
    samples[top:bottom, left:right] = block + colored(size, cfa) * (8000 - block)
    tags = ((50829, "I", 4, area, True),)
    path = write_dng(tmp_path / "a.dng", samples, cfa, black=tuple(black.ravel()), white=8000, tags=tags)
    with rawpy.imread(str(path)) as libraw:
        visible = (libraw.sizes.height, libraw.sizes.width)
        pattern = "".join("RGBG"[i] for i in libraw.raw_colors_visible[:2, :2].ravel())

    mosaic = read(path)
    assert mosaic.visible().shape == visible
    assert inspect(path).cfa == pattern
    for color, level in LEVELS.items():
        for y, x in positions(CFA.BGGR, color):
            np.testing.assert_allclose(mosaic.samples[y::2, x::2], level, atol=2e-4)


def test_pattern_is_that_of_the_visible_corner() -> None:
    from nightisp.libraw import _pattern

    class OddMargins:
        raw_type, color_desc = rawpy.RawType.Flat, b"RGBG"
        sizes = SimpleNamespace(top_margin=1, left_margin=3)

        def raw_color(self, row: int, column: int) -> int:
            return [[0, 1], [3, 2]][row % 2][column % 2]

    assert _pattern(OddMargins(), exif.Tags({}), Path("a.nef")) == (CFA.BGGR, [2, 3, 1, 0])


def test_nothing_is_clipped(tmp_path: Path) -> None:
    samples = np.full(SHAPE, 500, np.uint16)
    samples[3, 4], samples[5, 6] = 400, 1400
    mosaic = read(write_dng(tmp_path / "a.dng", samples, black=(500,) * 4, white=1300))
    assert mosaic.samples.min() == np.float32(-0.125)
    assert mosaic.samples.max() == np.float32(1.125)


def test_levels_given_by_hand_override_the_files(tmp_path: Path) -> None:
    path = write_dng(tmp_path / "a.dng", np.full(SHAPE, 600, np.uint16), black=(100, 200, 300, 400), white=8000)
    mosaic = read(path, black_level=400, white_level=800)
    assert np.all(mosaic.samples == np.float32(0.5))
    assert (mosaic.shot.black_level, mosaic.shot.white_level) == ((400,) * 4, 800)
    with pytest.raises(RawFileError, match=r"a\.dng: white level 300 is not above black level 400"):
        read(path, white_level=300)


@pytest.mark.parametrize("bad", [{"black_level": -1}, {"white_level": 0}, {"white_level": 70000}, {"gamma": 2}])
def test_params_out_of_bounds_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        IngestParams(**bad)


class FakeLibRaw:
    white_level = 4000

    def __init__(self, per_color: list[int] | None) -> None:
        self.camera_white_level_per_channel = per_color


@pytest.mark.parametrize(
    ("per_color", "above", "white"),
    [
        (None, 0, 4000),
        ([0, 0, 0, 0], 0, 4000),
        ([3800, 3700, 3900, 0], 0, 3700),
        ([3800, 3700, 3900, 0], 1, 3700),
        ([3800, 3700, 3900, 0], 2, 4000),
        ([4100] * 4, 0, 4000),
    ],
)
def test_white_level_is_the_lower_unless_too_much_exceeds_it(
    per_color: list[int] | None, above: int, white: int
) -> None:
    from nightisp.libraw import _white_level

    samples = np.zeros(1000, np.uint16)
    samples[:above] = 3701
    assert _white_level(FakeLibRaw(per_color), samples.reshape(20, 50)) == white


def test_smallest_and_one_row(tmp_path: Path) -> None:
    samples = np.array([[100, 1200], [300, 1400]])
    assert read(write_pair(tmp_path, samples)).visible().shape == (2, 2)
    with pytest.raises(RawFileError, match="1 x 4; expected 2 x 2"):
        read(write_pair(tmp_path, np.ones((1, 4))))


def test_stage_record(tmp_path: Path) -> None:
    path = write_dng(tmp_path / "a.dng", np.full(SHAPE, 600, np.uint16))
    first, second = (INGEST(RawFile(path), IngestParams()) for _ in range(2))
    assert np.array_equal(first.samples, second.samples)
    assert first.state() == second.state()
    assert first.rounded().state() == first.state()


# What is known of the exposure


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(tmp_path: Path, orientation: int) -> None:
    tags = ((274, "H", 1, orientation, True),)
    path = write_dng(tmp_path / "a.dng", np.full(SHAPE, 600, np.uint16), tags=tags)
    mosaic = read(path)
    assert mosaic.shot.orientation == orientation
    assert mosaic.visible().shape == SHAPE


@pytest.mark.parametrize("nonsense", [0, 9, 13])
def test_orientation_out_of_bounds_is_upright(tmp_path: Path, nonsense: int) -> None:
    path = write_dng(tmp_path / "a.dng", np.full(SHAPE, 600, np.uint16), tags=((274, "H", 1, nonsense, True),))
    assert read(path).shot.orientation == 1


MATRIX = (0.9, -0.2, -0.1, -0.4, 1.2, 0.2, -0.05, 0.15, 0.6)


def test_dng_color_tags(tmp_path: Path) -> None:
    calibration = (1.1, 0, 0, 0, 1, 0, 0, 0, 0.9)
    tags = (
        (50721, "2i", 9, rationals(*MATRIX), True),
        (50722, "2i", 9, rationals(*(2 * m for m in MATRIX)), True),
        (50778, "H", 1, 17, True),
        (50779, "H", 1, 21, True),
        (50723, "2i", 9, rationals(*calibration), True),
        (50727, "2I", 3, rationals(1.5, 1, 1), True),
        (50728, "2I", 3, rationals(0.25, 0.5, 0.4), True),
        (51041, "d", 2, (1e-4, 2e-7), True),
    )
    shot = read(write_dng(tmp_path / "a.dng", np.full(SHAPE, 600, np.uint16), tags=tags)).shot
    first, second = shot.color_matrices
    assert (first.illuminant, second.illuminant) == (17, 21)
    by_hand = np.array(MATRIX).reshape(3, 3) * np.array([[1.5 * 1.1], [1], [0.9]])
    np.testing.assert_allclose(first.xyz_to_camera, by_hand, atol=1e-4)
    np.testing.assert_allclose(second.xyz_to_camera, 2 * np.array(MATRIX).reshape(3, 3) * [[1.5], [1], [1]], atol=1e-4)
    assert shot.as_shot_neutral == pytest.approx((0.5, 1, 0.8))
    assert shot.noise_profile == ((1e-4, 2e-7),)
    assert shot.camera == "Acme One"


def test_matrices_without_known_lights(tmp_path: Path) -> None:
    both = ((50721, "2i", 9, rationals(*MATRIX), True), (50722, "2i", 9, rationals(*MATRIX), True))
    path = write_dng(tmp_path / "a.dng", np.full(SHAPE, 600, np.uint16), tags=both)
    assert [matrix.illuminant for matrix in read(path).shot.color_matrices] == [21]
    none = read(write_dng(tmp_path / "b.dng", np.full(SHAPE, 600, np.uint16))).shot
    assert none.color_matrices == ()


def test_as_shot_white_as_chromaticity(tmp_path: Path) -> None:
    tags = ((50721, "2i", 9, rationals(*MATRIX), True), (50729, "2I", 2, rationals(0.3127, 0.329), True))
    shot = read(write_dng(tmp_path / "a.dng", np.full(SHAPE, 600, np.uint16), tags=tags)).shot
    red, green, blue = np.array(MATRIX).reshape(3, 3) @ [0.3127 / 0.329, 1, 0.3583 / 0.329]
    assert shot.as_shot_neutral == pytest.approx((red / green, 1, blue / green), abs=1e-4)


@pytest.mark.parametrize("neutral", [(1, 1, 1), (0, 1, 1), (0.5, 0, 0.5)])
def test_unusable_neutral_is_none(tmp_path: Path, neutral: tuple[float, float, float]) -> None:
    tags = ((50728, "2I", 3, rationals(*neutral), True),)
    assert read(write_dng(tmp_path / "a.dng", np.full(SHAPE, 600, np.uint16), tags=tags)).shot.as_shot_neutral is None


def test_exif_is_carried_and_cleaned(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tags = (
        (306, "s", 0, "2024:12:24 18:30:05", True),
        (315, "s", 0, "J\xf6rg".encode("latin-1"), True),
        (33434, "2I", 1, (1, 4), True),
        (33437, "2I", 1, (0, 10), True),
        (37500, "B", 8, b"secret!!", True),
    )
    shot = read(write_dng(tmp_path / "a.dng", np.full(SHAPE, 600, np.uint16), tags=tags)).shot
    assert shot.exif["Exif.Image.Artist"] == "Jörg"
    assert shot.exif["Exif.Photo.ExposureTime"] == "1/4"
    assert (shot.exposure_s, shot.f_number) == (0.25, None)
    assert shot.captured == "2024-12-24T18:30:05"
    assert "Exif.Photo.FNumber" not in shot.exif
    assert not [key for key in shot.exif if "Maker" in key or "Orientation" in key]
    json.dumps(shot.exif).encode()
    assert capfd.readouterr().err == ""


def test_make_is_not_said_twice() -> None:
    def camera(make: str, model: str) -> str:
        return exif.camera(exif.Tags({"Exif.Image.Make": make, "Exif.Image.Model": model}))

    assert camera("Canon", "Canon EOS D30") == "Canon EOS D30"
    assert camera("GoPro", "HERO8 Black") == "GoPro HERO8 Black"
    assert camera("NIKON CORPORATION", "NIKON D1 ") == "NIKON D1"
    assert camera("", "") == ""


# The challenge's pair


def test_pair_by_hand(tmp_path: Path) -> None:
    # GBRG: green 100, blue 200, red 300, green 400 are black.
    samples = np.array([[100, 200, 600, 1100], [300, 400, 700, 750], [1100, 1100, 100, 200]])
    path = write_pair(
        tmp_path,
        samples,
        as_shot_neutral=[{"Fraction": [1, 2]}, 1, {"Fraction": [3, 4]}],
        color_matrix_1=list(MATRIX),
        color_matrix_2=[{"Fraction": [round(value * 10_000), 10_000]} for value in MATRIX],
        orientation=[6],
        noise_profile=[1e-4, 1e-6],
        camera_name="Acme One",
    )
    mosaic = read(path)
    linear = [[0, 0, 0.5, 1], [0, 0, 0.5, 0.5], [1, 1, 0, 0]]
    np.testing.assert_allclose(mosaic.visible(), linear, atol=1e-7)
    assert mosaic.samples.shape == (4, 6)
    assert mosaic.window == (0, 1, 3, 4)  # one column of red and green to the left
    np.testing.assert_allclose(mosaic.samples[:, 0], mosaic.samples[:, 2])
    shot = mosaic.shot
    assert shot.as_shot_neutral == (0.5, 1, 0.75)
    assert [matrix.illuminant for matrix in shot.color_matrices] == [17, 21]
    np.testing.assert_allclose(shot.color_matrices[1].xyz_to_camera, np.reshape(MATRIX, (3, 3)))
    assert (shot.orientation, shot.camera, shot.noise_profile) == (6, "Acme One", ((1e-4, 1e-6),))
    summary = inspect(path)
    assert (summary.height, summary.width, summary.cfa, summary.shot.camera) == (3, 4, CFA.GBRG, "Acme One")


def test_pair_single_values_and_fractions(tmp_path: Path) -> None:
    fields = {
        "black_level": {"Fraction": [200, 2]},
        "white_level": [{"Fraction": [1100, 1]}],
        "linearization_table": None,
    }
    mosaic = read(write_pair(tmp_path, np.full((2, 2), 600), **fields))
    assert np.all(mosaic.visible() == np.float32(0.5))
    assert mosaic.shot.black_level == (100,) * 4


def test_pair_linearization_table(tmp_path: Path) -> None:
    # 0 -> 100, 1 -> 350, 2 and more -> 1100: the last value holds on.
    fields = {"black_level": 100, "linearization_table": [100, 350, 1100]}
    mosaic = read(write_pair(tmp_path, np.array([[0, 1], [2, 9]]), **fields))
    np.testing.assert_allclose(mosaic.visible(), [[0, 0.25], [1, 1]])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("black_level", "absent", "black_level is missing"),
        ("white_level", "absent", "white_level is missing"),
        ("cfa_pattern", "absent", "cfa_pattern is missing"),
        ("black_level", [1, 2], r"black_level is \[1, 2\]; expected 1 or 4"),
        ("black_level", -5, "black_level is -5; expected no negative number"),
        ("white_level", "high", "white_level is 'high'"),
        ("white_level", {"Fraction": [1, 0]}, "white_level is"),
        ("white_level", True, "white_level is True"),
        ("white_level", 10**400, "white_level is 1000"),
        ("cfa_pattern", [0, 1, 1], "cfa_pattern is"),
        ("cfa_pattern", [0, 0, 1, 2], "cfa_pattern is"),
        ("cfa_pattern", [0, 1, 1, 3], "cfa_pattern is"),
        ("cfa_pattern", [-1, 1, 1, 0], "cfa_pattern is"),
        ("orientation", 9, "orientation is 9"),
        ("orientation", ZERO_BY_ZERO, "orientation is"),
        ("color_matrix_1", [1, 2, 3], "color_matrix_1 is"),
        ("color_matrix_2", [ZERO_BY_ZERO] * 9, "color_matrix_2 is"),
        ("color_matrix_1", [0] * 9, r"color_matrix_1 is \[0, .*; expected nine numbers, not all 0"),
        ("white_level", [1, 2], r"white_level is \[1, 2\]; expected one finite number\. "),
        ("white_level", ZERO_BY_ZERO, "white_level is"),
    ],
)
def test_pair_with_a_bad_field(tmp_path: Path, field: str, value: object, message: str) -> None:
    path = write_pair(tmp_path, np.ones((4, 4)), **{field: value})
    for look in (read, inspect):
        with pytest.raises(RawFileError, match=rf"shot\.json: {message}"):
            look(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"linearization_table": [0, "a"]}, "linearization_table is"),
        ({"color_matrix_1": list(range(9)), "calibration_illuminant_1": ZERO_BY_ZERO}, "calibration_illuminant_1 is"),
    ],
)
def test_pair_with_a_bad_field_that_decoding_finds(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    path = write_pair(tmp_path, np.ones((4, 4)), **fields)
    with pytest.raises(RawFileError, match=rf"shot\.json: {message}"):
        inspect(path)


@pytest.mark.parametrize(
    ("field", "value", "known", "unknown"),
    [
        ("camera_name", 7, "camera", ""),
        ("camera_name", ["Acme"], "camera", ""),
        ("as_shot_neutral", [0, 0, 0], "as_shot_neutral", None),
        ("as_shot_neutral", [ZERO_BY_ZERO] * 3, "as_shot_neutral", None),
        ("as_shot_neutral", [0.5, 1], "as_shot_neutral", None),
        ("as_shot_neutral", "daylight", "as_shot_neutral", None),
        ("noise_profile", [1, -1], "noise_profile", ()),
        ("noise_profile", [1e-4, 1e-6, 1e-4], "noise_profile", ()),
        ("noise_profile", [1e-4, 1e-6, 3e-4, 1e-6, -1e-4, 1e-6, 1e-4, 1e-6], "noise_profile", ()),
        ("noise_profile", [ZERO_BY_ZERO, 1e-6], "noise_profile", ()),
    ],
)
def test_pair_with_an_unusable_field_that_can_be_done_without(
    tmp_path: Path, field: str, value: object, known: str, unknown: object
) -> None:
    path = write_pair(tmp_path, np.ones((4, 4)), **{field: value})
    for shot in (read(path).shot, inspect(path).shot):
        assert getattr(shot, known) == unknown


def test_pair_noise_of_each_photosite(tmp_path: Path) -> None:
    # GBRG: green 2 and 6, blue 3, red 5 times 1e-4; the two greens are one plane.
    noise = [2e-4, 2e-6, 3e-4, 3e-6, 5e-4, 5e-6, 6e-4, 6e-6]
    shot = read(write_pair(tmp_path, np.ones((4, 4)), cfa_pattern=[1, 2, 0, 1], noise_profile=noise)).shot
    np.testing.assert_allclose(shot.noise_profile, [(5e-4, 5e-6), (4e-4, 4e-6), (3e-4, 3e-6)])


@pytest.mark.parametrize(
    ("file", "params", "levels"),
    [
        ("pair", {}, "400 is not above black level 400"),
        ("pair", {"black_level": 64}, None),
        ("pair", {"white_level": 1100}, None),
        ("pair", {"black_level": 500, "white_level": 450}, "450 is not above black level 500"),
        ("dng", {}, "400 is not above black level 400"),
        ("dng", {"black_level": 64}, None),
        ("dng", {"white_level": 1100}, None),
        ("dng", {"black_level": 1000}, "400 is not above black level 1000"),
    ],
)
def test_check_says_what_ingest_will(tmp_path: Path, file: str, params: dict[str, float], levels: str | None) -> None:
    if file == "pair":
        path = write_pair(tmp_path, np.ones((4, 4)), white_level=400)
    else:
        path = write_dng(tmp_path / "shot.dng", np.full(SHAPE, 300, np.uint16), black=(100, 200, 300, 400), white=400)
    shot, chosen = inspect(path).shot, IngestParams(**params)
    if levels is None:
        INGEST.check(shot, chosen)
        assert ingest(RawFile(path), chosen).samples.dtype == np.float32
        return
    with pytest.raises(RawFileError, match=rf"^white level {levels}; set ingest") as checked:
        INGEST.check(shot, chosen)
    with pytest.raises(RawFileError) as ingested:
        ingest(RawFile(path), chosen)
    assert str(ingested.value) == f"{path}: {checked.value}"


@pytest.mark.parametrize("text", ["", "{", "[1]", "\udcff", "[" * 100_000])
def test_pair_with_no_json_inside(tmp_path: Path, text: str) -> None:
    path = write_pair(tmp_path, np.ones((4, 4)))
    (tmp_path / "shot.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RawFileError, match=r"shot\.json"):
        read(path)


def test_png_alone(tmp_path: Path) -> None:
    path = write_pair(tmp_path, np.ones((4, 4)))
    (tmp_path / "shot.json").unlink()
    with pytest.raises(RawFileError, match=r"without shot\.json beside it"):
        read(path)


@pytest.mark.parametrize(
    ("samples", "color", "message"),
    [
        (np.ones((4, 4), np.uint8), 0, "8-bit gray"),
        (np.ones((4, 12), np.uint16), 2, "16-bit RGB"),
        (np.ones((4, 12), np.uint8), 2, "8-bit RGB"),
    ],
)
def test_png_of_another_kind(tmp_path: Path, samples: np.ndarray, color: int, message: str) -> None:
    write_pair(tmp_path, np.ones((4, 4)))
    with pytest.raises(RawFileError, match=message):
        read(write_png(tmp_path / "shot.png", samples, color))


def test_png_cut_anywhere_or_altered(tmp_path: Path) -> None:
    path = write_pair(tmp_path, np.arange(64).reshape(8, 8))
    whole = path.read_bytes()
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(RawFileError, match=r"truncated|no PNG"):
            read(path)
    path.write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])
    with pytest.raises(RawFileError, match="checksum"):
        read(path)


# What cannot be developed


def test_every_exception_of_rawpy_has_its_cause() -> None:
    parents = {"LibRawError", "LibRawFatalError", "LibRawNonFatalError"}
    names = {
        name
        for module in (rawpy, rawpy._rawpy)
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert names - parents == set(CAUSES)


def test_missing_empty_and_folder(tmp_path: Path) -> None:
    for name in ("none.dng", "none.png"):
        for look in (read, inspect):
            with pytest.raises(RawFileNotFoundError, match=rf"{name}: no such file"):
                look(tmp_path / name)
    (tmp_path / "empty.dng").touch()
    with pytest.raises(RawFileError, match=r"empty\.dng: it is empty"):
        read(tmp_path / "empty.dng")
    (tmp_path / "folder.dng").mkdir()
    with pytest.raises(RawFileError, match="it is a folder"):
        read(tmp_path / "folder.dng")


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dng(tmp_path / "a.dng", np.full(SHAPE, 600, np.uint16))

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(RawFileError, match=r"a\.dng: it may not be read"):
        libraw.decode(path)  # in this process, which is the one that was patched


def test_faults_of_the_disk_pass(tmp_path: Path) -> None:
    path = tmp_path / "a.dng"
    path.write_bytes(b"x")
    with pytest.raises(OSError, match="I/O error") as caught, readable(path):
        raise OSError(5, "I/O error")
    assert not isinstance(caught.value, RawFileError)
    assert is_transient(caught.value)


@pytest.mark.parametrize(("error", "may_pass"), [("LibRawIOError", True), ("LibRawDataError", False)])
def test_only_what_libraw_could_not_read_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, may_pass: bool
) -> None:
    path = write_dng(tmp_path / "a.dng", np.full(SHAPE, 600, np.uint16))

    def fails(_: str) -> None:
        raise getattr(rawpy, error)(b"of LibRaw")

    monkeypatch.setattr(rawpy, "imread", fails)
    with pytest.raises(RawFileError, match=r"a\.dng: ") as caught:
        libraw.decode(path)
    assert is_transient(caught.value) is may_pass
    monkeypatch.undo()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RawFileError, match="truncated") as caught:
        read(path)
    assert not is_transient(caught.value)


def test_tags_that_cannot_be_read_are_not_taken_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dng(tmp_path / "a.dng", np.full(SHAPE, 600, np.uint16))
    with pytest.raises(RawFileError, match=r"gone\.dng: its tags cannot be read \(.*Failed to open.*Try again"):
        exif.read(tmp_path / "gone.dng")
    (tmp_path / "b.dng").write_bytes(b"II*\0")  # as of a disk that fails while its first bytes are read
    with pytest.raises(RawFileError, match=r"b\.dng: its tags cannot be read \(Failed to read input data\)"):
        exif.read(tmp_path / "b.dng")

    def fails(code: exiv2.ErrorCode) -> None:
        def opened(*_: object) -> None:
            raise exiv2.Exiv2Error(code, "as exiv2 says it")

        monkeypatch.setattr(exiv2, "ImageFactory", SimpleNamespace(open=opened))

    for code in (exiv2.ErrorCode.kerFailedToReadImageData, exiv2.ErrorCode.kerCorruptedMetadata):
        fails(code)
        with pytest.raises(RawFileError, match=r"a\.dng: its tags cannot be read \(as exiv2 says it\)") as caught:
            libraw.decode(path)
        assert is_transient(caught.value)
    fails(exiv2.ErrorCode.kerFileContainsUnknownImageType)
    assert exif.read(path) == exif.Tags({})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.dng", b"no picture at all, only words " * 100, "LibRaw knows no raw format"),
        ("a.cr2", b"\xff\xd8\xff\xd9" + bytes(1000), "finished JPEG"),
        ("a.gpr", b"II*\0" + bytes(1000), r"VC-5 \(GoPro's GPR\).*DNG Converter"),
        ("a.x3f", bytes(1000), "Foveon"),
    ],
)
def test_no_raw(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RawFileError, match=message):
        read(tmp_path / name)


XTRANS = bytes(map(int, "110112112110201021112110110112021201"))
QUAD = bytes(map(int, "0011001111221122"))


@pytest.mark.parametrize(
    ("tags", "options", "message"),
    [
        (((33421, "H", 2, (6, 6), True), (33422, "B", 36, XTRANS, True)), {}, r"6 x 6 \(X-Trans\)"),
        (((33422, "B", 4, bytes((0, 1, 2, 3)), True), (50710, "B", 4, bytes((0, 1, 2, 3)), True)), {}, "4 colors"),
        (((33422, "B", 4, bytes((3, 4, 4, 5)), True), (50710, "B", 3, bytes((3, 4, 5)), True)), {}, "CFAPlaneColor"),
        (((33421, "H", 2, (4, 4), True), (33422, "B", 16, QUAD, True)), {}, "larger than 2 x 2"),
    ],
)
def test_sensors_that_are_not_bayer(tmp_path: Path, tags: tuple, options: dict, message: str) -> None:
    path = write_dng(tmp_path / "a.dng", np.full((36, 36), 600, np.uint16), tags=tags, **options)
    with pytest.raises(UnsupportedSensorError, match=message):
        read(path)


def test_already_demosaiced(tmp_path: Path) -> None:
    tags = tuple((code, "", None, None, True) for code in (33421, 33422, 50713, 50714, 50717))
    path = write_dng(tmp_path / "a.dng", np.full((36, 36, 3), 600, np.uint16), tags=tags, photometric=34892)
    with pytest.raises(UnsupportedSensorError, match="already demosaiced"):
        read(path)


def test_monochrome(tmp_path: Path) -> None:
    path = write_dng(tmp_path / "a.dng", np.full((36, 36), 600, np.uint16))
    whole = path.read_bytes()
    entry = struct.pack("<HHII", 262, 3, 1, 32803)
    assert whole.count(entry) == 1
    path.write_bytes(whole.replace(entry, struct.pack("<HHII", 262, 3, 1, 34892)))
    with pytest.raises(UnsupportedSensorError, match=r"1 colors|monochrome"):
        read(path)


@pytest.mark.parametrize("missing", [1, 2, 100, 1000])
def test_truncated_dng_is_found_without_decoding(
    tmp_path: Path, missing: int, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_dng(tmp_path / "a.dng", np.full((64, 64), 600, np.uint16))
    whole = path.read_bytes()
    path.write_bytes(whole[:-missing])
    for look in (read, inspect):
        with pytest.raises(RawFileError, match=rf"truncated, it holds {len(whole) - missing} bytes"):
            look(path)
    assert capfd.readouterr().err == ""


def test_end_of_samples_by_hand() -> None:
    strips = {
        "PhotometricInterpretation": "32803",
        "Compression": "1",
        "ImageWidth": "10",
        "ImageLength": "5",
        "BitsPerSample": "12",
        "RowsPerStrip": "2",
        "StripOffsets": "100 130 160",
        "StripByteCounts": "30 30 30",
    }
    tags = {f"Exif.SubImage2.{name}": text for name, text in strips.items()}
    preview = {"Exif.Image.PhotometricInterpretation": "2", "Exif.Image.StripOffsets": "9000"}
    assert exif.Tags(tags | preview).end_of_samples() == 175  # one row of 15 bytes is left for the last strip
    assert exif.Tags(tags | {"Exif.SubImage2.Compression": "7"}).end_of_samples() == 190
    assert exif.Tags(tags | {"Exif.SubImage2.StripOffsets": str(2**32 - 1)}).end_of_samples() == 0
    assert exif.Tags({}).end_of_samples() == 0


# Real cameras

EXPECTED = {
    "canon_eos_d30__CRW.CRW": ("Canon EOS D30", (1448, 2176), "RGGB", (127, 128, 128, 128), 3799, 1),  # states 4095
    "canon_eos_kiss_x4__colorchart.dng": ("Canon EOS Kiss X4", (1156, 1734), "RGGB", (2056,) * 4, 15000, 1),
    "canon_powershot_g2__CRW_0304.CRW": ("Canon PowerShot G2", (1720, 2312), "RGGB", (32,) * 4, 1023, 1),
    "canon_powershot_s40__CRW_0117.CRW": ("Canon PowerShot S40", (1720, 2312), "RGGB", (32,) * 4, 1023, 1),
    "gopro_hero8__Hero8.dng": ("GoPro HERO8 Black", (3000, 4000), "RGGB", (0,) * 4, 16383, 2),
    "kodak_dc50__DC0009L.KDC": ("Kodak Digital Science DC50 Zoom Camera", (512, 768), "GRBG", (0,) * 4, 16383, 1),
    "kodak_dc120__P003917.KDC": ("Kodak DC120 ZOOM Digital Camera", (976, 848), "GRBG", (0,) * 4, 255, 1),
    # Its levels per color say 3827, which 0.13 % of the samples exceed; overall it says 4095, but green ends below.
    "nikon_d1__RAW_NIKON_D1.NEF": ("NIKON D1", (1324, 2012), "BGGR", (0,) * 4, 3975, 1),
}


@needs_raws
@pytest.mark.parametrize("name", EXPECTED)
def test_camera_raw(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    camera, shape, cfa, black, white, orientation = EXPECTED[name]
    mosaic = read(RAWS / name)
    shot = mosaic.shot
    assert (shot.camera, mosaic.visible().shape, shot.orientation) == (camera, shape, orientation)
    assert (shot.black_level, shot.white_level) == (black, white)
    summary = inspect(RAWS / name)
    assert (summary.height, summary.width, summary.cfa) == (*shape, cfa)
    assert capfd.readouterr().err == ""
    # The two greens see the same light; a wrong phase would pair red with blue.
    first, second = (mosaic.samples[y::2, x::2].mean() for y, x in positions(CFA.BGGR, "G"))
    assert first == pytest.approx(second, rel=0.02)


@needs_raws
def test_camera_metadata() -> None:
    hero = read(RAWS / "gopro_hero8__Hero8.dng").shot
    assert [matrix.illuminant for matrix in hero.color_matrices] == [3, 23]
    assert hero.noise_profile[0] == pytest.approx((0.000495155574753881, 1.54696664367293e-07))
    assert hero.as_shot_neutral == pytest.approx((0.489484, 1, 0.684492))
    assert (hero.iso, hero.exposure_s, hero.f_number, hero.captured) == (317, 1 / 240, 2.8, "2020-05-28T04:47:27")
    assert hero.exif["Exif.GPSInfo.GPSLatitude"] == "56/1 17/1 543645600/10000000"

    d30 = read(RAWS / "canon_eos_d30__CRW.CRW").shot
    assert d30.as_shot_neutral is None
    assert d30.exposure_s == pytest.approx(5, rel=0.01)  # exiv2 says 1 s
    assert float(Fraction(d30.exif["Exif.Photo.ExposureTime"])) == pytest.approx(5, rel=0.01)
    assert d30.color_matrices[0].xyz_to_camera[0] == (0.99, -0.2771, -0.1324)

    for unknown in ("nikon_d1__RAW_NIKON_D1.NEF", "kodak_dc50__DC0009L.KDC", "kodak_dc120__P003917.KDC"):
        assert read(RAWS / unknown).shot.as_shot_neutral is None
    kiss = read(RAWS / "canon_eos_kiss_x4__colorchart.dng").shot
    assert (kiss.iso, kiss.exposure_s, kiss.captured) == (None, None, None)
    assert kiss.as_shot_neutral == pytest.approx((1 / 2.477, 1, 1.462 / 2.477))


@needs_raws
def test_gopro_gpr_is_refused_by_name() -> None:
    with pytest.raises(RawFileError, match=r"GOPR8513\.GPR: .*VC-5.*Convert it to DNG"):
        read(RAWS / "gopro_hero7__GOPR8513.GPR")


@needs_raws
@pytest.mark.parametrize("name", [name for name in EXPECTED if "Hero8" not in name])
def test_truncated_camera_raw(tmp_path: Path, name: str) -> None:
    whole = (RAWS / name).read_bytes()
    path = tmp_path / name
    for length in (10, 200, 4096, len(whole) // 2, len(whole) - 10_000, len(whole) - 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(RawFileError, match=r"truncated|LibRaw"):
            inspect(path)
