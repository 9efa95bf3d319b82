/* command.c: finds the command and its help. */
#define _GNU_SOURCE
#include "command.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host_darknet.h"
#include "options.h"
#include "output.h"

static const struct kure_command commands[] = {
    {"plan", "CFG", "what [kurtosis] and [quantization] do in each layer, and why not", kure_command_plan},
    {"stats", "CFG WEIGHTS", "mean, std, skewness, kurtosis and quantization noise of every layer's weights", kure_command_stats},
    {"theory", "[CFG WEIGHTS]", "error, best step and sensitivity to the step, of distributions or of layers", kure_command_theory},
    {"eval", "CFG WEIGHTS DATA", "top-1 of a classifier or AP of a detector, float or quantized after training", kure_command_eval},
    {"calibrate", "CFG WEIGHTS DATA", "ranges of activations from images; what each truncation policy clips", kure_command_calibrate},
    {"sweep", "CFG WEIGHTS DATA", "eval over a grid of quantizers, a robustness score; goes on where it was stopped", kure_command_sweep},
    {"sensitivity", "CFG WEIGHTS DATA", "which layers cost top-1 or AP when they are quantized; bits for each of them", kure_command_sensitivity},
    {"merge", "FILE...", "the shards of a sweep as one table", kure_command_merge},
    {"export", "CFG WEIGHTS", "the network as integers for a target: a bundle with golden vectors", kure_command_export},
    {"verify", "BUNDLE", "hashes of a bundle, and its golden vectors through the integer runtime", kure_command_verify},
    {"compare", "CFG WEIGHTS DATA", "how many codes differ between the integer models of two profiles", kure_command_compare},
    {"swap-activation", "CFG OUT", "the cfg with relu, relu6 or an integer slope in place of leaky", kure_command_swap_activation},
    {"keys", "", "every cfg key: default, allowed values, meaning", kure_command_keys},
};
enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static void print_help(FILE *out)
{
    fprintf(out, "usage: darknet kure COMMAND [options]\n\n");
    for (int i = 0; i < COMMAND_COUNT; ++i) {
        fprintf(out, "  %-15s %-17s %s\n", commands[i].name, commands[i].arguments, commands[i].summary);
    }
    fprintf(out, "\n'darknet kure COMMAND --help' says more. Instruction set in use: %s.\n", kure_instruction_set());
}

static const struct kure_command *nearest(const char *name)
{
    const struct kure_command *best = &commands[0];
    for (int i = 1; i < COMMAND_COUNT; ++i) {
        if (kure_edit_distance(name, commands[i].name) < kure_edit_distance(name, best->name)) best = &commands[i];
    }
    return best;
}

int kure_command(int argc, char **argv)
{
    while (argc > 1 && !argv[argc - 1]) --argc; /* Darknet takes -nogpu and -i out, but counts them */
    if (argc < 3) {
        print_help(stderr);
        return 2;
    }
    const char *name = argv[2];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_help(stdout);
        return 0;
    }
    for (int i = 0; i < COMMAND_COUNT; ++i) {
        opterr = 0; /* kure_wrong_option says it */
        if (strcmp(name, commands[i].name) == 0) return commands[i].run(argc - 2, argv + 2);
    }
    fprintf(stderr, "darknet kure: no command '%s': did you mean '%s'? See 'darknet kure --help'.\n", name, nearest(name)->name);
    return 2;
}

int kure_parse_seed(const char *text, uint64_t *seed)
{
    char *end;
    errno = 0;
    *seed = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && errno == 0;
}

int kure_usage_error(const char *command, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "darknet kure %s: ", command);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "; see 'darknet kure %s --help'\n", command);
    va_end(arguments);
    return 2;
}

int kure_take_count(const char *command, const char *option, const char *text, int most)
{
    char *end;
    long n = strtol(text, &end, 10);
    if (end != text && !*end && n > 0 && n <= most) return (int)n;
    if (most == KURE_MOST_COUNT) kure_usage_error(command, "--%s %s: must be a positive integer", option, text);
    else kure_usage_error(command, "--%s %s: must be an integer from 1 to %d", option, text, most);
    return 0;
}

int kure_wrong_option(const char *command, int answer, char **argv, const struct option *options)
{
    const char *given = argv[optind - 1];
    if (answer == '?' && optopt && argv[optind] && argv[optind][0] == '-' && argv[optind][1] != '-') given = argv[optind]; /* -weight-bits */
    const struct option *best = options;
    char name[64];
    if (answer == ':') return kure_usage_error(command, "%s needs a value", given);
    snprintf(name, sizeof name, "%.*s", (int)strcspn(given + strspn(given, "-"), "="), given + strspn(given, "-"));
    for (const struct option *o = options; o->name; ++o) {
        if (kure_edit_distance(name, o->name) < kure_edit_distance(name, best->name)) best = o;
        if (strncmp(given, "--", 2) == 0 && strcmp(name, o->name) == 0 && o->has_arg == no_argument) {
            return kure_usage_error(command, "--%s takes no value", name);
        }
    }
    return kure_usage_error(command, "unknown option '%s': did you mean '--%s'?", given, best->name);
}

int kure_check_arguments(const char *command, int left, const char *names, int wanted)
{
    if (left == wanted) return 0;
    return kure_usage_error(command, "%s: needs %s", left < wanted ? "an argument is missing" : "too many arguments", names);
}

int kure_check_outputs(const char *command, const struct kure_output_option *outputs, int count, const char *const *inputs)
{
    struct kure_error error;
    for (int i = 0; i < count; ++i) {
        const struct kure_output_option *o = &outputs[i];
        for (int j = 0; o->path && j < i; ++j) {
            if (!outputs[j].path || !kure_is_same_file(o->path, outputs[j].path)) continue;
            return kure_usage_error(command, "%s %s and %s %s name the same file", outputs[j].option, outputs[j].path, o->option, o->path);
        }
        for (const char *const *input = inputs; o->path && *input; ++input) {
            char sidecar[4200];
            snprintf(sidecar, sizeof sidecar, "%s.kure", *input); /* momentum and ranges of weights */
            if (!kure_is_same_file(o->path, *input) && !(access(sidecar, F_OK) == 0 && kure_is_same_file(o->path, sidecar))) continue;
            return kure_usage_error(command, "%s %s would overwrite what is read from %s", o->option, o->path, *input);
        }
    }
    for (int i = 0; i < count; ++i) {
        if (!outputs[i].path || kure_output_check(outputs[i].path, &error) == KURE_OK) continue;
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    return 0;
}

int kure_write_tables(const struct kure_table *table, const char *csv, const char *json)
{
    struct kure_error error;
    if ((csv && kure_table_write_csv(table, csv, &error) != KURE_OK) ||
        (json && kure_table_write_json(table, json, &error) != KURE_OK)) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    return 0;
}
