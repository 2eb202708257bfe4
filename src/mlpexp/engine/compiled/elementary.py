"""Elementary functions of vectors, each operation rounded to float32; a NaN stays one.

exp and log after Cephes (Moshier, expf and logf); the polynomials of erf and sin were fitted by Lawson's weighted
least squares to scipy's functions. Errors against double precision, in units of the last place: exp 1.0, log 0.8,
tanh 2.5, erf 2, sin and cos 2 up to |x| = 1e4 (`tests/test_compiled_engine.py` measures them).

The compiled forms of activations (`nn/activations.py`) are made of the functions here, and of `fma`, `where`, `full`,
`absolute`, `sqrt` and `copysign` of `vectors.py`.
"""

from numba import njit

from mlpexp.engine.compiled.vectors import (
    absolute,
    copysign,
    exponent,
    flip_if_odd,
    fma,
    full,  # noqa: F401
    power_of_two,
    sqrt,  # noqa: F401
    where,
)

ROUND = 1.5 * 2**23  # added and subtracted again: rounds to a whole number
LOG2_E, LN2_HIGH, LN2_LOW = 1.44269504, 0.693359375, -2.12194440e-4
SQRT_HALF, SQRT_TAU = 0.70710678, 2.50662827
ONE_OVER_PI = 0.318309886
PI_HIGH, PI_MIDDLE, PI_LOW = 3.140625, 9.67502593994140625e-4, 1.509957990978376432e-7


@njit(nogil=True)
def clip(x, limit):
    x = where(x < -limit, -limit, x)
    return where(x > limit, limit, x)


@njit(nogil=True)
def _exp_parts(x):
    """p and s of exp(x) = s (1 + p), for |x| < 88."""
    n = fma(x, LOG2_E, ROUND) - ROUND
    r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, x))
    p = fma(fma(r, 1.9875691500e-4, 1.3981999507e-3), r, 8.3334519073e-3)
    p = fma(fma(fma(p, r, 4.1665795894e-2), r, 1.6666665459e-1), r, 5.0000001201e-1)
    return fma(r * r, p, r), power_of_two(n + (ROUND + 127))


@njit(nogil=True)
def exp(x):
    p, s = _exp_parts(clip(x, 87.0))
    return fma(s, p, s)


@njit(nogil=True)
def expm1(x):
    p, s = _exp_parts(clip(x, 87.0))
    return fma(s, p, s - 1.0)


@njit(nogil=True)
def tanh(x):
    t = expm1(clip(x + x, 20.0))
    return t / (t + 2.0)


@njit(nogil=True)
def sigmoid(x):
    return 1.0 / (1.0 + exp(0.0 - x))


@njit(nogil=True)
def log(x):
    """For finite x of at least 1."""
    n = exponent(x)
    f = x * power_of_two((ROUND + 127) - n) - 1.0
    z = f * f
    p = fma(fma(fma(f, 7.0376836292e-2, -1.1514610310e-1), f, 1.1676998740e-1), f, -1.2420140846e-1)
    p = fma(fma(fma(p, f, 1.4249322787e-1), f, -1.6668057665e-1), f, 2.0000714765e-1)
    p = fma(fma(p, f, -2.4999993993e-1), f, 3.3333331174e-1)
    return fma(n, LN2_HIGH, f + fma(z, -0.5, fma(n, LN2_LOW, p * f * z)))


@njit(nogil=True)
def softplus(x):
    """log(1 + exp(x)), and x itself beyond 20, as torch has it."""
    e = exp(0.0 - absolute(x))  # in (0, 1]
    u = 1.0 + e
    small = log(u) + (e - (u - 1.0)) / u  # log(1 + e), with what the addition has rounded away
    return where(x > 20.0, x, where(x > 0.0, x + small, small))


@njit(nogil=True)
def erf(x):
    a = absolute(x)
    z = a * a
    p = fma(fma(fma(z, -5.6313688e-4, 4.9175490e-3), z, -2.6711310e-2), z, 1.1280180e-1)
    near = fma(fma(fma(p, z, -3.7612326e-1), z, 1.2837912e-1), a, a)
    b = where(a > 4.0, 4.0, a)
    q = fma(fma(fma(b, -1.91504134e-4, 2.99954068e-3), b, -2.20519974e-2), b, 1.03566892e-1)
    q = fma(fma(fma(q, b, 6.37600039e-1), b, 1.12742609), b, 2.56445677e-4)
    far = 1.0 - exp(0.0 - q)
    return copysign(where(a > 1.0, far, near), x)


@njit(nogil=True)
def normal_cdf(x):
    return fma(erf(x * SQRT_HALF), 0.5, 0.5)


@njit(nogil=True)
def normal_pdf(x):
    return exp((x * x) * -0.5) / SQRT_TAU


@njit(nogil=True)
def _sin_near(r, n):
    """(-1)^n sin(r) for |r| <= pi / 2, of n + ROUND."""
    z = r * r
    p = fma(fma(fma(z, 2.60710667e-6, -1.98103513e-4), z, 8.33307878e-3), z, -1.66666601e-1)
    return flip_if_odd(fma(p * z, r, r), n)


@njit(nogil=True)
def sin(x):
    n = fma(x, ONE_OVER_PI, ROUND)
    k = n - ROUND
    return _sin_near(fma(k, -PI_LOW, fma(k, -PI_MIDDLE, fma(k, -PI_HIGH, x))), n)


@njit(nogil=True)
def cos(x):
    a = absolute(x)  # cos is even
    n = fma(a, ONE_OVER_PI, -0.5) + ROUND  # |x| = (n + 1/2) pi + r
    k = (n - ROUND) + 0.5
    # cos((n + 1/2) pi + r) = (-1)^(n + 1) sin(r)
    return 0.0 - _sin_near(fma(k, -PI_LOW, fma(k, -PI_MIDDLE, fma(k, -PI_HIGH, a))), n)
