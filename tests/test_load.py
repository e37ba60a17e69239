"""The short form of `python -m tests.torture.load`: every frame is accounted for, also when Prefect's server goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.load import lost_server, many


@pytest.mark.parametrize("engine", ["local", pytest.param("prefect", marks=pytest.mark.server)])
def test_every_frame_is_accounted_for(engine: str, tmp_path: Path) -> None:
    assert many(25, engine, tmp_path)["s, cached"] > 0


@pytest.mark.server
def test_a_run_whose_server_goes_goes_on(tmp_path: Path) -> None:
    assert lost_server(24, tmp_path)["pictures there when the run without a server ended"] == 24
