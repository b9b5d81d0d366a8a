/* y = x Wᵀ for few rows x: see few_rows.py.
 *
 * x [rows][inputs], weight [outputs][inputs], y [rows][outputs]. What takes the time is reading the weights, once. Two
 * of their rows at a time are multiplied by up to six of x in registers, while the next two are fetched; libraries that
 * are made for large products first copy the weights into another order, which takes longer than the product itself.
 */
#include <cstddef>
#include <cstdint>
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

using Vector [[gnu::vector_size(32), gnu::aligned(4), gnu::may_alias]] = float;
constexpr ptrdiff_t WIDE = 8;     // numbers of a vector
constexpr ptrdiff_t TALL = 2;     // rows of the weights at a time
constexpr ptrdiff_t MOST = 6;     // rows of x at a time: TALL * MOST sums, MOST numbers of x and a weight in registers
constexpr ptrdiff_t FEW = 32;     // rows from which a library is faster
constexpr ptrdiff_t SMALL = 8192; // weights below which another thread costs more than it gains

float total(Vector sums) {
    float found = 0;
    for (ptrdiff_t i = 0; i < WIDE; i++) found += sums[i];
    return found;
}

template <ptrdiff_t T, ptrdiff_t M>
void tile(const float *__restrict weight, const float *__restrict x, float *y, ptrdiff_t inputs, ptrdiff_t outputs) {
    Vector sums[T][M] = {};
    ptrdiff_t i = 0;
    for (; i + WIDE <= inputs; i += WIDE) {
        Vector given[M];
        for (ptrdiff_t m = 0; m < M; m++) given[m] = *(const Vector *)(x + m * inputs + i);
        for (ptrdiff_t t = 0; t < T; t++) {
            const Vector each = *(const Vector *)(weight + t * inputs + i);
            __builtin_prefetch(weight + (t + T) * inputs + i);
            for (ptrdiff_t m = 0; m < M; m++) sums[t][m] += each * given[m];
        }
    }
    for (ptrdiff_t t = 0; t < T; t++)
        for (ptrdiff_t m = 0; m < M; m++) {
            float sum = total(sums[t][m]);
            for (ptrdiff_t j = i; j < inputs; j++) sum += weight[t * inputs + j] * x[m * inputs + j];
            y[m * outputs + t] = sum;
        }
}

template <ptrdiff_t T>
void tiles(const float *weight, const float *x, float *y, ptrdiff_t rows, ptrdiff_t inputs, ptrdiff_t outputs) {
    const ptrdiff_t groups = (rows + MOST - 1) / MOST;
    for (ptrdiff_t group = 0, row = 0; group < groups; group++) {
        const ptrdiff_t next = rows * (group + 1) / groups;
        const float *from = x + row * inputs;
        float *to = y + row * outputs;
        switch (next - row) {
        case 1: tile<T, 1>(weight, from, to, inputs, outputs); break;
        case 2: tile<T, 2>(weight, from, to, inputs, outputs); break;
        case 3: tile<T, 3>(weight, from, to, inputs, outputs); break;
        case 4: tile<T, 4>(weight, from, to, inputs, outputs); break;
        case 5: tile<T, 5>(weight, from, to, inputs, outputs); break;
        default: tile<T, MOST>(weight, from, to, inputs, outputs);
        }
        row = next;
    }
}

AOTITorchError by_library(AtenTensorHandle x, AtenTensorHandle weight, AtenTensorHandle y, ptrdiff_t rows,
                          ptrdiff_t inputs, ptrdiff_t outputs) {
    const int64_t sizes[3][2] = {{rows, inputs}, {inputs, outputs}, {rows, outputs}};
    const int64_t strides[3][2] = {{inputs, 1}, {1, inputs}, {outputs, 1}};
    const AtenTensorHandle given[3] = {x, weight, y};
    AtenTensorHandle views[3] = {};
    AOTITorchError error = AOTI_TORCH_SUCCESS;
    for (int k = 0; k < 3 && !error; k++) {
        int64_t offset = 0;
        error = aoti_torch_get_storage_offset(given[k], &offset);
        if (!error) error = aoti_torch__reinterpret_tensor(given[k], 2, sizes[k], strides[k], offset, &views[k]);
    }
    if (!error) error = aoti_torch_cpu_mm_out(views[2], views[0], views[1]);
    for (AtenTensorHandle view : views)
        if (view) aoti_torch_delete_tensor_object(view);
    return error;
}

bool dense(AtenTensorHandle tensor, int64_t dimensions) {
    int64_t *sizes = nullptr, *strides = nullptr, expected = 1;
    if (aoti_torch_get_sizes(tensor, &sizes) || aoti_torch_get_strides(tensor, &strides)) return false;
    for (int64_t d = dimensions - 1; d >= 0; d--) {
        if (sizes[d] != 1 && strides[d] != expected) return false;
        expected *= sizes[d];
    }
    return true;
}

int threads() {
#ifdef _OPENMP
    return omp_get_max_threads(); // torch's number, if torch has loaded the same OpenMP
#else
    return 1;
#endif
}

} // namespace

extern "C" {

void few_rows(const float *x, const float *weight, float *y, ptrdiff_t rows, ptrdiff_t inputs, ptrdiff_t outputs,
              int threads) {
    const ptrdiff_t pairs = outputs / TALL;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && outputs * inputs > SMALL)
    for (ptrdiff_t pair = 0; pair < pairs; pair++)
        tiles<TALL>(weight + pair * TALL * inputs, x, y + pair * TALL, rows, inputs, outputs);
    for (ptrdiff_t last = pairs * TALL; last < outputs; last++)
        tiles<1>(weight + last * inputs, x, y + last, rows, inputs, outputs);
}

/* What a program of torch's inductor calls for the operator windtunnel::few_rows. */
AOTI_TORCH_EXPORT AOTITorchError aoti_torch_cpu_few_rows(AtenTensorHandle x, AtenTensorHandle weight,
                                                         AtenTensorHandle *y) {
    int64_t *sizes = nullptr, *table = nullptr, dimensions = 0, shape[8], strides[8], rows = 1;
    void *from = nullptr, *by = nullptr, *to = nullptr;
    if (aoti_torch_get_dim(x, &dimensions) || aoti_torch_get_sizes(x, &sizes) || aoti_torch_get_sizes(weight, &table) ||
        dimensions < 1 || dimensions > 8 || !dense(x, dimensions) || !dense(weight, 2))
        return AOTI_TORCH_FAILURE;
    const int64_t outputs = table[0], inputs = table[1];
    for (int64_t d = 0; d < dimensions - 1; d++) rows *= shape[d] = sizes[d];
    shape[dimensions - 1] = outputs;
    for (int64_t d = dimensions - 1, size = 1; d >= 0; size *= shape[d--]) strides[d] = size;
    if (aoti_torch_empty_strided(dimensions, shape, strides, aoti_torch_dtype_float32(), aoti_torch_device_type_cpu(),
                                 0, y))
        return AOTI_TORCH_FAILURE;
    if (rows > FEW) return by_library(x, weight, *y, rows, inputs, outputs);
    if (aoti_torch_get_data_ptr(x, &from) || aoti_torch_get_data_ptr(weight, &by) || aoti_torch_get_data_ptr(*y, &to))
        return AOTI_TORCH_FAILURE;
    few_rows((const float *)from, (const float *)by, (float *)to, rows, inputs, outputs, threads());
    return AOTI_TORCH_SUCCESS;
}
}
