import dataclasses

import pytest

from fenland.lab.config import RunConfig
from fenland.lab.config.schedules import SCHEDULES
from fenland.lab.training.rates import rate

CONFIG = RunConfig("digits", "mlp", "sgd", lr=0.4, epochs=10, schedule="constant")


def rates(config: RunConfig, steps: int) -> list[list[float]]:
    return [[rate(config, epoch, step, steps) for step in range(steps)] for epoch in range(1, config.epochs + 1)]


def test_step_schedule_is_the_papers() -> None:
    factors = [SCHEDULES["step"](epoch / 10) for epoch in range(10)]
    assert factors == pytest.approx([1, 1, 1, 0.2, 0.2, 0.2, 0.04, 0.04, 0.008, 0.008])


def test_cosine_and_constant() -> None:
    assert [SCHEDULES["cosine"](progress) for progress in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert SCHEDULES["constant"](0.9) == 1


def test_without_warm_up_an_epoch_has_one_rate() -> None:
    found = rates(dataclasses.replace(CONFIG, schedule="step"), 4)
    assert [set(epoch) for epoch in found] == [{epoch[0]} for epoch in found]
    assert [epoch[0] for epoch in found] == pytest.approx([0.4] * 3 + [0.08] * 3 + [0.016] * 2 + [0.0032] * 2)


def test_warm_up_rises_step_by_step_and_reaches_the_schedule() -> None:
    found = rates(dataclasses.replace(CONFIG, warmup=1.5), 4)
    assert found[0] + found[1] == pytest.approx([0.4 * part / 6 for part in (1, 2, 3, 4, 5, 6, 6, 6)])
    assert found[2:] == [[0.4] * 4] * 8


def test_warm_up_multiplies_the_schedule() -> None:
    found = rates(dataclasses.replace(CONFIG, schedule="cosine", warmup=2.0), 5)
    for epoch, values in enumerate(found):
        full = 0.4 * SCHEDULES["cosine"](epoch / 10)
        expected = [full * min(1.0, (5 * epoch + step + 1) / 10) for step in range(5)]
        assert values == pytest.approx(expected)


def test_a_warm_up_of_less_than_a_step_is_none() -> None:
    assert rates(dataclasses.replace(CONFIG, warmup=0.1), 4)[0] == [0.4] * 4


def test_one_cycle_rises_over_thirty_percent_step_by_step_and_falls_to_zero() -> None:
    config = dataclasses.replace(CONFIG, schedule="one-cycle")
    found = [rate for epoch in rates(config, 10) for rate in epoch]
    assert found[:30] == pytest.approx([0.4 * (step + 0.5) / 30 for step in range(30)])
    assert max(found) == pytest.approx(0.4, rel=0.02)
    assert found[30:] == sorted(found[30:], reverse=True)
    assert 0 < found[-1] < 1e-3 * 0.4
    assert sum(found[30:]) / 70 == pytest.approx(0.2, rel=1e-6)
