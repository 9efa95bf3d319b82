/* fuzz_main.c: what libFuzzer and AFL++ call; -DFUZZ_TARGET=fuzz_model names the target. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FUZZ_TARGET(data, size);
    return 0;
}
