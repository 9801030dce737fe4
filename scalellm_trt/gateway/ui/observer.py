"""Looks at one gateway: a report each second, and the state of all its workers when somebody asks."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt import __version__
from scalellm_trt.gateway.ui import state, tenants
from scalellm_trt.gateway.ui.board import Board
from scalellm_trt.gateway.ui.window import LastError, Window

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalellm_trt.gateway.admission import Admission
    from scalellm_trt.gateway.fleet.member import Member
    from scalellm_trt.gateway.metrics import Metrics
    from scalellm_trt.gateway.options import GatewayOptions
    from scalellm_trt.gateway.served import GatewayModel
    from scalellm_trt.gateway.ui.window import Report


class Observer:
    """To be used in the event loop of its gateway."""

    def __init__(
        self, models: Mapping[str, GatewayModel], options: GatewayOptions, metrics: Metrics, admission: Admission
    ) -> None:
        """Begin to look."""
        self._options, self._metrics, self._admission = options, metrics, admission
        self._models = [
            state.Model(name=name, can_chat=model.template is not None, max_seq_len=model.settings.max_seq_len)
            for name, model in models.items()
        ]
        self._window = Window(metrics.live)
        shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        self._board = None if shared is None else Board(Path(shared))

    def use(self, options: GatewayOptions) -> None:
        """Tell of other options from now on."""
        self._options = options

    def tick(self, num_connections: int) -> None:
        """Take note of what is so now; to be called once a second."""
        self._window.sample(waiting=self._admission.num_waiting)
        if self._board is not None:
            self._board.post(self._report(num_connections))

    def state(self, members: Sequence[Member]) -> state.State:
        """Return what all workers together are doing.

        Args:
            members: the servers; of several workers, each server's connections and last error are those of this one.
        """
        num_connections = sum(member.upstream.num_connections() for member in members)
        reports = [self._report(num_connections), *([] if self._board is None else self._board.others())]
        together, options = state.merged(reports), self._options
        return state.State(
            version=__version__,
            time_s=time.time(),
            age_s=round(together.age_s, 3),
            workers=len(reports),
            needs_key=options.needs_key,
            models=self._models,
            servers=_servers(members, together),
            queue=state.Queue(
                running=together.running,
                waiting=together.waiting,
                max_running=options.max_streams * len(reports),
                max_waiting=options.max_queue_size * len(reports),
            ),
            minute=state.minute(together),
            total=together.total,
            series=together.series,
            tenants=tenants.read(self._metrics.collect()),
        )

    def _report(self, num_connections: int) -> Report:
        return self._window.report(waiting=self._admission.num_waiting, connections=num_connections)


def _servers(members: Sequence[Member], together: Report) -> list[state.Server]:
    if len(members) == 1:  # then everything that all workers do is done there
        (member,) = members
        return [
            state.Server(
                url=member.options.url,
                state=member.condition,
                running=together.running,
                waiting=together.waiting,
                connections=together.connections,
                last_error=together.last_error,
            )
        ]
    return [
        state.Server(
            url=member.options.url,
            state=member.condition,
            running=member.num_running,
            waiting=0,  # requests wait for their turn before a server is chosen
            connections=member.upstream.num_connections(),
            last_error=None
            if not member.health.error
            else LastError(message=member.health.error, time_s=member.health.error_time_s),
        )
        for member in members
    ]
