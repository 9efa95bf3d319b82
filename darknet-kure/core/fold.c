/* fold.c: see fold.h. Tested by tests/unit/test_kurtosis_fold.c. */
#include <assert.h>

#include "../backend/backend.h"
#include "fold.h"

void kure_fold(const struct kure_tensor *tensor)
{
    const struct kure_backend *cpu = kure_cpu();
    assert(tensor->scratch && tensor->variance);
    for (size_t c = 0; c < tensor->rows; c++) {
        size_t at = c * tensor->row_length;
        cpu->multiply(tensor->weights + at, tensor->scratch + at, tensor->row_length,
                      kure_fold_factor(tensor->gamma[c], tensor->variance[c]));
    }
}
