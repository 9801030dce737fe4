"""How copies and ranks of a model go onto cards: what does not divide, what does not go together, what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalellm_trt.model_spec import ModelSpec
    from scalellm_trt.plan.notes import Notes
    from scalellm_trt.plan.rows import Rows
    from scalellm_trt.recipe import Recipe


def check(recipe: Recipe, spec: ModelSpec, rows: Rows, notes: Notes) -> None:
    """Check ranks and copies against toolchain, model and card; what they cost on this card is said."""
    tp_size, pp_size, allowed = recipe.parallel.tp_size, recipe.parallel.pp_size, rows.toolchain.max_world_size
    key = "parallel.tp_size" if tp_size > 1 else "parallel.pp_size"
    if tp_size * pp_size > allowed:
        message = (
            f"tp_size {tp_size} x pp_size {pp_size} is more than the {allowed} rank(s) that {recipe.backend} takes"
        )
        notes.refuse(key, message, f"Allowed: {allowed} in all.")
    elif tp_size * pp_size > 1:
        _check_shards(spec, tp_size, pp_size, notes)
        _say_link(rows, tp_size, key, notes)
    _check_services(recipe, rows, notes)


def _check_shards(spec: ModelSpec, tp_size: int, pp_size: int, notes: Notes) -> None:
    sizes = {"attention heads": spec.num_heads, "intermediate_size": spec.intermediate_size}
    odd = [f"{size} {name}" for name, size in sizes.items() if size % tp_size]
    if spec.num_kv_heads % tp_size and tp_size % spec.num_kv_heads:
        odd.append(f"{spec.num_kv_heads} KV heads (more ranks than heads repeat them evenly only)")
    if odd:
        notes.refuse("parallel.tp_size", f"{tp_size} ranks do not share {', '.join(odd)} evenly", "Use 1, 2, 4 or 8.")
    if spec.num_layers % pp_size:
        hint = f"Use a divisor of {spec.num_layers}."
        notes.refuse("parallel.pp_size", f"{pp_size} ranks do not share {spec.num_layers} layers evenly", hint)


def _say_link(rows: Rows, tp_size: int, key: str, notes: Notes) -> None:
    hardware = rows.hardware
    if hardware.has_p2p:
        speed = "" if hardware.link_gb_per_s is None else f", {hardware.link_gb_per_s:g} GB/s per direction"
        notes.decide(key, tp_size, f"ranks talk over {hardware.link}{speed}")
        return
    reason = (
        f"{hardware.name} cards do not copy to each other directly ({hardware.link}): every exchange goes through host "
        "memory. What fits on one card is faster there (estimate)"
    )
    notes.warn(key, tp_size, reason)


def _check_services(recipe: Recipe, rows: Rows, notes: Notes) -> None:
    services, allowed = recipe.services, rows.toolchain.max_services
    if services > allowed:
        message = f"{services} copies are more than {recipe.backend} runs side by side"
        notes.refuse("services", message, f"Allowed: at most {allowed}.")
    elif services > 1 and recipe.parallel.tp_size * recipe.parallel.pp_size > 1:
        message = f"{services} copies over several ranks each would claim the same MPI world in one server"
        notes.refuse("services", message, "Set services: 1, and one recipe per copy with servers of their own.")
    elif services > 1:
        reason = (
            f"{services} engines in one server, each with its own pool of kv_cache_tokens; a crash stops all of them, "
            f"and loaded together each waits about {services} times as long for its first token (estimate)"
        )
        notes.decide("services", services, reason)
