from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from scalellm_trt import facts, recipe
from scalellm_trt.errors import UnsupportedError
from scalellm_trt.migrate import Migration, migrate, recipe_text, rows
from scalellm_trt.migrate.decide import newest_that_serves
from scalellm_trt.recipe.keys import known_keys
from scalellm_trt.recipe.tree import dotted
from tests.fakes.shipped_recipes import of_backend, shipped

RECIPES = Path(__file__).parents[3] / "recipes"
ENGINES = [path for path in of_backend("tensorrt_llm") if shipped()[path].recipe.hardware != "t4"]


def written(folder: Path, hardware: str = "rtx4090", extra: str = "", **quantization: str) -> Path:
    lines = "".join(f"  {key}: {value}\n" for key, value in quantization.items())
    path = folder / "old.yaml"
    path.write_text(
        f"schema: 1\nname: old\nmodel:\n  source: hf:meta-llama/Llama-2-13b-chat-hf\nhardware: {hardware}\n"
        f"quantization:\n{lines}{extra}"
    )
    return path


def migrated(path: Path) -> Migration:
    return migrate(recipe.load(path))


def after(migration: Migration, key: str) -> object:
    return next((change.after for change in migration.changes if change.key == key), "unchanged")


@pytest.mark.parametrize("path", ENGINES, ids=lambda path: path.name)
def test_every_engine_recipe_becomes_one_that_loads_and_that_its_card_takes(path: Path, tmp_path: Path) -> None:
    made = tmp_path / "new.yaml"
    made.write_text(recipe_text(migrated(path), path))
    new, old = recipe.load(made).recipe, recipe.load(path).recipe
    assert (new.backend, new.toolchain, new.model, new.limits) == ("llmapi", "llmapi-1.2.1", old.model, old.limits)
    kv_cache_dtype = old.model.dtype if new.quantization.kv_cache_dtype == "auto" else new.quantization.kv_cache_dtype
    card = facts.hardware()[new.hardware].compute_capability
    assert facts.combination("llmapi", "llmapi-1.2.1", new.quantization.weights, kv_cache_dtype, card).is_allowed
    assert facts.weight_formats()[f"llmapi/{new.quantization.weights}"].is_supported
    assert f"Made from {path} by" in made.read_text()


@pytest.mark.parametrize(
    ("hardware", "weights", "kv_cache_dtype", "expected"),
    [
        ("rtx4090", "int8_wo", "fp8", ("fp8", "fp8")),
        ("rtx4090", "int4_wo", "int8", ("int4_awq", "auto")),
        ("rtx4090", "int8_sq", "int8", ("fp8", "fp8")),
        ("rtx4090", "int4_awq", "fp8", ("int4_awq", "auto")),
        ("rtx3090", "int8_wo", "auto", ("int4_awq", "auto")),
        ("a100-80g", "int8_sq", "int8", ("int4_awq", "auto")),
        ("b200", "int4_awq", "fp8", ("fp8", "fp8")),
        ("l4", "full_prec", "auto", ("full_prec", "auto")),
    ],
)
def test_a_format_becomes_the_nearest_that_the_card_takes(
    tmp_path: Path, hardware: str, weights: str, kv_cache_dtype: str, expected: tuple[str, str]
) -> None:
    made = migrated(written(tmp_path, hardware, weights=weights, kv_cache_dtype=kv_cache_dtype))
    assert (made.values["quantization.weights"], made.values.get("quantization.kv_cache_dtype", "auto")) == expected


def test_a_pool_that_goes_to_16_bits_keeps_its_bytes_in_whole_blocks(tmp_path: Path) -> None:
    extra = "limits:\n  max_seq_len: 2048\nserving:\n  kv_cache_tokens: 10304\n"
    made = migrated(written(tmp_path, weights="int4_awq", kv_cache_dtype="int8", extra=extra))
    assert after(made, "serving.kv_cache_tokens") == 5152
    small = extra.replace("10304", "2080")
    made = migrated(written(tmp_path, weights="int4_awq", kv_cache_dtype="int8", extra=small))
    assert after(made, "serving.kv_cache_tokens") == "unchanged"


def test_a_halved_pool_keeps_one_sequence_and_the_spare_block(tmp_path: Path) -> None:
    extra = "limits:\n  max_seq_len: 2048\nserving:\n  kv_cache_tokens: 3200\n"
    made = migrated(written(tmp_path, weights="int4_awq", kv_cache_dtype="int8", extra=extra))
    assert after(made, "serving.kv_cache_tokens") == 2048 + 32


def test_the_toolchain_is_the_newest_that_can_be_served_today_and_can_be_chosen(tmp_path: Path) -> None:
    path = written(tmp_path, weights="fp8")
    row = facts.toolchains()[str(migrated(path).values["toolchain"])]
    assert row.gpu is not None
    assert row.gpu.image_has_triton
    assert migrate(recipe.load(path), "tensorrt-llm-1.3").values["toolchain"] == "tensorrt-llm-1.3"
    with pytest.raises(UnsupportedError, match=r"--toolchain: 'tensorrt-llm-1.2.1' is no toolchain of llmapi"):
        migrate(recipe.load(path), "tensorrt-llm-1.2.1")


def test_a_newer_image_with_triton_is_preferred_once_it_is_known() -> None:
    old, new = facts.toolchains()["llmapi-1.2.1"], facts.toolchains()["tensorrt-llm-1.3"]
    assert new.gpu is not None
    with_triton = dataclasses.replace(new, gpu=dataclasses.replace(new.gpu, image_has_triton=True))
    assert newest_that_serves([with_triton, old]).name == new.name
    assert newest_that_serves([old, new]).name == old.name


def test_keys_without_effect_are_left_out(tmp_path: Path) -> None:
    made = migrated(written(tmp_path, "b200", weights="int4_awq", group_size="64"))
    assert "quantization.group_size" not in made.values
    old = written(tmp_path, weights="full_prec", kv_cache_dtype="int8", extra="  calibration:\n    num_samples: 8\n")
    assert migrated(old).values["quantization.calibration.num_samples"] == 8


@pytest.mark.parametrize("name", ["t4.yaml", "t4-int8kv.yaml"])
def test_a_t4_has_no_way_and_is_told_to_stay(name: str) -> None:
    with pytest.raises(UnsupportedError, match=r"hardware: 't4' has no way .*dropped Turing") as caught:
        migrated(RECIPES / name)
    assert caught.value.exit_code == 3
    assert "Stay on toolchain tensorrt-llm-0.13.0" in str(caught.value)


@pytest.mark.parametrize(("name", "words"), [("cpu.yaml", "have no engine"), ("rtx4090-llmapi.yaml", "already")])
def test_other_recipes_are_refused(name: str, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        migrated(RECIPES / name)


def test_a_long_name_stays_within_its_bounds(tmp_path: Path) -> None:
    path = written(tmp_path, weights="fp8")
    path.write_text(path.read_text().replace("name: old", f"name: {'a' * 63}"))
    assert len(str(after(migrated(path), "name"))) == 63


def test_every_renamed_option_is_a_key_of_recipes_and_every_format_has_a_successor() -> None:
    assert set(rows.options()) <= {dotted(path) for path in known_keys()}
    keys = {dotted(path): key for path, key in known_keys().items()}
    assert set(rows.weights()) == set(keys["quantization.weights"].choices)
    assert set(rows.kv_cache_dtypes()) == set(keys["quantization.kv_cache_dtype"].choices)
    assert {name for row in rows.weights().values() for name in row.to} <= set(rows.weights())


def test_the_names_of_both_generations_stand_beside_each_value() -> None:
    names = {name.key: name for name in migrated(RECIPES / "rtx4090.yaml").renamings}
    pool = names["serving.kv_cache_tokens"]
    assert (pool.value, pool.engine, pool.llmapi) == (
        20480,
        "max_tokens_in_paged_kv_cache",
        "kv_cache_config.max_tokens",
    )
    assert names["serving.chunked_context"].llmapi == "enable_chunked_prefill"
    assert names["serving.kv_cache_reuse"].llmapi == "kv_cache_config.enable_block_reuse"
