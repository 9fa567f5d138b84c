"""exp of float32 numbers in compiled code, in a form that vector instructions can compute; the C library's takes one at a time.

The reduction and the polynomial are those of `expf` in Cephes (Moshier): x = n·ln 2 + r, with ln 2 as a sum of two numbers of
which the first is so short that its products are exact; a polynomial gives exp(r), and n is added to the exponent's bits.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

LARGEST, LEAST = np.float32(88), np.float32(-87)  # between these, results are normal float32 numbers
LOG2_E, LN2_SHORT, LN2_REST = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
TERMS = tuple(map(np.float32, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)))
EXPONENT_BIAS, EXPONENT_BIT = np.int32(127), np.int32(23)


@intrinsic
def _of_bits(typing_context: Any, bits: Any) -> Any:
    """The float32 with the bits of an int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

    return types.float32(types.int32), generate


@njit(forceinline=True, fastmath={"contract"}, error_model="numpy")
def exp(x):  # type: ignore[no-untyped-def]
    """exp of a float32, within 2 units of its last place; beyond LEAST and LARGEST that of the bound."""
    x = min(max(x, LEAST), LARGEST)
    n = np.floor(x * LOG2_E + np.float32(0.5))
    r = x - n * LN2_SHORT - n * LN2_REST
    p = ((((TERMS[0] * r + TERMS[1]) * r + TERMS[2]) * r + TERMS[3]) * r + TERMS[4]) * r + TERMS[5]
    return (p * r * r + r + np.float32(1)) * _of_bits((np.int32(n) + EXPONENT_BIAS) << EXPONENT_BIT)
