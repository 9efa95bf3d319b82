/* keys.c: `darknet kure keys`: every cfg key of ours, from keys.def. */
#define _GNU_SOURCE
#include <getopt.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "command.h"
#include "quantizer_keys.h"

static const char help[] =
    "usage: darknet kure keys [options]\n\n"
    "Every cfg key of this plugin: section, default, allowed values, meaning.\n\n"
    "  --markdown                 as Markdown tables, with the roundings and truncation policies\n"
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
    else if (strcmp(k->kind, "list") == 0) snprintf(out, size, "key:values ...");
    else snprintf(out, size, "layer numbers");
}

static void quantizer_values(const struct kure_key *k, char *out, size_t size)
{
    static const char *const kinds[] = {[REAL] = "number", [INTEGER] = "integer", [CHOICE] = "", [LAYERS] = "", [PATH] = ""};
    struct kure_key_text text = {.kind = kinds[k->kind], .choices = k->choices, .minimum = k->minimum, .maximum = k->maximum};
    if (k->kind == CHOICE && strlen(k->choices) > 40) snprintf(out, size, "see below");
    else values_text(&text, out, size);
}

/* A cell of a Markdown table; '|' would end it. */
static void print_cell(const char *text)
{
    printf(" ");
    for (const char *p = *text ? text : "–"; *p; ++p) printf(*p == '|' ? "\\|" : "%c", *p);
    printf(" |");
}

static void print_cells(int count, const char *const *cells)
{
    printf("| `%s` |", cells[0]);
    for (int i = 1; i < count; ++i) print_cell(cells[i]);
    printf("\n");
}

static void print_quantizer_keys(void)
{
    const char *activations;
    const struct kure_key *k;
    printf("\nThe keys of one quantizer, in `[quantization]` or in a layer: `KEY` for weights and activations, `weight_KEY`,\n"
           "`activation_KEY`. A layer may also say `quantize=0`.\n\n"
           "| key | default: weights | activations | values | meaning |\n|---|---|---|---|---|\n");
    for (int i = 0; (k = kure_quantizer_key(i, &activations)) != NULL; ++i) {
        char values[96];
        quantizer_values(k, values, sizeof values);
        print_cells(5, (const char *[]){k->name, k->default_text, activations, values, k->help});
    }
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
            if (strcmp(section, "quantization") == 0) print_quantizer_keys();
            section = k.section;
            const char *title = strcmp(section, "layer") == 0 ? "`[convolutional]`, `[connected]`" : NULL;
            if (title) printf("\n### %s\n\n", title);
            else printf("\n### `[%s]`\n\n", section);
            printf("| key | default | values | meaning |\n|---|---|---|---|\n");
        }
        print_cells(4, (const char *[]){k.key, k.default_text, values, k.help});
    }
}

static void add_quantizer_keys(struct kure_table *table)
{
    const char *activations;
    const struct kure_key *k;
    for (int i = 0; (k = kure_quantizer_key(i, &activations)) != NULL; ++i) {
        char values[160], defaults[64];
        quantizer_values(k, values, sizeof values);
        snprintf(defaults, sizeof defaults, "%s / %s", k->default_text, activations);
        kure_table_add_row(table);
        kure_table_set_text(table, "section", "quantization, layer");
        kure_table_set_text(table, "key", k->name);
        kure_table_set_text(table, "default", *k->default_text ? defaults : "");
        kure_table_set_text(table, "values", k->choices ? k->choices : values);
        kure_table_set_text(table, "meaning", k->help);
    }
}

static void print_quantizers(void)
{
    struct kure_choice_text t;
    printf("\n### Roundings\n\n| rounding | meaning |\n|---|---|\n");
    for (int i = 0; (t = kure_rounding_text(i)).name; ++i) print_cells(2, (const char *[]){t.name, t.help});
    printf("\n### Truncation policies\n\n| truncation | meaning | truncation_value | bits | source |\n|---|---|---|---|---|\n");
    for (int i = 0; (t = kure_policy_text(i)).name; ++i) {
        char value[96] = "", bits[24];
        if (*t.value) snprintf(value, sizeof value, "%s, %g to %g", t.value, t.value_from, t.value_to);
        snprintf(bits, sizeof bits, "2 to %d", t.most_bits);
        print_cells(5, (const char *[]){t.name, t.help, value, bits, t.source});
    }
}

static void print_profiles(void)
{
    const struct kure_profile *p;
    printf("\n### Profiles\n\nOf each key, what the target can do; the first value is the default.\n\n"
           "| profile | target | weights | activations | placement | source |\n|---|---|---|---|---|---|\n");
    for (int i = 0; (p = kure_profile(i)) != NULL; ++i) {
        char placement[160];
        snprintf(placement, sizeof placement, "%s; %s", p->fuses ? "one quantizer behind any activation" : "two quantizers around leaky and the like",
                 p->shares ? "the inputs of a route share a range, where they can" : "a route requantizes its inputs");
        print_cells(6, (const char *[]){p->name, p->help, p->keys[KURE_QUANTIZED_WEIGHTS], p->keys[KURE_QUANTIZED_ACTIVATIONS], placement, p->source});
    }
}

/* Columns of the terminal that stdout is; 0: it is none. */
static int terminal_width(void)
{
    struct winsize size;
    if (!isatty(STDOUT_FILENO)) return 0;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/* Words in lines of at most `width`, each indented. */
static void print_wrapped(const char *text, int indent, int width)
{
    int used = 0;
    while (*text) {
        int length = (int)strcspn(text, " ");
        if (used && indent + used + 1 + length > width) used = 0, printf("\n");
        used += used ? printf(" %.*s", length, text) : printf("%*s%.*s", indent, "", length, text) - indent;
        text += length;
        text += strspn(text, " ");
    }
    printf("\n");
}

/* Where lines have an end: a key and what it may be, its meaning below. */
static void print_for_terminal(const struct kure_table *table, int width)
{
    const char *section = "";
    for (int r = 0; r < table->rows; ++r) {
        const char *own = kure_table_cell(table, r, "section"), *standard = kure_table_cell(table, r, "default");
        char line[512];
        if (strcmp(section, own) != 0) printf("%s%s\n", r ? "\n" : "", own);
        section = own;
        snprintf(line, sizeof line, "%s: %s%s%s", kure_table_cell(table, r, "key"), kure_table_cell(table, r, "values"), *standard ? "; default " : "", standard);
        print_wrapped(line, 2, width);
        print_wrapped(kure_table_cell(table, r, "meaning"), 6, width);
    }
}

int kure_command_keys(int argc, char **argv)
{
    static const struct option options[] = {{"markdown", no_argument, NULL, 'm'}, {"csv", required_argument, NULL, 'v'},
                                            {"json", required_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const char *csv = NULL, *json = NULL;
    int c, markdown = 0;
    while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        if (c == 'm') markdown = 1;
        else if (c == 'v') csv = optarg;
        else if (c == 'j') json = optarg;
        else if (c == 'h') return fputs(help, stdout), 0;
        else return kure_wrong_option("keys", c, argv, options);
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
    add_quantizer_keys(&table);
    if (markdown) {
        print_markdown();
        print_quantizers();
        print_profiles();
    } else if (terminal_width()) {
        print_for_terminal(&table, terminal_width());
    } else {
        kure_table_print(&table, stdout);
    }
    status = kure_write_tables(&table, csv, json);
    kure_table_free(&table);
    return status;
}
