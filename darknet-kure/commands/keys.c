/* keys.c: `darknet kure keys`: every cfg key of ours, from keys.def. */
#define _GNU_SOURCE
#include <getopt.h>
#include <string.h>

#include "command.h"
#include "options.h"

static const char help[] =
    "usage: darknet kure keys [options]\n\n"
    "Every cfg key of this plugin: section, default, allowed values, meaning.\n\n"
    "  --markdown                 as a Markdown table\n"
    "  --csv FILE, --json FILE    write the table\n"
    "  --help                     this text\n";

static const struct kure_column columns[] = {
    {"section", KURE_CELL_TEXT, NULL}, {"key", KURE_CELL_TEXT, NULL},    {"default", KURE_CELL_TEXT, NULL},
    {"values", KURE_CELL_TEXT, NULL},  {"meaning", KURE_CELL_TEXT, NULL},
};

static void values_text(const struct kure_key_text *k, char *out, size_t size)
{
    if (k->choices) snprintf(out, size, "%s", k->choices);
    else if (strcmp(k->kind, "integer") == 0 && k->maximum == 1) snprintf(out, size, "0 1");
    else if (k->maximum > k->minimum && k->maximum < 2e9) snprintf(out, size, "%s %g to %g", k->kind, k->minimum, k->maximum);
    else if (k->maximum > k->minimum) snprintf(out, size, "%s from %g", k->kind, k->minimum);
    else if (strcmp(k->kind, "path") == 0) snprintf(out, size, "file");
    else snprintf(out, size, "layer numbers");
}

static void print_markdown(void)
{
    const char *section = "";
    for (size_t i = 0; i < kure_key_count(); ++i) {
        struct kure_key_text k;
        char values[64];
        kure_key_text(i, &k);
        values_text(&k, values, sizeof values);
        if (strcmp(section, k.section) != 0) {
            section = k.section;
            const char *title = strcmp(section, "layer") == 0 ? "`[convolutional]`, `[connected]`" : NULL;
            if (title) printf("\n### %s\n\n", title);
            else printf("\n### `[%s]`\n\n", section);
            printf("| key | default | values | meaning |\n|---|---|---|---|\n");
        }
        printf("| `%s` | %s | %s | %s |\n", k.key, *k.default_text ? k.default_text : "–", values, k.help);
    }
}

int kure_command_keys(int argc, char **argv)
{
    static const struct option options[] = {{"markdown", no_argument, NULL, 'm'}, {"csv", required_argument, NULL, 'v'},
                                            {"json", required_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const char *csv = NULL, *json = NULL;
    int c, markdown = 0;
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (c == 'm') markdown = 1;
        else if (c == 'v') csv = optarg;
        else if (c == 'j') json = optarg;
        else if (c == 'h') return fputs(help, stdout), 0;
        else return kure_usage_error("keys", "wrong option");
    }
    int status = kure_check_arguments("keys", argc - optind, "no argument", 0);
    const struct kure_output_option outputs[] = {{"--csv", csv}, {"--json", json}};
    if (!status) status = kure_check_outputs("keys", outputs, 2, (const char *const[]){NULL});
    if (status) return status;
    struct kure_table table;
    kure_table_init(&table, "kure.keys/1", columns, sizeof columns / sizeof columns[0]);
    for (size_t i = 0; i < kure_key_count(); ++i) {
        struct kure_key_text k;
        char values[64];
        kure_key_text(i, &k);
        values_text(&k, values, sizeof values);
        kure_table_add_row(&table);
        kure_table_set_text(&table, "section", k.section);
        kure_table_set_text(&table, "key", k.key);
        kure_table_set_text(&table, "default", k.default_text);
        kure_table_set_text(&table, "values", values);
        kure_table_set_text(&table, "meaning", k.help);
    }
    if (markdown) print_markdown();
    else kure_table_print(&table, stdout);
    status = kure_write_tables(&table, csv, json);
    kure_table_free(&table);
    return status;
}
