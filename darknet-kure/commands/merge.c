/* merge.c: `darknet kure merge FILE...`: the shards of a sweep as one table. */
#include <getopt.h>
#include <string.h>
#include <unistd.h>

#include "evaluate.h"
#include "output.h"
#include "sweep_file.h"

static const char help[] =
    "usage: darknet kure merge FILE... [options]\n\n"
    "Puts the tables that 'darknet kure sweep --shard' has written together: of the same\n"
    "weights, cfg and grid. Says the robustness score when no point is missing.\n\n"
    "  --csv FILE     write the table: a new file, or one of those read\n"
    "  --json FILE    write the table as JSON\n"
    "  --help         this text\n";

int kure_command_merge(int argc, char **argv)
{
    static const struct option options[] = {{"csv", required_argument, NULL, 'v'}, {"json", required_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    const char *csv = NULL, *json = NULL;
    long whole;
    int c;
    while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        if (c == 'v') csv = optarg;
        else if (c == 'j') json = optarg;
        else if (c == 'h') return fputs(help, stdout), 0;
        else return kure_wrong_option("merge", c, argv, options);
    }
    if (optind == argc) return kure_usage_error("merge", "FILE is missing: tables of kure sweep");
    const struct kure_output_option outputs[] = {{"--csv", csv}, {"--json", json}};
    int status = kure_check_outputs("merge", outputs, 2, (const char *const[]){NULL});
    if (status) return status;
    for (int i = 0; i < 2; ++i) {
        int is_input = 0;
        for (int j = optind; outputs[i].path && j < argc; ++j) is_input |= kure_is_same_file(outputs[i].path, argv[j]);
        if (!outputs[i].path || is_input || kure_is_special(outputs[i].path) || access(outputs[i].path, F_OK) != 0) continue;
        return kure_usage_error("merge", "%s %s: lies there already and is not among the files read: choose another name", outputs[i].option, outputs[i].path);
    }
    struct kure_sweep_head head = {.points = 0};
    struct kure_table table;
    struct kure_error error;
    kure_sweep_table(&table);
    for (int i = optind; i < argc; ++i) {
        if (kure_sweep_read(argv[i], &head, &table, &whole, &error) != KURE_OK) kure_stop(&error);
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
    kure_sweep_free(&head);
    return status;
}
