"""The simulation of many workers against what can be worked out by hand."""

from __future__ import annotations

import json

import pytest

from benchmarks.scale import FIGURES
from benchmarks.scale_predict import PAGE, checked, fitted
from benchmarks.simulation import Step, at, simulate


def test_one_queue_is_as_fast_as_its_servers() -> None:
    outcome = simulate([at("worker", 2.0)], 100, {"worker": 4}, at_once=8)
    assert outcome.seconds == pytest.approx(50)
    assert outcome.busy == {"worker": pytest.approx(1.0)}


@pytest.mark.parametrize(("at_once", "rate"), [(1, 1 / 3.5), (2, 1 / 2), (100, 1 / 2)])
def test_the_narrowest_resource_limits_or_what_is_under_way(at_once: int, rate: float) -> None:
    steps = [at("cpu", 1.0), at("gpu", 2.0), Step(0.5)]
    outcome = simulate(steps, 2000, {"cpu": 1, "gpu": 1}, at_once)
    assert 2000 / outcome.seconds == pytest.approx(rate, rel=0.01)
    assert outcome.limit == "gpu"
    assert outcome.busy["cpu"] == pytest.approx(rate, rel=0.01)


def test_a_worker_that_waits_for_a_core_is_taken() -> None:
    """Three workers on one core: each sleeps 1 s and computes 1 s, so the core is the limit and nobody is free."""
    steps = [Step(1.0, "worker"), Step(1.0, "core", ("core", "worker"))]
    outcome = simulate(steps, 300, {"worker": 3, "core": 1}, at_once=50)
    assert outcome.seconds == pytest.approx(300, rel=0.01)
    assert outcome.busy["worker"] > 0.98
    alone = simulate(steps, 100, {"worker": 1, "core": 1}, at_once=50)
    assert alone.seconds == pytest.approx(200)
    assert alone.busy["core"] == pytest.approx(0.5)


def test_random_lengths_keep_the_rate_and_the_seed_keeps_the_result() -> None:
    steps = [at("server", 0.01), at("worker", 1.0)]
    one, two = (simulate(steps, 5000, {"server": 1, "worker": 50}, 200, spread=0.5, seed=3) for _ in range(2))
    assert one == two
    assert 5000 / one.seconds == pytest.approx(50, rel=0.02)
    saturated = simulate(steps, 5000, {"server": 1, "worker": 500}, 2000, spread=0.5)
    assert 5000 / saturated.seconds == pytest.approx(100, rel=0.04)  # it begins and ends with less to do
    assert saturated.limit == "server"


def test_what_comes_before_the_first_group_counts() -> None:
    assert simulate([at("worker", 1.0)], 10, {"worker": 10}, 10, serial=5).seconds == pytest.approx(6)


def test_what_was_measured_is_what_is_simulated() -> None:
    """Four runs that the costs were not taken from, and four that they were: 1 to 128 workers, groups of 1 to 40."""
    figures = json.loads(FIGURES.read_text())
    rows = checked(figures, fitted(figures))
    assert len(rows) == 8
    for what, measured, simulated in rows:
        assert simulated / measured == pytest.approx(1, abs=0.3), what
        assert f"| {what} | {measured:.1f} | {simulated:.1f} |" in PAGE.read_text(), (
            "python -m benchmarks.scale predict"
        )
