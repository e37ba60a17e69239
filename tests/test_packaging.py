import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import nightisp

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
IN_THE_WHEEL = ("nightisp", "tasks", "flows", "weights", "pyproject.toml", "README.md", "LICENSE")


def run(*command: object, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


def pip(*arguments: object, cwd: Path) -> None:
    done = run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: the working tree may hold a build folder with files of yesterday."""
    pytest.importorskip("setuptools", "77", reason="needs setuptools to build the wheel: make setup")
    pytest.importorskip("pip", "25.1", reason="needs pip to build the wheel: make setup")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in IN_THE_WHEEL:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    (source / "weights" / "denoise_unet_test.safetensors").write_bytes(b"weights")
    (source / "weights" / "denoise_unet_test.md").write_text("# denoise_unet_test\n")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an environment that holds the wheel, and sees the dependencies of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip("--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    libraries = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).stdout.strip()
    # A path in a .pth is searched last, and the .pth files there are not read: an editable nightisp stays unseen.
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(libraries, "dependencies.pth").write_text("\n".join(dependencies))
    return python.parent


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def bare(**more: str) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "HOME": more.get("HOME", "/nonexistent"), **more}


def test_wheel_holds_three_packages_and_nothing_else(contents: set[str]) -> None:
    top = {name.partition("/")[0] for name in contents}
    assert {name for name in top if not name.endswith(".dist-info")} == {"nightisp", "tasks", "flows"}


def test_wheel_holds_every_source(contents: set[str]) -> None:
    packages = ("nightisp", "tasks", "flows")
    sources = {path.relative_to(ROOT).as_posix() for name in packages for path in ROOT.glob(f"{name}/**/*.py")}
    missing = sources - contents
    assert not missing, f"not in the wheel: {missing}; a new package needs a line in pyproject.toml"
    assert {name for name in contents if name.endswith(".py")} == sources


@pytest.mark.parametrize(
    "name",
    [
        "nightisp/py.typed",
        "nightisp/srgb.icc",
        "nightisp/weights/README.md",
        "nightisp/weights/denoise_unet_test.safetensors",
        "nightisp/weights/denoise_unet_test.md",
    ],
)
def test_wheel_holds_what_is_no_code(contents: set[str], name: str) -> None:
    assert name in contents


def test_wheel_holds_every_template_of_a_page(contents: set[str]) -> None:
    templates = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("nightisp/report/templates/*")}
    assert len(templates) > 3
    assert templates <= contents


def test_wheel_carries_the_weights_of_the_project(contents: set[str]) -> None:
    for path in ROOT.glob("weights/*.safetensors"):
        assert f"nightisp/weights/{path.name}" in contents


def test_installed_wheel_is_what_runs(installed: Path, empty: Path) -> None:
    code = "import flows, nightisp, tasks; print(nightisp.__file__, tasks.__file__, flows.__file__)"
    done = run(installed / "python", "-c", code, cwd=empty, env=bare(HOME=str(empty)))
    assert done.returncode == 0, done.stderr
    assert [str(installed.parent) in path for path in done.stdout.split()] == [True] * 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--version"], f"nightisp {nightisp.__version__}"),
        (["params", "check"], "good"),
        (["stage", "list"], "super_resolution"),
        (["weights", "list"], "denoise_unet_test"),
    ],
)
def test_installed_wheel_works_in_an_empty_folder(
    installed: Path, empty: Path, arguments: list[str], said: str
) -> None:
    done = run(installed / "nightisp", *arguments, cwd=empty, env=bare())
    assert said in done.stdout, done.stderr
    assert list(empty.iterdir()) == []


def test_pins_cover_every_requirement() -> None:
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if not line.startswith("#")
    )
    wanted = PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]
    names = {re.split(r"[\[<>=]", requirement)[0] for requirement in wanted}
    assert names - pins.keys() == set()
    assert not [version for version in pins.values() if "+" in version], "a pin that holds one build of torch only"


def test_requirements_of_the_image_are_those_of_the_project() -> None:
    done = run(sys.executable, ROOT / "scripts" / "requirements.py", cwd=ROOT)
    assert done.stdout.splitlines() == PROJECT["project"]["dependencies"]


def test_version_is_the_one_to_cite() -> None:
    assert f"\nversion: {nightisp.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


class Container:
    """run.sh in a folder of its own, with a `nightisp` that writes down how it was called."""

    def __init__(self, folder: Path) -> None:
        self.project, self.photographs, self.tools = folder / "project", folder / "photographs", folder / "tools"
        for path in (self.project, self.photographs, self.tools):
            path.mkdir()
        shutil.copy(ROOT / "run.sh", self.project)
        self.script("nightisp", 'echo "$@"; echo "user $(id -u) home $HOME in $PWD"; exit "${STATUS:-0}"')

    def script(self, name: str, text: str) -> None:
        path = self.tools / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": f"{self.tools}:/usr/bin:/bin", "DATA": str(self.photographs), **environment}
        return run(self.project / "run.sh", *arguments, cwd=self.project, env=env)


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def test_run_sh_writes_beside_the_photographs(container: Container) -> None:
    done = container.run("--set", "tone.gamma=2.8")
    called = f"flow run --engine local --input {container.photographs} --output {container.photographs}"
    assert done.stdout.splitlines()[0] == f"{called} --set tone.gamma=2.8"
    assert done.stdout.splitlines()[1].endswith(f"in {container.project}")


def test_run_sh_reports_to_a_server_that_is_named(container: Container) -> None:
    assert "--engine prefect" in container.run(PREFECT_API_URL="http://server/api").stdout


def test_run_sh_takes_another_output(container: Container, tmp_path: Path) -> None:
    assert f"--output {tmp_path / 'pictures'}\n" in container.run(OUTPUT=str(tmp_path / "pictures")).stdout


@pytest.mark.parametrize("status", [0, 3, 130])
def test_run_sh_passes_the_exit_status_on(container: Container, status: int) -> None:
    assert container.run(STATUS=str(status)).returncode == status


@pytest.mark.parametrize("home", [None, "", "/nonexistent"])
def test_run_sh_finds_a_home_that_can_be_written_to(container: Container, home: str | None) -> None:
    done = container.run(**({} if home is None else {"HOME": home}))
    found = re.search(r"home (\S+) in", done.stdout)
    assert found, done.stderr
    assert os.access(found[1], os.W_OK)
    Path(found[1]).rmdir()


def test_run_sh_says_what_is_missing(container: Container) -> None:
    done = container.run(DATA="/nonexistent/photographs")
    assert done.returncode == 2
    assert "/nonexistent/photographs: no such folder; mount one" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_run_sh_works_as_the_owner_of_the_photographs() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        Path(folder).chmod(0o755)
        container = Container(Path(folder))
        os.chown(container.photographs, 12345, 12346)
        done = container.run(HOME="/root")
        assert "user 12345 home " in done.stdout, done.stderr
        assert "home /root" not in done.stdout
