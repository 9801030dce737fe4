"""Speed before anybody runs it: a roofline with two constants per card, judged by published measurements.

`roofline` is the arithmetic, `cards` a card's rates, `measurements` the published points, `fitting` how well they are
predicted. Everything that comes out is an estimate.
"""

from scalellm_trt.predict.cards import CardConstants, constants_of
from scalellm_trt.predict.roofline import Format, Pass, Rates, Shape, decode_step, prefill

__all__ = ["CardConstants", "Format", "Pass", "Rates", "Shape", "constants_of", "decode_step", "prefill"]
