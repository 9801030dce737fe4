"""Dynamic inference load balancing: few requests go to a group that answers each fast, many to one for many.

A model may be served by groups of different shape, such as one server over eight GPUs (tensor parallel: low latency)
and eight servers of one GPU each (replicas: more tokens per second together). ScaleLLM's blueprint: below a threshold
of concurrent requests the first gets the traffic, above it the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.gateway.fleet.member import Member
    from scalellm_trt.gateway.options import GroupOptions


class GroupSwitch:
    """Says which group is next. The threshold has a width, so that traffic around it does not go to and fro.

    Attributes:
        is_busy: traffic goes to the group for many requests.
    """

    def __init__(self, options: GroupOptions) -> None:
        """Begin with the group for few."""
        self._options = options
        self.is_busy = False

    def of(self, members: Sequence[Member], num_running: int) -> Sequence[Member]:
        """Return the members of the group for one request more, all `members` if it has none of them.

        Args:
            members: those that could be given a request.
            num_running: requests that run now, in all groups.
        """
        options, num_requests = self._options, num_running + 1
        if num_requests > options.threshold:
            self.is_busy = True
        elif num_requests <= options.threshold - options.hysteresis:
            self.is_busy = False
        wanted = options.many if self.is_busy else options.few
        return [member for member in members if member.options.group == wanted] or members
