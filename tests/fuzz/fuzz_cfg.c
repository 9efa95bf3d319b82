/* fuzz_cfg.c: any bytes as a cfg; see fuzz.h. */
#include "fuzz.h"

#include <stdlib.h>

#include "options.h"

void fuzz_cfg(const uint8_t *data, size_t size)
{
    const char *path = fuzz_file(0, data, size);
    struct kure_cfg cfg;
    struct kure_options options;
    struct kure_error error = {""};
    char text[KURE_KURTOSIS_TEXT];
    enum kure_status status = kure_cfg_read_text(path, &cfg, &error);
    fuzz_check_error(status, &error);
    if (status == KURE_OK) {
        status = kure_options_parse(&cfg, &options, &error);
        fuzz_check_error(status, &error);
        if (status == KURE_OK) {
            kure_kurtosis_text(&options.kurtosis, text, sizeof text);
            kure_quantization_text(&options.quantization, text, sizeof text);
        }
        kure_options_free(&options);
    }
    kure_cfg_free(&cfg);
    if (kure_cfg_write_clean(path, "/dev/null", &error) != KURE_OK) abort();
}
