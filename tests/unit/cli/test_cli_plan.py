from __future__ import annotations

import dataclasses
import io
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from scalellm_trt.cli import plan as plan_command
from scalellm_trt.cli import plan_speed, plan_view
from scalellm_trt.errors import RecipeError
from scalellm_trt.pipeline import Study
from scalellm_trt.plan import Decision, DoesNotFitError, outlook
from scalellm_trt.triton import measured
from tests.fakes import gpu_planning
from tests.fakes.planning import GIB, MACHINE, loaded, make

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.detect import Machine
    from scalellm_trt.pipeline import Step, Workspace
    from scalellm_trt.plan import Objective

CPU = Study(recipe=loaded().recipe, plan=make(), changes=(), refusal=None, suggestion=None)
RTX4090 = Study(
    recipe=gpu_planning.loaded().recipe, plan=gpu_planning.make(), changes=(), refusal=None, suggestion=None
)
MOVED = dataclasses.replace(
    RTX4090, changes=(Decision(field="hardware", value="rtx4090", reason="asked for; the recipe says a100-80g"),)
)


def too_large() -> Study:
    sections: dict[str, Any] = {"quantization": {"weights": "full_prec"}, "serving": {}}
    with pytest.raises(DoesNotFitError) as caught:
        gpu_planning.make(**sections)
    recipe = gpu_planning.loaded(**sections).recipe
    return Study(recipe=recipe, plan=caught.value.plan, changes=(), refusal=caught.value, suggestion=None)


def command(study: Study, asked: list[object]) -> typer.Typer:
    def look(
        recipe: Path,
        workspace: Workspace,
        hardware: str | None,
        objective: Objective | None,
        prompt: int,
        max_tokens: int,
    ) -> Study:
        asked.extend([hardware, objective, prompt, max_tokens])
        return study

    def preview(recipe: Path, workspace: Workspace) -> list[tuple[Step, list[str]]]:
        return [("plan", []), ("quantize", []), ("compile", []), ("assemble", ["limits.max_batch_size 4 → 8"])]

    app = typer.Typer()
    plan_command.register(app, look, preview)
    return app


def run(study: Study, *arguments: str) -> str:
    result = CliRunner().invoke(command(study, []), ["recipes/x.yaml", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def shown(study: Study, machine: Machine = MACHINE, width: int = 160) -> str:
    out = io.StringIO()
    on = Console(file=out, width=width, no_color=True, highlight=False)
    seen = outlook(study.plan, ttft_limit_ms=study.recipe.slo.ttft_ms)
    plan_view.show_head(study, seen, machine, on)
    plan_view.show_memory(study.plan, machine, on)
    plan_speed.show(study.plan, seen, on)
    return out.getvalue()


def test_a_plan_is_one_screen_with_verdict_memory_decisions_and_stages() -> None:
    output = run(CPU)
    assert "verdict   fits: serve takes " in output
    assert "90.0 MiB = 4,096 tokens x 23,040 B: 4 sequences of 1,024" in output
    assert "max_seq_len - 1" in output
    assert "assemble  would run: limits.max_batch_size 4 → 8" in output
    assert "compile   unchanged" in output
    assert "Next: scalellm-trt build recipes/x.yaml" in output
    assert len(output.splitlines()) <= 55


def test_the_next_command_is_the_one_that_can_work_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "Next: scalellm-trt build recipes/x.yaml --container\n" in run(RTX4090)
    assert "--container" not in run(CPU)
    (tmp_path / "trtllm-build").symlink_to(sys.executable)
    assert "Next: scalellm-trt build recipes/x.yaml\n" in run(RTX4090)


def test_a_card_is_told_at_a_glance_what_fits_how_much_cache_and_what_speed() -> None:
    head = "\n".join(shown(RTX4090).splitlines()[:8])
    assert "fits: serve takes 22.4 GiB of 23.6 GiB of the card" in head
    assert "weights 12.4 GiB, KV cache 7.8 GiB" in head
    assert "20,480 tokens x 409,600 B: 5 sequences of 4,096, or 16 requests of 512 + 256 tokens at once" in head
    assert "123 ms to the first token of 512" in head
    assert "(estimate ±30%)" in head
    assert "$0.34/h" in head
    assert "2026-03-10" in head


@pytest.mark.parametrize("width", [80, 100, 160])
def test_it_stays_within_the_screen_and_explains_figures_where_there_is_room(width: int) -> None:
    lines = shown(RTX4090, width=width).splitlines()
    assert any(line.startswith("! compile needs") for line in lines)
    assert max(map(len, lines)) <= width
    assert ("640 blocks x 13107200 B" in "\n".join(lines)) == (width == 160)


def test_speed_says_what_a_prefill_does_to_others_and_what_it_is_made_of() -> None:
    output = shown(RTX4090)
    assert "While a prompt of 4,000 tokens is read in one step, every running stream waits 981 ms" in output
    assert "165.2 TFLOPS (fp16) x MFU 0.67, 1008 GB/s x MBU 0.8 (w8)" in output


def test_a_score_beyond_a_limit_says_which() -> None:
    def score(ttft_limit_ms: float | None = None, tpot_limit_ms: float | None = None) -> str:
        out = io.StringIO()
        seen = outlook(RTX4090.plan, ttft_limit_ms=ttft_limit_ms, tpot_limit_ms=tpot_limit_ms)
        plan_view.show_head(RTX4090, seen, MACHINE, Console(file=out, width=400, no_color=True, highlight=False))
        return out.getvalue()

    assert "beyond" not in score()
    assert "TPOT" not in score(ttft_limit_ms=1000)
    assert "0.0 = 1 / (0.123 s x $0.34/h) beyond the threshold of 0.1 s; latency" in score(ttft_limit_ms=100)
    slow = score(ttft_limit_ms=1000, tpot_limit_ms=17)
    assert "0.0 = 1 / (0.123 s x $0.34/h) TPOT above 17 ms; latency x price 0.0418; TPOT 17.9 ms; $" in slow
    both = score(ttft_limit_ms=100, tpot_limit_ms=17)
    assert "beyond the threshold of 0.1 s, TPOT above 17 ms;" in both


def test_the_table_of_batches_says_what_a_client_sees_beside_the_bare_step() -> None:
    lines = [line.split() for line in shown(RTX4090).splitlines()]
    (steps,) = [line for line in lines if line[:3] == ["ms", "a", "token"]]
    (seen,) = [line for line in lines if line[:3] == ["with", "others'", "prompts"]]
    assert (steps[-1], seen[-1], steps[3], seen[3]) == ("22.7", "30.0", "17.9", "17.9")


def test_what_does_not_fit_is_shown_with_what_helps_and_ends_with_its_exit_code() -> None:
    result = CliRunner().invoke(command(too_large(), []), ["recipes/x.yaml"])
    assert isinstance(result.exception, DoesNotFitError)
    assert "DOES NOT FIT: serve takes 29.5 GiB of 23.6 GiB of the card" in result.output
    assert "Try: quantization.weights: int8_wo (weights 12.4 GiB)" in result.output
    assert "score" not in result.output
    as_json = CliRunner().invoke(command(too_large(), []), ["recipes/x.yaml", "--json"])
    assert as_json.exit_code == 3
    assert json.loads(as_json.stdout)["fits"] is False
    assert "int8_wo" in json.loads(as_json.stdout)["problems"][0]["hint"]


def test_another_card_is_planned_with_the_changes_that_it_needs_and_nothing_is_built() -> None:
    output = run(MOVED)
    assert "what if hardware: rtx4090  asked for; the recipe says a100-80g" in output
    assert "would run" not in output


def test_options_reach_the_study() -> None:
    asked: list[object] = []
    arguments = ["recipes/x.yaml", "--hardware", "t4", "--suggest", "--objective", "sequences"]
    CliRunner().invoke(command(CPU, asked), [*arguments, "--prompt", "100", "--max-tokens", "50"])
    assert asked == ["t4", "sequences", 100, 50]
    asked.clear()
    CliRunner().invoke(command(CPU, asked), ["recipes/x.yaml"])
    assert asked == [None, None, 512, 256]


def test_it_is_said_that_nothing_can_be_suggested_and_why() -> None:
    assert "suggestion" not in run(RTX4090)
    assert "suggestion: none; no limits tried fit the card: take smaller weights" in run(RTX4090, "--suggest")
    slo = {"slo": {"ttft_ms": 1.5, "tpot_ms": 0.5}}
    strict = dataclasses.replace(RTX4090, recipe=gpu_planning.loaded(**slo).recipe)
    words = " ".join(run(strict, "--suggest").split())
    assert "fit the card and keep slo.ttft_ms 1.5 and keep slo.tpot_ms 0.5: raise slo.ttft_ms or slo.tpot_ms" in words


def test_an_unknown_objective_is_refused_with_those_that_there_are() -> None:
    result = CliRunner().invoke(command(CPU, []), ["recipes/x.yaml", "--suggest", "--objective", "speed"])
    assert isinstance(result.exception, RecipeError)
    assert "Allowed: throughput, sequences." in str(result.exception)


def test_json_is_the_whole_plan_with_its_outlook_and_nothing_else() -> None:
    body = json.loads(run(RTX4090, "--json"))
    assert body["name"] == "llama2-13b-rtx4090"
    assert body["fits"] is True
    assert body["outlook"]["pool"]["max_tokens_in_paged_kv_cache"] == 20480
    assert body["outlook"]["speed"]["first_token"][0]["prompt"] == 512
    assert body["outlook"]["score"]["price"]["origin"]["date"] == "2026-03-10"
    assert body["outlook"]["is_estimate"] is True
    assert {budget["stage"] for budget in body["budgets"]} == {"quantize", "compile", "load", "serve"}


def test_output_in_a_pipe_is_plain_text() -> None:
    output = run(RTX4090)
    assert "\x1b" not in output
    assert "─" not in output


def test_a_machine_that_is_busy_now_is_mentioned() -> None:
    assert "available right now" not in shown(CPU)
    assert "Only 256.0 MiB" in shown(CPU, dataclasses.replace(MACHINE, memory_available_bytes=GIB // 4))


def test_a_machine_without_the_card_is_warned_about_its_own_memory_only() -> None:
    output = shown(RTX4090)
    assert "compile needs 28.9 GiB of host memory: this machine, which has no GPU, has 24.0 GiB" in output
    assert "available right now" not in shown(RTX4090, dataclasses.replace(MACHINE, memory_available_bytes=1))


def test_json_has_what_a_server_measured_beside_what_is_planned(tmp_path: Path) -> None:
    assert json.loads(run(RTX4090, "--json", "--builds", str(tmp_path)))["measured"] is None
    path = tmp_path / RTX4090.plan.name / measured.FILE_NAME
    figures = measured.Measured(engine_bytes=14 * GIB, kv_cache_tokens=20480)
    measured.write({"chat_engine": figures}, path, tmp_path / "server.log")
    found = json.loads(run(RTX4090, "--json", "--builds", str(tmp_path)))["measured"]
    assert found["source"] == str(path)
    assert found["models"]["chat_engine"]["kv_cache_tokens"] == 20480
    [weights] = found["parts"]
    assert weights["measured_bytes"] == 14 * GIB
    assert weights["planned_bytes"] == pytest.approx(12.4 * GIB, rel=0.01)


def test_figures_of_the_host_that_nobody_measured_are_labelled() -> None:
    assert "python and builder (estimate) 4.0 GiB, constants 12.4 GiB" in shown(RTX4090, width=160)
