/* bundle.c: see bundle.h. Tested by tests/test_export_bundle.py. */
#define _GNU_SOURCE
#include "bundle.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"

enum { PATH_BYTES = 4400 };

static enum kure_status fail_errno(const char *path, const char *what, struct kure_error *error)
{
    return kure_fail(error, KURE_ERROR_FILE, "%s: cannot be %s: %s", path, what, strerror(errno));
}

/* ---- files -------------------------------------------------------------------- */

static void join(char *out, const char *folder, const char *name)
{
    snprintf(out, PATH_BYTES, "%s/%s", folder, name);
}

enum kure_status kure_bundle_open(const char *folder, const char *name, const char *mode, FILE **file, struct kure_error *error)
{
    char path[PATH_BYTES];
    join(path, folder, name);
    char *slash = strrchr(path, '/');
    *slash = 0;
    if (mkdir(path, 0777) != 0 && errno != EEXIST) return fail_errno(path, "made", error);
    *slash = '/';
    *file = fopen(path, mode);
    return *file ? KURE_OK : fail_errno(path, "written", error);
}

enum kure_status kure_bundle_close(const char *folder, const char *name, FILE *file, struct kure_error *error)
{
    char path[PATH_BYTES];
    join(path, folder, name);
    int failed = ferror(file) || fflush(file) != 0, cause = errno;
    if (fclose(file) != 0 && !failed) {
        failed = 1;
        cause = errno;
    }
    errno = cause;
    return failed ? fail_errno(path, "written", error) : KURE_OK;
}

enum kure_status kure_bundle_write(const char *folder, const char *name, const void *data, size_t bytes, struct kure_error *error)
{
    FILE *file;
    enum kure_status status = kure_bundle_open(folder, name, "wb", &file, error);
    if (status != KURE_OK) return status;
    size_t written = fwrite(data, 1, bytes, file);
    (void)written; /* close looks at ferror */
    return kure_bundle_close(folder, name, file, error);
}

enum kure_status kure_bundle_read(const char *folder, const char *name, size_t most, unsigned char **data, size_t *bytes, struct kure_error *error)
{
    char path[PATH_BYTES];
    struct stat info;
    join(path, folder, name);
    *data = NULL;
    FILE *file = fopen(path, "rb");
    if (!file) return fail_errno(path, "read", error);
    enum kure_status status = KURE_OK;
    if (fstat(fileno(file), &info) != 0 || !S_ISREG(info.st_mode)) status = kure_fail(error, KURE_ERROR_INPUT, "%s: is no regular file", path);
    else if ((uint64_t)info.st_size > most) {
        status = kure_fail(error, KURE_ERROR_INPUT, "%s: %lld bytes, at most %zu make sense", path, (long long)info.st_size, most);
    } else {
        *bytes = (size_t)info.st_size;
        *data = malloc(*bytes + 1);
        if (!*data) status = kure_fail_memory(error);
        else if (fread(*data, 1, *bytes, file) != *bytes) status = fail_errno(path, "read", error);
        else (*data)[*bytes] = 0;
    }
    fclose(file);
    if (status != KURE_OK) {
        free(*data);
        *data = NULL;
    }
    return status;
}

enum kure_status kure_sha256_file(const char *path, char hash[KURE_SHA256_TEXT], struct kure_error *error)
{
    enum { BLOCK = 1 << 16 };
    unsigned char digest[EVP_MAX_MD_SIZE], *block = malloc(BLOCK);
    unsigned length = 0;
    size_t bytes;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    FILE *file = fopen(path, "rb");
    enum kure_status status = file ? KURE_OK : fail_errno(path, "read", error);
    if (file && (!block || !context)) status = kure_fail_memory(error);
    if (status == KURE_OK) {
        int ok = EVP_DigestInit_ex(context, EVP_sha256(), NULL);
        while (ok && (bytes = fread(block, 1, BLOCK, file)) > 0) ok = EVP_DigestUpdate(context, block, bytes);
        if (ferror(file)) status = fail_errno(path, "read", error);
        else if (!ok || !EVP_DigestFinal_ex(context, digest, &length)) status = kure_fail(error, KURE_ERROR_FILE, "%s: its SHA-256 cannot be computed", path);
    }
    for (unsigned i = 0; i < length; ++i) snprintf(hash + 2 * i, 3, "%02x", digest[i]);
    if (file) fclose(file);
    EVP_MD_CTX_free(context);
    free(block);
    return status;
}

/* ---- the folder --------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static enum kure_status add_name(const char *name, char ***names, int *count, struct kure_error *error)
{
    char **grown = realloc(*names, (size_t)(*count + 1) * sizeof *grown);
    if (!grown) return kure_fail_memory(error);
    *names = grown;
    grown[*count] = strdup(name);
    return grown[(*count)++] ? KURE_OK : kure_fail_memory(error);
}

static enum kure_status list(const char *folder, const char *inside, char ***names, int *count, struct kure_error *error)
{
    char path[PATH_BYTES], name[600];
    enum kure_status status = KURE_OK;
    join(path, folder, inside);
    DIR *entries = opendir(path);
    if (!entries) return fail_errno(path, "read", error);
    for (struct dirent *e; status == KURE_OK && (e = readdir(entries)) != NULL;) {
        struct stat info;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        snprintf(name, sizeof name, "%s%s%s", inside, *inside ? "/" : "", e->d_name);
        join(path, folder, name);
        if (lstat(path, &info) != 0) status = fail_errno(path, "read", error);
        else if (S_ISREG(info.st_mode)) status = add_name(name, names, count, error);
        else if (S_ISDIR(info.st_mode) && !*inside) status = list(folder, name, names, count, error);
        else status = kure_fail(error, KURE_ERROR_INPUT, "%s: a bundle holds files, and folders of files", path);
    }
    closedir(entries);
    return status;
}

enum kure_status kure_bundle_names(const char *folder, char ***names, int *count, struct kure_error *error)
{
    *names = NULL;
    *count = 0;
    enum kure_status status = list(folder, "", names, count, error);
    if (*count) qsort(*names, (size_t)*count, sizeof **names, compare_names);
    if (status != KURE_OK) {
        kure_bundle_names_free(*names, *count);
        *names = NULL;
        *count = 0;
    }
    return status;
}

void kure_bundle_names_free(char **names, int count)
{
    for (int i = 0; i < count; ++i) free(names[i]);
    free(names);
}

/* Empties an open folder: its files, and the files of its folders. */
static void empty_folder(int folder, int depth)
{
    _Alignas(struct dirent64) char block[4096];
    ssize_t bytes;
    while ((bytes = getdents64(folder, block, sizeof block)) > 0) {
        for (ssize_t at = 0; at < bytes;) {
            const struct dirent64 *e = (const struct dirent64 *)(const void *)(block + at);
            at += e->d_reclen;
            if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || unlinkat(folder, e->d_name, 0) == 0 || !depth) continue;
            int inner = openat(folder, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (inner < 0) continue;
            empty_folder(inner, depth - 1);
            close(inner);
            unlinkat(folder, e->d_name, AT_REMOVEDIR);
        }
    }
}

/* Deletes a folder of files and of folders of files; leaves what is deeper. Functions that a signal handler may call only. */
static void delete_folder(const char *path)
{
    enum { PASSES = 8 }; /* one can miss names that move up while others are deleted */
    int cause = errno, folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    for (int i = 0; folder >= 0 && i < PASSES && rmdir(path) != 0; ++i) {
        lseek(folder, 0, SEEK_SET);
        empty_folder(folder, 1);
    }
    if (folder >= 0) close(folder);
    errno = cause;
}

static int is_bundle(const char *path)
{
    char name[PATH_BYTES];
    join(name, path, "manifest.json");
    return access(name, F_OK) == 0;
}

static enum kure_status fail_exists(const char *path, struct kure_error *error)
{
    return kure_fail(error, KURE_ERROR_FILE, "%s: exists: say --force to replace a bundle, or another name", path);
}

enum kure_status kure_bundle_begin(const char *path, int replace, struct kure_bundle *bundle, struct kure_error *error)
{
    struct stat info;
    size_t length = strlen(path);
    *bundle = (struct kure_bundle){.path = path, .replace = replace};
    if (lstat(path, &info) == 0) {
        if (!replace) return fail_exists(path, error);
        if (!S_ISDIR(info.st_mode) || !is_bundle(path)) {
            return kure_fail(error, KURE_ERROR_FILE, "%s: is no bundle (no manifest.json in it): --force replaces bundles alone", path);
        }
        char **names;
        int count;
        enum kure_status status = kure_bundle_names(path, &names, &count, error); /* nothing else in it */
        if (status != KURE_OK) return status;
        kure_bundle_names_free(names, count);
    }
    while (length > 1 && path[length - 1] == '/') --length;
    if (asprintf(&bundle->temporary, "%.*s.tmp-XXXXXX", (int)length, path) < 0) {
        bundle->temporary = NULL;
        return kure_fail_memory(error);
    }
    if (mkdtemp(bundle->temporary) && chmod(bundle->temporary, 0755) == 0) return KURE_OK;
    enum kure_status status = fail_errno(path, "made", error);
    free(bundle->temporary);
    bundle->temporary = NULL;
    return status;
}

void kure_bundle_abandon(const struct kure_bundle *bundle)
{
    if (bundle->temporary) delete_folder(bundle->temporary);
}

/* Everything in a folder is on the disk. */
static enum kure_status sync_files(const char *folder, const char *shown, struct kure_error *error)
{
    char path[PATH_BYTES], **names;
    int count;
    enum kure_status status = kure_bundle_names(folder, &names, &count, error);
    for (int i = 0; status == KURE_OK && i <= count; ++i) { /* the last one: the folder itself */
        if (i < count) join(path, folder, names[i]);
        int file = open(i < count ? path : folder, O_RDONLY);
        if (file < 0 || fsync(file) != 0) status = fail_errno(shown, "written", error);
        if (file >= 0) close(file);
    }
    kure_bundle_names_free(names, count);
    return status;
}

/* Where the file system cannot exchange two names: the earlier bundle steps aside, and comes back if the new one cannot
 * take its name. */
static enum kure_status replace_in_turn(struct kure_bundle *bundle, struct kure_error *error)
{
    char *old = NULL;
    enum kure_status status = KURE_OK;
    if (asprintf(&old, "%s.old", bundle->temporary) < 0) return kure_fail_memory(error);
    if (rename(bundle->path, old) != 0) status = fail_errno(bundle->path, "replaced", error);
    else if (rename(bundle->temporary, bundle->path) != 0) {
        status = fail_errno(bundle->path, "written", error);
        rename(old, bundle->path);
    } else delete_folder(old);
    free(old);
    return status;
}

enum kure_status kure_bundle_finish(struct kure_bundle *bundle, struct kure_error *error)
{
    struct stat info;
    enum kure_status status = sync_files(bundle->temporary, bundle->path, error);
    if (status != KURE_OK) return status;
    if (lstat(bundle->path, &info) != 0) {
        if (rename(bundle->temporary, bundle->path) != 0) status = fail_errno(bundle->path, "written", error);
    } else if (!bundle->replace) {
        status = fail_exists(bundle->path, error); /* since begin */
    } else if (renameat2(AT_FDCWD, bundle->temporary, AT_FDCWD, bundle->path, RENAME_EXCHANGE) == 0) {
        delete_folder(bundle->temporary); /* the earlier one */
    } else {
        status = replace_in_turn(bundle, error);
    }
    if (status != KURE_OK) return status;
    free(bundle->temporary);
    bundle->temporary = NULL;
    return KURE_OK;
}
