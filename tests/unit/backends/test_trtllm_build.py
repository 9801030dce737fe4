"""trtllm_build: the argv of every engine recipe, flag by flag, and what the formats and cards change in it."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scalellm_trt import facts
from scalellm_trt.backends import trtllm_build
from scalellm_trt.backends.trtllm_build import BuildPaths, build_command, num_workers, timing_cache_path
from tests.fakes.planning import SERVER, plan_of
from tests.fakes.plans import gpu_plan
from tests.fakes.shipped_recipes import of_backend

if TYPE_CHECKING:
    from scalellm_trt.plan import Plan

ROOT = Path(__file__).parents[3]
GOLDENS = ROOT / "tests" / "goldens" / "trtllm_build"
PATHS = BuildPaths(checkpoint_dir=Path("/c"), out_dir=Path("/e"), timing_cache=None)
RECIPES = of_backend("tensorrt_llm")


def argv_of(plan: Plan, paths: BuildPaths = PATHS) -> list[str]:
    return build_command(plan, paths, num_workers=plan.world_size)


def options_of(plan: Plan) -> dict[str, str]:
    """Return flag → value; a switch has none."""
    words = argv_of(plan)[1:]
    return {
        word: "" if position + 1 == len(words) or words[position + 1].startswith("--") else words[position + 1]
        for position, word in enumerate(words)
        if word.startswith("--")
    }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_flag_of_every_recipe_is_one_that_its_toolchain_has(path: Path) -> None:
    plan = plan_of(path, SERVER)
    row = facts.toolchains()[plan.toolchain].gpu
    assert row is not None
    for flag, value in options_of(plan).items():
        assert flag in row.build_flags
        # A flag that stands alone is one whose default is "off", and the other way round.
        assert (row.build_flags[flag] == trtllm_build.SWITCH_DEFAULT) == (value == ""), flag
        assert row.renamed_flags.get(flag) is None


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_argv_of_a_recipe_is_as_promised(path: Path) -> None:
    plan = plan_of(path, SERVER)
    golden = GOLDENS / f"{path.stem}.txt"
    found = shlex.join(argv_of(plan)).replace(" --", "\n--") + "\n"
    assert found == golden.read_text(), f"to accept it: write it to {golden}"


@pytest.mark.parametrize("toolchain", ["tensorrt-llm-1.2.1", "tensorrt-llm-1.1.0", "tensorrt-llm-1.0.0"])
def test_every_limit_is_written_because_defaults_change(toolchain: str) -> None:
    options = options_of(gpu_plan(toolchain=toolchain))
    wanted = {"max_batch_size": "4", "max_input_len": "63", "max_seq_len": "64", "max_num_tokens": "32"}
    assert {name: options[f"--{name}"] for name in wanted} == wanted
    assert (options["--max_beam_width"], options["--tokens_per_block"]) == ("1", "32")


def test_a_flag_that_a_version_lacks_is_our_own_bug_not_an_argument() -> None:
    plan = gpu_plan(toolchain="tensorrt-llm-0.13.0", hardware="t4")
    row = trtllm_build.gpu_toolchain(plan)
    assert "--monitor_memory" not in row.build_flags
    assert "--monitor_memory" not in argv_of(plan)
    assert "--multiple_profiles" not in argv_of(plan)
    assert argv_of(gpu_plan())[-1] == "--monitor_memory"


@pytest.mark.parametrize(
    ("weights", "kv_cache_dtype", "hardware", "paged", "fp8", "gemm"),
    [
        ("int8_wo", "fp8", "rtx4090", "disable", "disable", "auto"),
        ("int8_wo", "float16", "rtx4090", "enable", "disable", "auto"),
        ("fp8", "fp8", "rtx4090", "enable", "enable", "disable"),
        ("fp8", "float16", "h100", "enable", "disable", "disable"),
        ("int4_awq", "int8", "a100-80g", "disable", "disable", "auto"),
        ("int4_awq", "float16", "a100-80g", "enable", "disable", "auto"),
        ("full_prec", "float16", "a100-80g", "enable", "disable", "auto"),
    ],
)
def test_attention_kernels_follow_from_formats_and_card(
    weights: str, kv_cache_dtype: str, hardware: str, paged: str, fp8: str, gemm: str
) -> None:
    options = options_of(gpu_plan(weights=weights, kv_cache_dtype=kv_cache_dtype, hardware=hardware))
    assert (options["--use_paged_context_fmha"], options["--use_fp8_context_fmha"]) == (paged, fp8)
    assert (options["--context_fmha"], options["--gemm_plugin"]) == ("enable", gemm)
    assert ("--use_fused_mlp" in options) == (weights == "fp8")


def test_a_t4_gets_unfused_attention_and_the_few_flags_that_are_sure() -> None:
    plan = gpu_plan(toolchain="tensorrt-llm-0.13.0", hardware="t4", weights="int4_wo")
    options = options_of(plan)
    assert options["--context_fmha"] == "disable"
    assert options["--gemm_plugin"] == "float16"
    assert "--use_paged_context_fmha" not in options


def test_experts_and_ranks_get_their_plugins() -> None:
    plan = gpu_plan(weights="fp8", kv_cache_dtype="fp8", hardware="h100", tp_size=8)
    options = options_of(dataclasses.replace(plan, spec=dataclasses.replace(plan.spec, num_experts=8)))
    assert (options["--moe_plugin"], options["--nccl_plugin"], options["--workers"]) == ("auto", "auto", "8")
    assert "--use_fused_mlp" not in options


def test_the_timing_cache_is_read_only_where_an_earlier_build_left_one() -> None:
    assert "--input_timing_cache" not in argv_of(gpu_plan())
    paths = dataclasses.replace(PATHS, timing_cache=Path("/k/x.cache"))
    argv = argv_of(gpu_plan(), paths)
    assert argv[argv.index("--input_timing_cache") + 1] == "/k/x.cache"
    assert argv[argv.index("--output_timing_cache") + 1] == "/e/model.cache"


def test_the_timing_cache_is_one_per_card_and_tensorrt() -> None:
    names = {
        timing_cache_path(Path("c"), card, version).name
        for card in ("NVIDIA L4", "NVIDIA L40S")
        for version in ("10.4.0", "10.14.1.48")
    }
    assert len(names) == 4
    assert "nvidia-l4-tensorrt-10.4.0.cache" in names


def test_as_many_ranks_are_built_at_a_time_as_the_host_holds() -> None:
    plan, gib = gpu_plan(tp_size=8), 1 << 30
    assert num_workers(plan, checkpoint_bytes=48 * gib, host_memory_bytes=256 * gib) == 8
    assert num_workers(plan, checkpoint_bytes=48 * gib, host_memory_bytes=40 * gib) == 2
    assert num_workers(plan, checkpoint_bytes=480 * gib, host_memory_bytes=8 * gib) == 1
