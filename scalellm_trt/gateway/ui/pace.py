"""The pace of one stream: its tokens in, the counters of its worker up."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalellm_trt.gateway.ui.window import Live


class Pace:
    """Counts the tokens of one request as they come and, for one stream, the time from token to token."""

    __slots__ = ("_is_stream", "_last_s", "_live")

    def __init__(self, live: Live, *, is_stream: bool) -> None:
        """Count into `live`; times only of one answer that is streamed."""
        self._live, self._is_stream = live, is_stream
        self._last_s: float | None = None

    def note(self, num_tokens: int) -> None:
        """Count tokens that came together: each took its share of the time since the ones before."""
        live = self._live
        live.generation_tokens += num_tokens
        if self._is_stream and num_tokens:
            now_s = live.clock()
            last_s, self._last_s = self._last_s, now_s
            if last_s is not None:
                # Sorted into buckets once a second: a logarithm a token would be a thirtieth of what it costs.
                if num_tokens == 1:
                    live.gaps.append(now_s - last_s)
                else:
                    live.gaps += [(now_s - last_s) / num_tokens] * num_tokens
