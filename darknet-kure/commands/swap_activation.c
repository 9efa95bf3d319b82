/* swap_activation.c: `darknet kure swap-activation CFG OUT`: a cfg for chips without leaky ReLU. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "cfg_activation.h"
#include "command.h"
#include "evaluate.h"
#include "profiles.h"

static const char help[] =
    "usage: darknet kure swap-activation CFG OUT [options]\n\n"
    "Writes CFG to OUT with another activation in every layer that has activation=leaky, ready\n"
    "for fine-tuning: darknet detector train DATA OUT WEIGHTS. Names the layers, and those\n"
    "whose activation no integer model can have.\n\n"
    "  --to relu        relu (default), relu6, or the slope of leaky as a fraction that chips\n"
    "                   multiply and shift by: 26/256, 1/8\n"
    "  --csv FILE, --json FILE   write the table\n"
    "  --help           this text\n";

static const struct kure_column columns[] = {
    {"layer", KURE_CELL_INTEGER, NULL}, {"type", KURE_CELL_TEXT, NULL},  {"before", KURE_CELL_TEXT, NULL},
    {"after", KURE_CELL_TEXT, NULL},    {"slope", KURE_CELL_REAL, "%.10g"}, {"integer", KURE_CELL_TEXT, NULL},
};

enum { MOST_DENOMINATOR = 65536 };

/* "26/256": a power of two below; 1: it is one */
static int parse_slope(const char *text, double *slope)
{
    int above, below;
    char rest;
    if (sscanf(text, "%d/%d%c", &above, &below, &rest) != 2) return 0;
    if (below < 2 || below > MOST_DENOMINATOR || (below & (below - 1)) || above < 1 || above >= below) return 0;
    *slope = (double)above / below;
    return 1;
}

/* In every target; what some have as a table only is computed in float by the others. */
static int has_integer_form(const char *activation)
{
    for (int i = 0; kure_profile(i); ++i) {
        if (kure_profile_form(kure_profile(i), activation) != KURE_FORM_OWN) return 0;
    }
    return 1;
}

static int add_rows(const struct kure_cfg *cfg, const struct kure_activation_swap *swap, struct kure_table *table)
{
    int swapped = 0;
    for (int i = 0; i < cfg->count; ++i) {
        const struct kure_cfg_section *s = &cfg->sections[i];
        const char *before = s->layer >= 0 ? kure_cfg_activation(s) : NULL;
        if (!before) continue;
        int swaps = strcmp(before, "leaky") == 0;
        const char *after = swaps ? swap->activation : before;
        kure_table_add_row(table);
        kure_table_set_integer(table, "layer", s->layer);
        kure_table_set_text(table, "type", s->type);
        kure_table_set_text(table, "before", before);
        kure_table_set_text(table, "after", after);
        if (swaps && strcmp(after, "leaky") == 0) kure_table_set_real(table, "slope", swap->slope);
        kure_table_set_text(table, "integer", has_integer_form(after) ? "yes" : "no");
        swapped += swaps;
    }
    return swapped;
}

static void name_others(const char *path, const struct kure_cfg *cfg)
{
    const char *gap = "no integer form: ";
    for (int i = 0; i < cfg->count; ++i) {
        const struct kure_cfg_section *s = &cfg->sections[i];
        const char *activation = s->layer >= 0 ? kure_cfg_activation(s) : NULL;
        if (!activation || has_integer_form(activation)) continue;
        if (*gap == 'n') fprintf(stderr, "%s: ", path);
        fprintf(stderr, "%slayer %d [%s] activation=%s", gap, s->layer, s->type, activation);
        gap = ", ";
    }
    if (*gap == ',') fprintf(stderr, "\n");
}

int kure_command_swap_activation(int argc, char **argv)
{
    static const struct option options[] = {{"to", required_argument, NULL, 't'}, {"csv", required_argument, NULL, 'v'},
                                            {"json", required_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    const char *csv = NULL, *json = NULL;
    struct kure_activation_swap swap = {.activation = "relu"};
    struct kure_cfg cfg;
    struct kure_error error;
    struct kure_table table;
    int c;
    while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        if (c == 't') swap.activation = optarg;
        else if (c == 'v') csv = optarg;
        else if (c == 'j') json = optarg;
        else if (c == 'h') return fputs(help, stdout), 0;
        else return kure_wrong_option("swap-activation", c, argv, options);
    }
    int status = kure_check_arguments("swap-activation", argc - optind, "CFG OUT", 2);
    if (status) return status;
    const char *path = argv[optind], *out = argv[optind + 1];
    if (parse_slope(swap.activation, &swap.slope)) swap.activation = "leaky";
    else if (strcmp(swap.activation, "relu") != 0 && strcmp(swap.activation, "relu6") != 0) {
        return kure_usage_error("swap-activation", "--to %s: must be relu, relu6, or a slope A/B with B a power of two up to %d and A below B", swap.activation,
                                MOST_DENOMINATOR);
    }
    const struct kure_output_option outputs[] = {{"--csv", csv}, {"--json", json}, {"OUT", out}};
    status = kure_check_outputs("swap-activation", outputs, 3, (const char *const[]){path, NULL});
    if (status) return status;
    free_network(kure_network_load(path, NULL)); /* one that Darknet reads */
    if (kure_cfg_read_text(path, &cfg, &error) != KURE_OK) kure_stop(&error);
    kure_table_init(&table, "kure.activations/1", columns, sizeof columns / sizeof columns[0]);
    int swapped = add_rows(&cfg, &swap, &table);
    if (swapped == 0) {
        snprintf(error.text, sizeof error.text, "%s: no layer has activation=leaky: there is nothing to swap", path);
        kure_stop(&error);
    }
    if (kure_cfg_swap_activation(&cfg, &swap, out, &error) != KURE_OK) kure_stop(&error);
    kure_table_print(&table, stdout);
    printf("%d layers swapped: %s; fine-tune it, since the trained weights expect leaky ones\n", swapped, out);
    fflush(stdout);
    name_others(out, &cfg);
    status = kure_write_tables(&table, csv, json);
    kure_table_free(&table);
    kure_cfg_free(&cfg);
    return status;
}
