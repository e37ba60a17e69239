"""The simulation of many workers against what can be worked out by hand."""

from __future__ import annotations

import pytest

from benchmarks.simulation import Step, simulate


def test_one_queue_is_as_fast_as_its_servers() -> None:
    outcome = simulate([Step("worker", 2.0)], 100, {"worker": 4}, at_once=8)
    assert outcome.seconds == pytest.approx(50)
    assert outcome.busy == {"worker": pytest.approx(1.0)}


@pytest.mark.parametrize(("at_once", "rate"), [(1, 1 / 3.5), (2, 1 / 2), (100, 1 / 2)])
def test_the_narrowest_resource_limits_or_what_is_under_way(at_once: int, rate: float) -> None:
    steps = [Step("cpu", 1.0), Step("gpu", 2.0), Step(None, 0.5)]
    outcome = simulate(steps, 2000, {"cpu": 1, "gpu": 1}, at_once)
    assert 2000 / outcome.seconds == pytest.approx(rate, rel=0.01)
    assert outcome.limit == "gpu"


def test_random_lengths_keep_the_rate_and_the_seed_keeps_the_result() -> None:
    steps = [Step("server", 0.01), Step("worker", 1.0)]
    one, two = (simulate(steps, 5000, {"server": 1, "worker": 50}, 200, spread=0.5, seed=3) for _ in range(2))
    assert one == two
    assert 5000 / one.seconds == pytest.approx(50, rel=0.02)
    saturated = simulate(steps, 5000, {"server": 1, "worker": 500}, 2000, spread=0.5)
    assert 5000 / saturated.seconds == pytest.approx(100, rel=0.04)
    assert saturated.limit == "server"


def test_what_comes_before_the_first_group_counts() -> None:
    assert simulate([Step("worker", 1.0)], 10, {"worker": 10}, 10, serial=5).seconds == pytest.approx(6)
