"""Money: what an hour of a card costs, what it makes of it, and whether that is cheaper than an API.

`prices` and `price_file` hold quotes, `ownership` the cost of a card of one's own, `score` ScaleLLM's economic score,
`tokens` the cost of tokens and the break-even, `published` what ScaleLLM's table says. Pure arithmetic.
"""

from scalellm_trt.economics.ownership import Ownership
from scalellm_trt.economics.prices import Price, price_of, prices, typed_price
from scalellm_trt.economics.score import Score, latency_price, score
from scalellm_trt.economics.tokens import (
    ApiPrice,
    BreakEven,
    TokenCost,
    TokenRate,
    break_even,
    input_share_by_time,
    token_cost,
    usd_per_million_tokens,
)

__all__ = [
    "ApiPrice",
    "BreakEven",
    "Ownership",
    "Price",
    "Score",
    "TokenCost",
    "TokenRate",
    "break_even",
    "input_share_by_time",
    "latency_price",
    "price_of",
    "prices",
    "score",
    "token_cost",
    "typed_price",
    "usd_per_million_tokens",
]
