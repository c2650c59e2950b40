"""exp(x) of x <= 0 in float32, the same to the last bit in NumPy, in compiled loops and on every CPU.

The libraries' own differ among each other by a unit in the last place, so that a confidence would depend on which of
two equal ways computed it. Argument reduction by the nearest multiple of log 2, whose high part has few bits, then the
polynomial of Cephes' expf (Moshier, Methods and Programs for Mathematical Functions, 1989); relative error below 1e-7.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LOG2E = np.float32(1.44269504)
LOG2_HIGH, LOG2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
C0, C1, C2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
C3, C4, C5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
HALF, ONE, LEAST = np.float32(0.5), np.float32(1), np.float32(-104)
HALVES = np.ldexp(ONE, -np.arange(152)).astype(np.float32)
"""HALVES[n] is two to the power of -n; what is below `LEAST` is zero in float32."""


def exp_of_negative(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """exp(x), float32, for x <= 0; `kernels.exp_of_negative` is the same operations for one number."""
    x = np.maximum(x, LEAST)
    n = np.floor(x * LOG2E + HALF)
    r = x - n * LOG2_HIGH - n * LOG2_LOW
    p = ((((C0 * r + C1) * r + C2) * r + C3) * r + C4) * r + C5
    result: NDArray[np.float32] = (p * (r * r) + r + ONE) * HALVES[(-n).astype(np.intp)]
    return result
