"""`OpenVinoBackend`: what it refuses, what its stages leave, and what it hands to Triton."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from scalellm_trt.artefacts.types import Checkpoint, Engine
from scalellm_trt.backends import backend_for
from scalellm_trt.backends.openvino import OpenVinoBackend, service_settings
from scalellm_trt.backends.runtime_files import files_behind
from scalellm_trt.backends.site import Site
from scalellm_trt.errors import ArtefactError
from scalellm_trt.recipe import BackendName, Calibration
from scalellm_trt.runtime import settings
from tests.fakes.plans import tiny_plan
from tests.fakes.tiny_models import tiny_spec, write_model

if TYPE_CHECKING:
    from scalellm_trt.recipe import WeightFormat


def test_the_factory_knows_every_backend() -> None:
    site = Site(recipe=Path("r.yaml"), cache_dir=Path(".cache"), logs_dir=Path("logs"))
    names: tuple[BackendName, ...] = get_args(BackendName)
    for name in names:
        assert backend_for(name, site).name == name


@pytest.mark.parametrize("weights", ["full_prec", "int8_wo", "int4_wo", "int4_awq"])
@pytest.mark.parametrize("kv_cache_dtype", ["float16", "int8"])
def test_what_it_can_do_passes_the_check(weights: WeightFormat, kv_cache_dtype: str) -> None:
    assert OpenVinoBackend().check(tiny_plan(weights=weights, kv_cache_dtype=kv_cache_dtype)) == []


@pytest.mark.parametrize("weights", ["w4a8_awq", "int8_sq", "fp8", "nvfp4"])
def test_other_weight_formats_are_refused_by_name(weights: WeightFormat) -> None:
    (problem,) = OpenVinoBackend().check(tiny_plan(weights=weights))
    assert problem.key == "quantization.weights"
    assert weights in problem.message
    assert problem.hint == "Allowed: full_prec, int8_wo, int4_wo, int4_awq."


def test_every_refusal_is_reported_at_once() -> None:
    spec = dataclasses.replace(tiny_spec(), eos_token_ids=())
    plan = tiny_plan(weights="fp8", kv_cache_dtype="fp8", tp_size=2, pp_size=3, services=4, spec=spec)
    problems = {problem.key: problem for problem in OpenVinoBackend().check(plan)}
    assert list(problems) == [
        "quantization.weights",
        "quantization.kv_cache_dtype",
        "parallel.tp_size",
        "parallel.pp_size",
        "services",
        "model",
    ]
    assert problems["quantization.kv_cache_dtype"].hint == "Allowed: auto, int8."
    assert "3 ranks" in problems["parallel.pp_size"].message


def test_stage_inputs_name_what_decides_the_bytes_of_a_stage() -> None:
    backend, streamed = OpenVinoBackend(), tiny_plan(weights="int8_wo")
    assert str(backend.stage_inputs(streamed, "compile")["tool.openvino"])[0].isdigit()
    assert backend.stage_inputs(streamed, "quantize") == {}
    assert backend.stage_inputs(streamed, "assemble") == {}


def test_the_text_that_is_calibrated_on_is_an_input_by_its_content(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("first")
    plan = tiny_plan(weights="int4_awq", calibration=Calibration(source=f"file:{text}"))
    first = OpenVinoBackend().stage_inputs(plan, "quantize")
    assert {"tool.nvidia-modelopt", "tool.torch", "tool.transformers"} < set(first)
    text.write_text("second")
    second = OpenVinoBackend().stage_inputs(plan, "quantize")
    assert [key for key in first if first[key] != second[key]] == ["quantization.calibration.texts"]


def test_a_model_goes_from_weights_to_a_triton_model(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    write_model(tmp_path / "model")
    plan, backend = tiny_plan(model_dir=tmp_path / "model", weights="int8_wo"), OpenVinoBackend()
    shares: list[float] = []
    checkpoint_dir, engine_dir = tmp_path / "checkpoint", tmp_path / "engine"
    for directory in (checkpoint_dir, engine_dir):
        directory.mkdir()
    backend.quantize(plan, checkpoint_dir, lambda _activity, share: shares.append(share))
    assert json.loads((checkpoint_dir / "config.json").read_text())["quantization"]["quant_algo"] == "W8A16"
    assert shares[-1] == 1.0

    shares.clear()
    checkpoint = Checkpoint(directory=checkpoint_dir, digest="")
    backend.compile(plan, checkpoint, engine_dir, lambda _activity, share: shares.append(share))
    assert {path.name for path in engine_dir.iterdir()} == {
        "openvino_model.xml",
        "openvino_model.bin",
        "tokenizer.json",
    }
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)

    (model,) = backend.triton_models(plan, Engine(directory=engine_dir, digest="", kind="openvino_ir"))
    assert (model.name, model.backend, model.max_batch_size) == ("tiny", "python", 1)
    assert model.default_model_filename in model.source_files
    assert "engine_openvino.py" in model.source_files
    assert model.directories == {"engine": engine_dir}
    assert [tensor.name for tensor in model.inputs][:3] == ["text_input", "input_ids", "max_tokens"]
    assert settings.from_json(json.loads(json.dumps(model.settings))).max_seq_len == 64


def test_a_checkpoint_of_another_model_is_not_compiled(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    plan, backend = tiny_plan(model_dir=tmp_path / "model"), OpenVinoBackend()
    (tmp_path / "checkpoint").mkdir()
    backend.quantize(plan, tmp_path / "checkpoint", lambda _activity, _share: None)
    other = dataclasses.replace(plan, spec=dataclasses.replace(plan.spec, rope_theta=10000.0))
    checkpoint = Checkpoint(directory=tmp_path / "checkpoint", digest="")
    with pytest.raises(ArtefactError, match=r"rope_theta.*500000"):
        backend.compile(other, checkpoint, tmp_path, lambda _activity, _share: None)


@pytest.mark.parametrize(("kv_cache_dtype", "precision"), [("float16", "f16"), ("int8", "u8")])
def test_the_kv_cache_gets_the_precision_that_the_plan_says(
    tmp_path: Path, kv_cache_dtype: str, precision: str
) -> None:
    assert service_settings(tiny_plan(kv_cache_dtype=kv_cache_dtype), tmp_path).kv_cache_precision == precision


def test_the_settings_carry_the_plan_s_limits(tmp_path: Path) -> None:
    found = service_settings(tiny_plan(), tmp_path)
    assert (found.max_batch_size, found.max_input_len, found.max_seq_len, found.max_num_tokens) == (4, 63, 64, 32)
    assert (found.kv_cache_tokens, found.num_kv_blocks, found.max_queue_size) == (256, 8, 8)
    assert (found.kv_cache_reuse, found.chunked_context) == (True, True)
    assert (found.vocab_size, found.bos_token_id, found.engine_directory) == (80, 1, "engine")


@pytest.mark.parametrize(
    ("generation_config", "eos_token_ids"),
    [({}, (2, 3)), ({"eos_token_id": 7}, (2, 3, 7)), ({"eos_token_id": [3, 9]}, (2, 3, 9)), (None, (2, 3))],
)
def test_end_tokens_of_the_generation_config_count_too(
    tmp_path: Path, generation_config: dict[str, object] | None, eos_token_ids: tuple[int, ...]
) -> None:
    if generation_config is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation_config))
    assert service_settings(tiny_plan(), tmp_path).eos_token_ids == eos_token_ids


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_generation_config_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(ArtefactError, match=r"generation_config\.json"):
        service_settings(tiny_plan(), tmp_path)


def test_files_behind_a_module_are_its_relative_imports_however_deep(tmp_path: Path) -> None:
    sources = {
        "entry": "import json\nfrom . import named\nfrom .direct import thing\n",
        "named": "",
        "direct": "def late():\n    from .deep import thing\n",
        "deep": "from .entry import cycle\n",
        "stray": "",
    }
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    found = files_behind("entry", directory=tmp_path)
    assert list(found) == ["deep.py", "direct.py", "entry.py", "named.py"]
    assert found["deep.py"] == tmp_path / "deep.py"
