from __future__ import annotations

import dataclasses

from scalellm_trt.predict import measurements
from scalellm_trt.predict.measurements import beats_the_roof, passes, points, sources, usable_passes


def test_at_least_120_points_are_shipped_each_with_its_source_and_date() -> None:
    assert len(usable_passes()) >= 120
    assert {point.source for point in points()} == set(sources())
    assert all(url and date.year >= 2023 for url, date in sources().values())


def test_a_point_that_beats_the_roof_is_neither_fitted_nor_scored() -> None:
    impossible = [each for each in passes() if beats_the_roof(each)]
    assert [each.point.value for each in impossible] == [191.0]  # 7B in 16 bits on an A100: 2039 GB/s read 154 times
    assert not set(map(id, impossible)) & set(map(id, usable_passes()))


def test_a_possible_point_that_claims_more_is_rejected_too() -> None:
    real = next(each for each in usable_passes() if each.point.kind == "tpot" and each.point.unit == "tokens_per_s")
    boasted = dataclasses.replace(real, point=dataclasses.replace(real.point, value=real.point.value * 4))
    assert not beats_the_roof(real)
    assert beats_the_roof(boasted)


def test_held_out_points_say_why() -> None:
    held_out = [point for point in points() if point.is_held_out]
    assert len(held_out) == 3
    assert all(point.note for point in held_out)


def test_units_become_the_seconds_of_what_was_measured() -> None:
    point = points()[0]
    step = dataclasses.replace(point, kind="tpot", unit="tokens_per_s", value=200.0, batch=4)
    assert step.seconds == 0.02
    assert dataclasses.replace(step, kind="throughput", output=100).seconds == 2.0
    assert dataclasses.replace(point, unit="prompt_tokens_per_s", value=1000.0, prompt=2000, batch=1).seconds == 2.0
    assert dataclasses.replace(point, unit="ms", value=7.0).seconds == 0.007


def test_every_card_of_the_points_has_a_peak_for_its_formats() -> None:
    for each in passes():
        ran = [one for one in (each.prefill, each.step) if one is not None]
        assert ran
        assert all(one.compute_s > 0 and one.memory_s > 0 for one in ran)
    assert measurements.points() is measurements.points()
