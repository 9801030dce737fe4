"""What counts against a gateway behind which a server broke, and where the cut in a stream was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from scripts.benchmarks.sides import adjusted_repository
from scripts.benchmarks.sides.judged_streams import Outcome, Stream, Workload, judge
from scripts.benchmarks.sides.served_model import ServedModel

if TYPE_CHECKING:
    from pathlib import Path


def _stream(name: str, *parts: tuple[float, str], error: str = "") -> Stream:
    stream = Stream(name, "p", error=error)
    for at_s, text in parts:
        stream.parts.append(text)
        stream.times_s.append(at_s)
    return stream


def test_texts_errors_and_what_came_before_the_cut_are_judged() -> None:
    expected = ["abcd"] * 5
    workload = Workload(url="", model="m", prompts=["p"] * 5, tokens=4, expected=expected)
    streams = [
        _stream("whole", (0.0, "ab"), (0.1, "cd")),
        _stream("continued", (0.0, "ab"), (2.0, "cd")),
        _stream("other after", (0.0, "ab"), (3.0, "xy")),
        _stream("other before", (0.0, "xb"), (1.0, "cd")),
        _stream("lost", (0.0, "ab"), error="gone"),
    ]
    outcome = Outcome(harm="kill")
    gaps = judge(outcome, streams, workload, {"continued", "other after", "other before"})
    assert gaps == pytest.approx([2000, 3000, 1000])
    assert (outcome.num_streams, outcome.num_errors, outcome.errors) == (5, 1, {"gone"})
    assert (outcome.num_different, outcome.num_continued_different, outcome.num_changed) == (3, 2, 1)


def test_a_copy_has_other_settings_and_the_original_keeps_its_own(tmp_path: Path) -> None:
    model = ServedModel(name="m", directory=tmp_path / "repo" / "m", engine_digest="")
    model.service_json.parent.mkdir(parents=True)
    model.service_json.write_text(json.dumps({"kv_cache_precision": "f16", "num_threads": None}))
    root = adjusted_repository.write(model, tmp_path / "copy", kv_cache_precision="f32")
    copy = json.loads((root / "m" / "1" / model.service_json.name).read_text())
    assert copy == {"kv_cache_precision": "f32", "num_threads": None}
    assert json.loads(model.service_json.read_text())["kv_cache_precision"] == "f16"
    with pytest.raises(SystemExit, match="there is no kv_precision"):
        adjusted_repository.write(model, tmp_path / "other", kv_precision="f32")
