/*
 * command.h: `darknet kure COMMAND`: one file per command, one row in command.c.
 *
 * Exit status: 0 done, 1 a fault in the input (one sentence on stderr), 2 a wrong
 * command line. Tables go to stdout, everything else to stderr.
 */
#ifndef KURE_COMMAND_H
#define KURE_COMMAND_H

#include <stdint.h>

#include "table.h"

struct kure_command {
    const char *name, *arguments, *summary;
    int (*run)(int argc, char **argv); /* argv[0] is the command's name */
};

int kure_command_plan(int argc, char **argv);
int kure_command_stats(int argc, char **argv);
int kure_command_theory(int argc, char **argv);
int kure_command_eval(int argc, char **argv);
int kure_command_calibrate(int argc, char **argv);
int kure_command_sweep(int argc, char **argv);
int kure_command_sensitivity(int argc, char **argv);
int kure_command_merge(int argc, char **argv);
int kure_command_export(int argc, char **argv);
int kure_command_verify(int argc, char **argv);
int kure_command_compare(int argc, char **argv);
int kure_command_swap_activation(int argc, char **argv);
int kure_command_keys(int argc, char **argv);

/* --threads and the like: an integer from 1 to `most`; 0: wrong, after a sentence. OpenMP
 * ends the process where it cannot start as many threads as it is told. */
enum { KURE_MOST_THREADS = 1024, KURE_MOST_COUNT = 999999999 };
int kure_take_count(const char *command, const char *option, const char *text, int most);
/* --seed: 1, or 0: no integer from 0 on. */
int kure_parse_seed(const char *text, uint64_t *seed);

/* For what getopt_long has answered with '?' or, a leading ':' in its short options, with
 * ':': names the option, and the nearest one. options [in]: ends with a NULL name. */
struct option;
int kure_wrong_option(const char *command, int answer, char **argv, const struct option *options);

/* For wrong command lines: the sentence, where help is, and 2. */
__attribute__((format(printf, 2, 3))) int kure_usage_error(const char *command, const char *format, ...);

/* Checks that argc - optind arguments are left as `names` asks; 0: so it is, else 2 after a sentence. */
int kure_check_arguments(const char *command, int left, const char *names, int wanted);

/* Checks what a command will write before it begins. outputs [in]: [count], a NULL
 * path is not given; inputs [in]: paths, ends with NULL. 0, or the exit status after a
 * sentence: a file named twice, an input as output, one that cannot be written. */
struct kure_output_option {
    const char *option, *path;
};
int kure_check_outputs(const char *command, const struct kure_output_option *outputs, int count, const char *const *inputs);

/* Writes --csv and --json where they were given; 0, or 1 after a sentence. */
int kure_write_tables(const struct kure_table *table, const char *csv, const char *json);

#endif
