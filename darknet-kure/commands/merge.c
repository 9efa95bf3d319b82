/* merge.c: `darknet kure merge FILE...`: the shards of a sweep as one table. */
#include <getopt.h>
#include <string.h>

#include "evaluate.h"
#include "sweep_file.h"

static const char help[] =
    "usage: darknet kure merge FILE... [options]\n\n"
    "Puts the tables that 'darknet kure sweep --shard' has written together: of the same\n"
    "weights, cfg and grid. Says the robustness score when no point is missing.\n\n"
    "  --csv FILE     write the table; it may be one of the files read\n"
    "  --json FILE    write the table as JSON\n"
    "  --help         this text\n";

int kure_command_merge(int argc, char **argv)
{
    static const struct option options[] = {{"csv", required_argument, NULL, 'v'}, {"json", required_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    const char *csv = NULL, *json = NULL;
    int c, cut;
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (c == 'v') csv = optarg;
        else if (c == 'j') json = optarg;
        else if (c == 'h') return fputs(help, stdout), 0;
        else return kure_usage_error("merge", "wrong option");
    }
    if (optind == argc) return kure_usage_error("merge", "FILE is missing: tables of kure sweep");
    const struct kure_output_option outputs[] = {{"--csv", csv}, {"--json", json}};
    int status = kure_check_outputs("merge", outputs, 2, (const char *const[]){NULL});
    if (status) return status;
    struct kure_sweep_head head = {.points = 0};
    struct kure_table table;
    struct kure_error error;
    kure_sweep_table(&table);
    for (int i = optind; i < argc; ++i) {
        if (kure_sweep_read(argv[i], &head, &table, &cut, &error) != KURE_OK) kure_stop(&error);
        if (cut) fprintf(stderr, "%s: its last line is not whole, and is left out\n", argv[i]);
    }
    if (table.rows == 0) {
        fprintf(stderr, "%s: no row of a sweep in any file\n", argv[optind]);
        return 1;
    }
    memcpy(table.plan, head.plan, sizeof table.plan);
    memcpy(table.model, head.model, sizeof table.model);
    kure_table_sort(&table, "point");
    kure_table_print(&table, stdout);
    kure_sweep_print_score(&table, &head);
    status = kure_write_tables(&table, csv, json);
    kure_table_free(&table);
    return status;
}
