"""The engine over the real OpenVINO, on a random model of a few kilobytes."""

from __future__ import annotations

import itertools
import random
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from scalellm_trt.backends.openvino_compile import compile_checkpoint
from scalellm_trt.runtime import engine_openvino
from scalellm_trt.runtime.engine_api import GenerateRequest, SamplingParams
from tests.fakes import tiny_checkpoints
from tests.fakes.pipelines import Collector, settings
from tests.fakes.tiny_models import tiny_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from scalellm_trt.runtime.engine_loop import EngineLoop

pytestmark = pytest.mark.integration

VOCAB_SIZE = 80
LIMITS: dict[str, object] = {
    "vocab_size": VOCAB_SIZE,
    "max_batch_size": 8,
    "max_input_len": 100,
    "max_seq_len": 128,
    "max_num_tokens": 64,
    "max_queue_size": 64,
    "tokens_per_block": 32,
    "kv_cache_tokens": 16 * 32,
    "kv_cache_precision": "f32",
    "num_threads": 2,
}
PROMPT = (5, 17, 33, 8)


@pytest.fixture(scope="module")
def engine_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny")
    tiny_checkpoints.write_checkpoint(directory / "checkpoint", tiny_spec())
    (directory / "engine").mkdir()
    compile_checkpoint(directory / "checkpoint", directory / "engine", lambda _activity, _share: None)
    return directory / "engine"


@pytest.fixture
def make_engine(engine_dir: Path) -> Iterator[Callable[..., EngineLoop]]:
    engines: list[EngineLoop] = []

    def make(**changes: object) -> EngineLoop:
        limits = settings(**{**LIMITS, **changes})
        log: list[str] = []
        engines.append(engine_openvino.create(limits, engine_dir, on_step=lambda: None, log=log.append))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(make_engine: Callable[..., EngineLoop]) -> EngineLoop:
    return make_engine()


def start(engine: EngineLoop, max_tokens: int = 20, prompt: tuple[int, ...] = PROMPT, **sampling: Any) -> Collector:
    sink = Collector()
    engine.submit(GenerateRequest(input_ids=prompt, sampling=SamplingParams(max_tokens=max_tokens, **sampling)), sink)
    return sink


def generate(engine: EngineLoop, *args: Any, **kwargs: Any) -> list[int]:
    sink = start(engine, *args, **kwargs)
    assert sink.over.wait(30)
    assert sink.error is None
    return sink.ids()


def logits_of(engine_dir: Path, ids: list[int]) -> np.ndarray[Any, Any]:
    """Return (len(ids), vocab_size) logits of the compiled model run directly."""
    import openvino

    properties = {"KV_CACHE_PRECISION": "f32", "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(engine_dir / "openvino_model.xml", "CPU", properties).create_infer_request()
    length = len(ids)
    result = request.infer(
        {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, length), np.int64),
            "position_ids": np.arange(length, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
    )
    logits: np.ndarray[Any, Any] = result["logits"][0]
    return logits


def test_greedy_is_the_most_probable_token_and_log_probs_are_its_probability(
    engine: EngineLoop, engine_dir: Path
) -> None:
    sink = start(engine, log_probs=True).wait()
    ids = [*PROMPT, *sink.ids()]
    logits = logits_of(engine_dir, ids)[len(PROMPT) - 1 : -1].astype(np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert sink.ids() == logits.argmax(axis=1).tolist()
    given = [value for chunk in sink.chunks for value in chunk.log_probs]
    assert given == pytest.approx(log_probs.max(axis=1).tolist(), abs=1e-3)


def test_a_batch_of_equal_requests_gives_what_one_alone_gives(engine: EngineLoop) -> None:
    alone = generate(engine)
    assert [sink.wait().ids() for sink in [start(engine) for _ in range(8)]] == [alone] * 8


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others(engine: EngineLoop) -> None:
    first, again, other = (generate(engine, temperature=1.5, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_without_a_seed_two_answers_differ(engine: EngineLoop) -> None:
    assert generate(engine, temperature=1.5) != generate(engine, temperature=1.5)


def test_sampled_sequences_of_one_request_differ_and_the_first_is_that_of_a_single_request(engine: EngineLoop) -> None:
    sink = start(engine, temperature=1.5, seed=3, num_sequences=3).wait()
    assert len({tuple(sink.ids(index)) for index in range(3)}) == 3
    assert sink.ids(0) == generate(engine, temperature=1.5, seed=3)


def test_top_k_and_top_p_narrow_the_choice(engine: EngineLoop, engine_dir: Path) -> None:
    order = np.argsort(-logits_of(engine_dir, list(PROMPT))[-1])
    firsts = {generate(engine, 1, temperature=5.0, seed=seed, top_k=3)[0] for seed in range(40)}
    assert firsts <= set(order[:3].tolist())
    assert len(firsts) > 1
    narrow = {generate(engine, 1, temperature=5.0, seed=seed, top_p=1e-4)[0] for seed in range(10)}
    assert narrow == {int(order[0])}


def test_temperature_flattens_the_choice(engine: EngineLoop) -> None:
    cold = {generate(engine, 1, temperature=0.05, seed=seed)[0] for seed in range(20)}
    hot = {generate(engine, 1, temperature=10.0, seed=seed)[0] for seed in range(20)}
    assert len(cold) < len(hot)


def test_a_stop_token_ends_the_answer_and_min_tokens_holds_against_it(engine: EngineLoop) -> None:
    free = generate(engine)
    stop = free[4]
    short = start(engine, stop_token_ids=frozenset([stop])).wait()
    assert short.ids() == free[: free.index(stop) + 1]
    assert short.chunks[-1].finish_reason == "stop"
    long = start(engine, stop_token_ids=frozenset([stop]), min_tokens=12).wait()
    assert len(long.ids()) >= 12
    assert stop not in long.ids()[:12]


def test_without_stop_tokens_an_answer_has_max_tokens(engine: EngineLoop) -> None:
    assert len(generate(engine, 60)) == 60


@pytest.mark.parametrize("precision", ["f32", "f16", "u8"])
def test_every_kv_cache_precision_runs(make_engine: Callable[..., EngineLoop], precision: str) -> None:
    assert len(generate(make_engine(kv_cache_precision=precision))) == 20


def is_best(
    ids: list[int],
    logits: np.ndarray[Any, Any],
    *,
    repetition: float = 1.0,
    presence: float = 0.0,
    frequency: float = 0.0,
) -> list[bool]:
    """Return for each token whether it is the best one by the documented formulas."""
    answers = []
    for position, chosen in enumerate(ids):
        row, made = logits[position].astype(np.float64), ids[:position]
        for token in {*PROMPT, *made}:
            row[token] = row[token] / repetition if row[token] > 0 else row[token] * repetition
        for token in set(made):
            row[token] -= presence + frequency * made.count(token)
        answers.append(bool(row[chosen] >= row.max() - 1e-3))
    return answers


@pytest.mark.parametrize(
    ("asked", "formula"),
    [
        ({"repetition_penalty": 3.0}, {"repetition": 3.0}),
        ({"presence_penalty": 2.0}, {"presence": 2.0}),
        ({"frequency_penalty": 1.5}, {"frequency": 1.5}),
        ({"presence_penalty": -2.0, "frequency_penalty": -1.0}, {"presence": -2.0, "frequency": -1.0}),
    ],
)
def test_penalties_act_on_the_logits_as_documented(
    engine: EngineLoop, engine_dir: Path, asked: dict[str, float], formula: dict[str, float]
) -> None:
    ids = generate(engine, 60, **asked)
    logits = logits_of(engine_dir, [*PROMPT, *ids])[len(PROMPT) - 1 : -1]
    assert all(is_best(ids, logits, **formula))
    assert not all(is_best(ids, logits))


def test_bad_words_never_come(engine: EngineLoop) -> None:
    free = generate(engine, 40)
    pair = (free[3], free[4])
    ids = generate(engine, 40, bad_words=((free[0],), pair))
    assert free[0] not in ids
    assert pair not in list(itertools.pairwise(ids))
    assert free[4] in generate(engine, 40, bad_words=(pair,)) or free.count(free[4]) == 1


def test_a_bias_makes_a_token_likelier(engine: EngineLoop) -> None:
    assert generate(engine, 5, token_bias=((7, 100.0),)) == [7] * 5


def test_a_prompt_whose_beginning_is_kept_gives_the_same_answer(make_engine: Callable[..., EngineLoop]) -> None:
    engine = make_engine(kv_cache_reuse=True)
    prompt = tuple(range(1, 71))
    pipeline: Any = engine._pipeline
    first = generate(engine, 20, prompt=prompt)
    assert len(pipeline._pool.match(np.array(prompt))[0]) == 2
    again = start(engine, 20, prompt=prompt)
    assert again.over.wait(30)
    assert (again.ids(), again.chunks[0].num_reused_blocks) == (first, 2)
    assert generate(engine, 20, prompt=prompt[:40]) == generate(make_engine(), 20, prompt=prompt[:40])


def test_the_pool_can_be_filled_to_its_last_page(make_engine: Callable[..., EngineLoop]) -> None:
    engine = make_engine(kv_cache_tokens=64, max_seq_len=128, max_input_len=60)
    assert len(generate(engine, 15, prompt=(7,) * 50)) == 15


@pytest.mark.parametrize("policy", ["guaranteed_no_evict", "max_utilization"])
@pytest.mark.parametrize("chunked_context", [True, False])
@pytest.mark.parametrize("kv_cache_reuse", [True, False])
def test_no_request_is_lost_when_the_pool_is_small(
    make_engine: Callable[..., EngineLoop], policy: str, chunked_context: bool, kv_cache_reuse: bool
) -> None:
    engine = make_engine(
        batch_scheduler_policy=policy,
        chunked_context=chunked_context,
        kv_cache_reuse=kv_cache_reuse,
        kv_cache_tokens=160,
    )
    rng = random.Random(1)
    asked = [(rng.randint(1, 60), rng.randint(1, 60)) for _ in range(40)]
    sinks = [start(engine, new, tuple(rng.randrange(VOCAB_SIZE) for _ in range(length))) for length, new in asked]
    for (_, new), sink in zip(asked, sinks, strict=True):
        assert sink.over.wait(60)
        assert (sink.error, len(sink.ids())) == (None, new)


def test_cancelled_requests_leave_no_page_behind(engine: EngineLoop) -> None:
    for _ in range(10):
        sinks = []
        for _ in range(8):
            sink = Collector(stop_after=2)
            engine.submit(GenerateRequest(input_ids=PROMPT, sampling=SamplingParams(max_tokens=50)), sink)
            sinks.append(sink)
        for sink in sinks:
            sink.wait()
    # Each would need 16 pages if those of the cancelled ones were still taken.
    assert all(len(sink.wait().ids()) == 50 for sink in [start(engine, 50) for _ in range(8)])


def test_after_a_step_that_fails_the_model_is_loaded_again(engine: EngineLoop) -> None:
    expected = generate(engine)
    broken: list[object] = []

    def break_it(_: object) -> None:
        if not broken:
            pipeline: Any = engine._pipeline
            broken.append(pipeline)
            pipeline._pool = None

    victim = Collector(on_chunk=break_it)
    engine.submit(GenerateRequest(input_ids=PROMPT, sampling=SamplingParams(max_tokens=20)), victim)
    assert "the engine failed in a step and was restarted" in str(victim.wait().error)
    assert generate(engine) == expected
    assert engine._pipeline is not broken[0]


def test_closing_leaves_no_thread_behind(make_engine: Callable[..., EngineLoop]) -> None:
    before = set(threading.enumerate())
    engine = make_engine()
    sink = start(engine, 100)
    engine.close()
    assert "being unloaded" in str(sink.wait().error) or len(sink.ids()) == 100
    assert set(threading.enumerate()) <= before
