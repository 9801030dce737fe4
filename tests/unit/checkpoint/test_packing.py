"""`packing`: two signed nibbles in a byte, along rows and along columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scalellm_trt.checkpoint.packing import pack_columns, pack_rows, unpack_columns, unpack_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

sizes = st.integers(1, 6).map(lambda half: 2 * half)
int4_matrices = st.tuples(sizes, sizes).flatmap(lambda shape: arrays(np.int8, shape, elements=st.integers(-8, 7)))


@given(int4_matrices)
def test_packing_rows_loses_nothing(values: NDArray[np.int8]) -> None:
    packed = pack_rows(values)
    assert (packed.shape, packed.dtype) == ((values.shape[0] // 2, values.shape[1]), np.dtype(np.int8))
    np.testing.assert_array_equal(unpack_rows(packed), values)


@given(int4_matrices)
def test_packing_columns_loses_nothing(values: NDArray[np.int8]) -> None:
    packed = pack_columns(values)
    assert (packed.shape, packed.dtype) == ((values.shape[0], values.shape[1] // 2), np.dtype(np.uint8))
    np.testing.assert_array_equal(unpack_columns(packed), values)


@given(arrays(np.uint8, (3, 5)))
def test_every_byte_is_two_int4_values(packed: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(pack_columns(unpack_columns(packed)), packed)
    np.testing.assert_array_equal(pack_rows(unpack_rows(packed.view(np.int8))), packed.view(np.int8))


def test_the_first_of_a_pair_lies_in_the_low_nibble() -> None:
    values = np.array([[-8, 1], [7, -1]], np.int8)
    np.testing.assert_array_equal(pack_rows(values), np.array([[0x78, 0xF1 - 256]], np.int8))
    np.testing.assert_array_equal(pack_columns(values), np.array([[0x18], [0xF7]], np.uint8))
