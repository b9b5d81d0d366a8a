/* The linear recurrence and its adjoint, one pass over memory each: see linear_scan.py for the equations.
 *
 * Rows are [time][width] with contiguous channels; a call handles channels [first, last) of batch rows one after
 * another. `carry` holds one number a channel and stays in the first-level cache.
 */
#include <stddef.h>
#include <stdlib.h>

#define DEFINE(NAME, REAL)                                                                                             \
    int NAME##_forward(const REAL *decay, const REAL *inputs, const REAL *initial, REAL *states, ptrdiff_t time,      \
                       ptrdiff_t width, ptrdiff_t batch, ptrdiff_t first, ptrdiff_t last) {                            \
        REAL *restrict carry = malloc((last - first) * sizeof(REAL));                                                 \
        if (!carry) return 1;                                                                                          \
        for (ptrdiff_t c = first; c < last; c++) carry[c - first] = initial ? initial[batch * width + c] : 0;         \
        for (ptrdiff_t t = 0; t < time; t++) {                                                                         \
            const ptrdiff_t at = (batch * time + t) * width + first;                                                   \
            const REAL *restrict a = decay + at, *restrict x = inputs + at;                                            \
            REAL *restrict h = states + at;                                                                            \
            for (ptrdiff_t c = 0; c < last - first; c++) h[c] = carry[c] = a[c] * carry[c] + x[c];                     \
        }                                                                                                              \
        free(carry);                                                                                                   \
        return 0;                                                                                                      \
    }                                                                                                                  \
    int NAME##_adjoint(const REAL *decay, const REAL *states, const REAL *initial, const REAL *gradient,              \
                       REAL *d_decay, REAL *d_inputs, ptrdiff_t time, ptrdiff_t width, ptrdiff_t batch,                \
                       ptrdiff_t first, ptrdiff_t last) {                                                              \
        const ptrdiff_t count = last - first;                                                                          \
        REAL *restrict carry = calloc(2 * count, sizeof(REAL)); /* a_{t+1} delta_{t+1}, then the initial state */      \
        if (!carry) return 1;                                                                                          \
        for (ptrdiff_t c = 0; initial && c < count; c++) carry[count + c] = initial[batch * width + first + c];        \
        for (ptrdiff_t t = time - 1; t >= 0; t--) {                                                                    \
            const ptrdiff_t at = (batch * time + t) * width + first;                                                   \
            const REAL *restrict a = decay + at, *restrict g = gradient + at;                                          \
            const REAL *restrict before = t ? states + at - width : carry + count;                                     \
            REAL *restrict da = d_decay + at, *restrict dx = d_inputs + at;                                            \
            for (ptrdiff_t c = 0; c < count; c++) {                                                                    \
                const REAL delta = g[c] + carry[c];                                                                    \
                dx[c] = delta;                                                                                         \
                da[c] = delta * before[c];                                                                             \
                carry[c] = a[c] * delta;                                                                               \
            }                                                                                                          \
        }                                                                                                              \
        free(carry);                                                                                                   \
        return 0;                                                                                                      \
    }

DEFINE(float32, float)
DEFINE(float64, double)
