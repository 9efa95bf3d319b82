/* output.c: see output.h. */
#define _GNU_SOURCE
#include "output.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"

char *kure_follow_links(const char *path)
{
    enum { MOST_LINKS = 40 }; /* as Linux */
    char *name = strdup(path), to[PATH_MAX];
    for (int i = 0; name; ++i) {
        ssize_t length = readlink(name, to, sizeof to - 1);
        if (length < 0) break;
        if (i == MOST_LINKS) { /* a circle */
            free(name);
            errno = ELOOP;
            return NULL;
        }
        to[length] = 0;
        const char *slash = to[0] == '/' ? NULL : strrchr(name, '/');
        char *next = NULL;
        if (asprintf(&next, "%.*s%s", slash ? (int)(slash - name + 1) : 0, name, to) < 0) next = NULL;
        free(name);
        name = next;
    }
    return name;
}

int kure_is_special(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && !S_ISREG(status.st_mode);
}

/* Without links, `.` and `..`; the file itself need not exist. */
static char *canonical(const char *path)
{
    char *name = kure_follow_links(path), *real = name ? realpath(name, NULL) : NULL;
    if (name && !real) {
        char *slash = strrchr(name, '/'), *folder;
        if (slash == name) folder = strdup("/");
        else {
            if (slash) *slash = 0;
            folder = realpath(slash ? name : ".", NULL);
        }
        if (!folder || asprintf(&real, "%s/%s", folder, slash ? slash + 1 : name) < 0) real = NULL;
        free(folder);
    }
    free(name);
    return real;
}

int kure_is_same_file(const char *a, const char *b)
{
    char *real_a = canonical(a), *real_b = canonical(b);
    int same = real_a && real_b ? strcmp(real_a, real_b) == 0 : strcmp(a, b) == 0;
    free(real_a);
    free(real_b);
    return same;
}

static void free_names(struct kure_output *out)
{
    free(out->target);
    free(out->temporary);
    memset(out, 0, sizeof *out);
}

static enum kure_status fail_write(const char *path, int cause, struct kure_error *error)
{
    return kure_fail(error, KURE_ERROR_FILE, "%s: cannot be written: %s", path, strerror(cause));
}

static enum kure_status set_names(const char *path, struct kure_output *out, struct kure_error *error)
{
    memset(out, 0, sizeof *out);
    out->path = path;
    out->target = kure_follow_links(path);
    if (!out->target) return fail_write(path, errno, error);
    if (kure_is_special(out->target) || asprintf(&out->temporary, "%s.tmp", out->target) >= 0) return KURE_OK;
    out->temporary = NULL;
    free_names(out);
    return kure_fail_memory(error);
}

enum kure_status kure_output_open(const char *path, struct kure_output *out, struct kure_error *error)
{
    enum kure_status status = set_names(path, out, error);
    if (status != KURE_OK) return status;
    out->file = fopen(out->temporary ? out->temporary : out->target, "w");
    if (out->file) return KURE_OK;
    status = fail_write(path, errno, error);
    free_names(out);
    return status;
}

enum kure_status kure_output_close(struct kure_output *out, int written, struct kure_error *error)
{
    int cause = written ? 0 : errno;
    if (fclose(out->file) != 0 && !cause) cause = errno;
    if (!cause && out->temporary && rename(out->temporary, out->target) != 0) cause = errno;
    if (cause && out->temporary) unlink(out->temporary);
    enum kure_status status = cause ? fail_write(out->path, cause, error) : KURE_OK;
    free_names(out);
    return status;
}

enum kure_status kure_output_check(const char *path, struct kure_error *error)
{
    struct kure_output out;
    enum kure_status status = set_names(path, &out, error);
    if (status != KURE_OK) return status;
    struct stat info;
    int cause = 0;
    if (out.temporary) { /* the name that will be opened: a folder, its rights and the disk all have a say */
        FILE *file = fopen(out.temporary, "w");
        if (!file) cause = errno;
        else {
            fclose(file);
            unlink(out.temporary);
        }
    } else if (stat(out.target, &info) == 0 && S_ISDIR(info.st_mode)) {
        cause = EISDIR;
    } else if (access(out.target, W_OK) != 0) {
        cause = errno;
    }
    if (cause) status = fail_write(path, cause, error);
    free_names(&out);
    return status;
}
