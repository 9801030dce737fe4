"""What gateway.yaml may say of servers and of how requests are shared out over them, and what options come of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from scalellm_trt.gateway.options import GroupOptions, PolicyName, RoutingOptions, ServerOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULTS: Final = RoutingOptions()
_MAX_COUNT: Final = 2**31 - 1
_Count = Annotated[int, Field(ge=1, le=_MAX_COUNT, strict=True)]
_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NAME: Final = r"[a-z0-9][a-z0-9._-]{0,62}"
NAME_HINT: Final = "1 to 63 of a-z, 0-9, dots, dashes and underscores, a letter or digit first"
ServerName = Annotated[str, Field(pattern=rf"^{_NAME}$")]
URL: Final = r"^[^\s/]+:[0-9]{1,5}$"
URL_HINT: Final = "HOST:PORT of the server's gRPC, without a scheme"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ServerSection(_Section):
    """One tritonserver; how all are spoken to (TLS, connections) is said in `server`."""

    url: str = Field(
        pattern=URL, json_schema_extra={"patternErrorMessage": URL_HINT}, description="gRPC address of the server"
    )
    weight: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="how much of the traffic it can take, against the others"
    )
    group: str | None = Field(
        default=None,
        pattern=rf"^{_NAME}$",
        json_schema_extra={"patternErrorMessage": NAME_HINT},
        description="servers of the same shape, for `routing.groups`",
    )


class GroupsSection(_Section):
    """Dynamic load balancing between groups of servers: few requests to one, many to the other; both or none."""

    few: str | None = Field(
        default=None,
        pattern=rf"^{_NAME}$",
        json_schema_extra={"patternErrorMessage": NAME_HINT},
        description="the group that answers one request fastest, such as a tensor-parallel server",
    )
    many: str | None = Field(
        default=None,
        pattern=rf"^{_NAME}$",
        json_schema_extra={"patternErrorMessage": NAME_HINT},
        description="the group that answers most requests together, such as replicas",
    )
    threshold: _Count = Field(default=16, description="concurrent requests above which traffic goes to `many`")
    hysteresis: int = Field(
        default=4,
        ge=0,
        le=_MAX_COUNT,
        strict=True,
        description="so many fewer must it be before traffic goes back to `few`",
    )


class RoutingSection(_Section):
    """How requests are shared out over `servers`, and what becomes of those of a server that breaks."""

    policy: PolicyName = Field(
        default=_DEFAULTS.policy,
        description="least_tokens: fewest outstanding tokens for its weight; prefix: where the beginning of the prompt "
        "was before, within bounds; round_robin; weighted: turns as often as weights say",
    )
    prefix_block_tokens: _Count = Field(
        default=_DEFAULTS.prefix_block_tokens, description="`prefix` compares beginnings in blocks of so many tokens"
    )
    prefix_load_factor: float = Field(
        default=_DEFAULTS.prefix_load_factor,
        ge=1,
        allow_inf_nan=False,
        description="`prefix` leaves a server that has more than so many times the mean load",
    )
    groups: GroupsSection = Field(default_factory=GroupsSection)
    max_attempts: _Count = Field(
        default=_DEFAULTS.max_attempts,
        description="servers that one request is sent to at most: one that breaks servers must not break all",
    )
    wait_s: _Seconds = Field(
        default=_DEFAULTS.wait_s, description="seconds that an answer waits for a server to go on; then it ends"
    )
    continue_sampled: bool = Field(
        default=_DEFAULTS.continue_sampled,
        description="continue sampled answers too: the text goes on, but not as it would have; greedy ones always are",
    )
    probe_interval_s: _Seconds = Field(
        default=_DEFAULTS.probe_interval_s, description="seconds between two questions whether a server is ready"
    )
    probe_timeout_s: _Seconds = Field(
        default=_DEFAULTS.probe_timeout_s, description="seconds that it has to answer; else it gets no new requests"
    )
    max_failed_probes: _Count = Field(
        default=_DEFAULTS.max_failed_probes,
        description="after so many in a row, other servers go on with what it was working on",
    )
    silent_after_s: _Seconds = Field(
        default=_DEFAULTS.silent_after_s,
        description="they do so sooner if it has sent nothing for so long, neither tokens nor answers, though it was "
        "asked",
    )


def to_servers(sections: Mapping[str, ServerSection]) -> tuple[ServerOptions, ...]:
    """Return the servers that are described."""
    return tuple(
        ServerOptions(name=name, url=section.url, weight=section.weight, group=section.group)
        for name, section in sections.items()
    )


def to_routing(section: RoutingSection) -> RoutingOptions:
    """Return how requests are shared out."""
    groups = section.groups
    switch = None
    if groups.few is not None and groups.many is not None:
        switch = GroupOptions(
            few=groups.few, many=groups.many, threshold=groups.threshold, hysteresis=groups.hysteresis
        )
    return RoutingOptions(groups=switch, **section.model_dump(exclude={"groups"}))


def doubts(servers: Mapping[str, ServerSection], routing: RoutingSection) -> list[tuple[tuple[str, ...], str, str]]:
    """Return what does not go together: the key's path, what is wrong, what to do."""
    found: list[tuple[tuple[str, ...], str, str]] = []
    groups = routing.groups
    known = sorted({section.group for section in servers.values() if section.group is not None})
    for name, group, other in (("few", groups.few, groups.many), ("many", groups.many, groups.few)):
        path = ("routing", "groups", name)
        if group is not None and other is None:
            missing = "many" if name == "few" else "few"
            found.append((path, f"needs routing.groups.{missing}", "Write both, or none of them."))
        if group is not None and group not in known:
            hint = f"Groups here: {', '.join(known) or 'none; write group: below a server'}."
            found.append((path, f"no server is of the group {group!r}", hint))
    if groups.hysteresis >= groups.threshold:
        path = ("routing", "groups", "hysteresis")
        message = f"{groups.hysteresis} is not below threshold ({groups.threshold}): traffic would never go back"
        found.append((path, message, "Write less, or a higher threshold."))
    seen: dict[str, str] = {}
    for name, section in servers.items():
        if section.url in seen:
            message = f"is also that of server {seen[section.url]}"
            found.append((("servers", name, "url"), message, "A server stands once: give it a weight instead."))
        seen.setdefault(section.url, name)
    return found
