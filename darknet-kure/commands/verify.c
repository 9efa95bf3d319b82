/* verify.c: `darknet kure verify BUNDLE`: is a bundle what was exported, and does it compute the same here? */
#define _GNU_SOURCE
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "host_darknet.h"
#include "state.h"
#include "verify.h"

static const char help[] =
    "usage: darknet kure verify BUNDLE [options]\n\n"
    "Reads every file of a bundle: SHA256SUMS and manifest.json against the files, model.kure\n"
    "against manifest.json; then runs the golden images through the integer runtime and\n"
    "compares the codes of every tensor: one that differs is exit status 1.\n\n"
    "  --csv FILE, --json FILE   write the table\n"
    "  --help                    this text\n";

static const struct kure_column columns[] = {
    {"profile", KURE_CELL_TEXT, NULL}, {"files", KURE_CELL_INTEGER, NULL}, {"bytes", KURE_CELL_INTEGER, NULL}, {"images", KURE_CELL_INTEGER, NULL},
    {"tensors", KURE_CELL_INTEGER, NULL}, {"codes", KURE_CELL_INTEGER, NULL}, {"different", KURE_CELL_INTEGER, NULL}, {"largest", KURE_CELL_INTEGER, NULL},
};

int kure_command_verify(int argc, char **argv)
{
    static const struct option options[] = {{"csv", required_argument, NULL, 'v'}, {"json", required_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const char *csv = NULL, *json = NULL;
    struct kure_manifest_check files;
    struct kure_golden_difference golden;
    struct kure_error error;
    struct kure_table table;
    int c;
    while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        if (c == 'v') csv = optarg;
        else if (c == 'j') json = optarg;
        else if (c == 'h') return fputs(help, stdout), 0;
        else return kure_wrong_option("verify", c, argv, options);
    }
    int status = kure_check_arguments("verify", argc - optind, "BUNDLE", 1);
    const struct kure_output_option outputs[] = {{"--csv", csv}, {"--json", json}};
    if (!status) status = kure_check_outputs("verify", outputs, 2, (const char *const[]){argv[optind], NULL});
    if (status) return status;
    if (kure_bundle_verify(argv[optind], &files, &golden, &error) != KURE_OK) kure_stop(&error);
    kure_table_init(&table, "kure.verify/1", columns, sizeof columns / sizeof columns[0]);
    kure_table_add_row(&table);
    kure_table_set_text(&table, "profile", files.profile);
    kure_table_set_integer(&table, "files", files.files);
    kure_table_set_integer(&table, "bytes", (long long)files.bytes);
    kure_table_set_integer(&table, "images", golden.images);
    kure_table_set_integer(&table, "tensors", golden.tensors);
    kure_table_set_integer(&table, "codes", (long long)golden.codes);
    kure_table_set_integer(&table, "different", (long long)golden.different);
    kure_table_set_integer(&table, "largest", golden.most);
    kure_table_print(&table, stdout);
    fflush(stdout);
    status = kure_write_tables(&table, csv, json);
    kure_table_free(&table);
    if (!golden.different) return status;
    fprintf(stderr, "%s: %llu of %llu golden codes differ here, by up to %d: the first one in tensor %s of image %d\n", argv[optind],
            (unsigned long long)golden.different, (unsigned long long)golden.codes, golden.most, golden.first, golden.first_image);
    return 1;
}
