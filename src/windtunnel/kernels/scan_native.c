/* The linear recurrence and its adjoint, one pass over memory each: see linear_scan.py for the equations.
 *
 * Tensors are [batch][time][width]. A piece of work is a row of the batch by at most BLOCK channels, whose carries, one
 * number each, stay in the first-level cache. Pieces go to the threads of the OpenMP runtime that torch has loaded
 * already: threads of our own would share the cores with torch's, which keep them busy while they wait for work.
 */
#include <stddef.h>

#define BLOCK 1024

static inline ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

#define DEFINE(NAME, REAL)                                                                                             \
    static void NAME##_forward_piece(const REAL *decay, const REAL *inputs, const REAL *initial, REAL *states,         \
                                     ptrdiff_t time, ptrdiff_t width, ptrdiff_t count) {                               \
        REAL carry[BLOCK];                                                                                             \
        for (ptrdiff_t c = 0; c < count; c++) carry[c] = initial ? initial[c] : 0;                                     \
        for (ptrdiff_t at = 0; at < time * width; at += width) {                                                       \
            const REAL *restrict a = decay + at, *restrict x = inputs + at;                                            \
            REAL *restrict h = states + at;                                                                            \
            for (ptrdiff_t c = 0; c < count; c++) h[c] = carry[c] = a[c] * carry[c] + x[c];                            \
        }                                                                                                              \
    }                                                                                                                  \
    static void NAME##_adjoint_piece(const REAL *decay, const REAL *states, const REAL *initial,                       \
                                     const REAL *gradient, REAL *d_decay, REAL *d_inputs, ptrdiff_t time,              \
                                     ptrdiff_t width, ptrdiff_t count) {                                               \
        REAL carry[BLOCK] = {0}, start[BLOCK]; /* a_{t+1} delta_{t+1}, and h_0 */                                      \
        for (ptrdiff_t c = 0; c < count; c++) start[c] = initial ? initial[c] : 0;                                     \
        for (ptrdiff_t at = (time - 1) * width; at >= 0; at -= width) {                                                \
            const REAL *restrict a = decay + at, *restrict g = gradient + at;                                          \
            const REAL *restrict before = at ? states + at - width : start;                                            \
            REAL *restrict da = d_decay + at, *restrict dx = d_inputs + at;                                            \
            for (ptrdiff_t c = 0; c < count; c++) {                                                                    \
                const REAL delta = g[c] + carry[c];                                                                    \
                dx[c] = delta;                                                                                         \
                da[c] = delta * before[c];                                                                             \
                carry[c] = a[c] * delta;                                                                               \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    void NAME##_forward(const REAL *decay, const REAL *inputs, const REAL *initial, REAL *states, ptrdiff_t batch,     \
                        ptrdiff_t time, ptrdiff_t width, ptrdiff_t channels, int threads) {                            \
        _Pragma("omp parallel for collapse(2) schedule(dynamic) num_threads(threads)")                                 \
        for (ptrdiff_t row = 0; row < batch; row++)                                                                    \
            for (ptrdiff_t first = 0; first < width; first += channels) {                                              \
                const ptrdiff_t at = row * time * width + first;                                                       \
                NAME##_forward_piece(decay + at, inputs + at, initial ? initial + row * width + first : NULL,          \
                                     states + at, time, width, smaller(channels, width - first));                      \
            }                                                                                                          \
    }                                                                                                                  \
    void NAME##_adjoint(const REAL *decay, const REAL *states, const REAL *initial, const REAL *gradient,              \
                        REAL *d_decay, REAL *d_inputs, ptrdiff_t batch, ptrdiff_t time, ptrdiff_t width,               \
                        ptrdiff_t channels, int threads) {                                                             \
        _Pragma("omp parallel for collapse(2) schedule(dynamic) num_threads(threads)")                                 \
        for (ptrdiff_t row = 0; row < batch; row++)                                                                    \
            for (ptrdiff_t first = 0; first < width; first += channels) {                                              \
                const ptrdiff_t at = row * time * width + first;                                                       \
                NAME##_adjoint_piece(decay + at, states + at, initial ? initial + row * width + first : NULL,          \
                                     gradient + at, d_decay + at, d_inputs + at, time, width,                          \
                                     smaller(channels, width - first));                                                \
            }                                                                                                          \
    }

DEFINE(float32, float)
DEFINE(float64, double)
