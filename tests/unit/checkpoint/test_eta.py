"""`eta`: what a person reads while a long stage runs."""

from __future__ import annotations

from scalellm_trt.checkpoint.eta import with_eta


def test_elapsed_and_remaining_time_follow_the_share() -> None:
    now, seen = [100.0], []
    report = with_eta(lambda activity, share: seen.append((activity, share)), clock=lambda: now[0])
    for seconds, share in ((0, 0.0), (1, 0.5), (65, 0.004), (65, 0.25), (7300, 0.5), (7300, 1.0)):
        now[0] = 100.0 + seconds
        report("layer 1", share)
    assert seen == [
        ("layer 1", 0.0),
        ("layer 1", 0.5),
        ("layer 1 (1:05 elapsed)", 0.004),
        ("layer 1 (1:05 elapsed, about 3:15 left)", 0.25),
        ("layer 1 (2:01:40 elapsed, about 2:01:40 left)", 0.5),
        ("layer 1", 1.0),
    ]
