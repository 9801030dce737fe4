from __future__ import annotations

import dataclasses
import statistics

import pytest

from scalellm_trt.predict.fitting import Constants, errors, fit, halves, relative_error, split_errors
from scalellm_trt.predict.measurements import usable_passes


def test_constants_of_one_half_predict_the_other_half_within_12_percent() -> None:
    found = split_errors(usable_passes(), seeds=range(50))
    assert len(found) == 50
    assert statistics.median(each.median for each in found) <= 0.12


def test_a_half_shares_no_point_with_the_other_and_has_half_of_each_card() -> None:
    points = usable_passes()
    train, test = halves(points, seed=7)
    assert not set(map(id, train)) & set(map(id, test))
    assert len(train) + len(test) == len(points)
    for gpu in {each.point.gpu for each in points}:
        counts = [sum(each.point.gpu == gpu for each in half) for half in (train, test)]
        assert abs(counts[0] - counts[1]) <= 1, gpu
    assert [id(each) for each in halves(points, seed=8)[0]] != [id(each) for each in train]


def test_constants_that_made_the_points_are_found_again() -> None:
    truth = Constants(mfu={}, mbu={}, mfu_of_any={"fp16": 0.55}, mbu_of_any={"w16": 0.8})
    made = [
        dataclasses.replace(
            each, point=dataclasses.replace(each.point, unit="ms", value=1000 * each.seconds(0.55, 0.8))
        )
        for each in usable_passes()
        if (each.gemm, each.width, each.point.gpu) == ("fp16", "w16", "a100-80g")
    ]
    assert fit(made).of("a100-80g", "fp16", "w16") == (0.55, 0.8)
    assert errors(made, truth).median == pytest.approx(0.0, abs=1e-9)


def test_a_card_that_was_not_seen_gets_the_constants_of_all_cards() -> None:
    found = fit([each for each in usable_passes() if each.point.gpu != "rtx4090"])
    assert found.of("rtx4090", "weight_only", "w4") == (found.mfu_of_any["weight_only"], found.mbu_of_any["w4"])


def test_an_error_is_a_share_of_what_was_measured() -> None:
    each = next(iter(usable_passes()))
    half = dataclasses.replace(
        each, point=dataclasses.replace(each.point, unit="ms", value=2000 * each.seconds(0.5, 0.5))
    )
    constants = Constants(mfu={}, mbu={}, mfu_of_any={each.gemm: 0.5}, mbu_of_any={each.width: 0.5})
    assert relative_error(half, constants) == pytest.approx(0.5)
