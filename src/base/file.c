/* Files: read-only mappings and the atomic writer. */
#define _GNU_SOURCE
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

bool dmc_io_fault(void); /* base.c */

/* Every system call that can fail passes here: an injected fault takes the place of the call. */
#define FAILED(call) (dmc_io_fault() ? (errno = EIO, true) : (call))

dmc_status dmc_map_file(dmc_mapping *out, const char *path)
{
    static const uint8_t nothing[1];
    struct stat st;
    *out = (dmc_mapping){0};
    int fd = -1;
    if (FAILED((fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) < 0)) /* a FIFO must not block us */
        return dmc_fail(DMC_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    dmc_status status = DMC_OK;
    if (FAILED(fstat(fd, &st) != 0)) {
        status = dmc_fail(DMC_ERR_IO, "%s: cannot stat: %s", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        status = dmc_fail(DMC_ERR_IO, "%s: not a regular file", path);
    } else if (st.st_size == 0) {
        out->data = nothing;
    } else {
        void *p;
        if (FAILED((p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED)) {
            status = dmc_fail(DMC_ERR_IO, "%s: cannot map: %s", path, strerror(errno));
        } else {
            out->data = p;
            out->size = (size_t)st.st_size;
        }
    }
    close(fd);
    return status;
}

void dmc_unmap(dmc_mapping *m)
{
    if (m->size) munmap((void *)(uintptr_t)m->data, m->size);
    *m = (dmc_mapping){0};
}

void dmc_mapping_forget(const dmc_mapping *m, const void *p, size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), from = (size_t)((const uint8_t *)p - m->data), to = from + n;
    from = (from + page - 1) / page * page; /* whole pages alone: their neighbours may be in use */
    to = to / page * page;
    if (m->size == 0 || from >= to) return;
    madvise((void *)(uintptr_t)(m->data + from), to - from, MADV_DONTNEED);
}

bool dmc_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool dmc_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

dmc_status dmc_make_dir(const char *path)
{
    if (FAILED(mkdir(path, 0777) != 0 && errno != EEXIST))
        return dmc_fail(DMC_ERR_IO, "%s: cannot create directory: %s", path, strerror(errno));
    if (!dmc_is_dir(path)) return dmc_fail(DMC_ERR_IO, "%s: exists and is not a directory", path);
    return DMC_OK;
}

char *dmc_path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir), m = strlen(name);
    char *p = dmc_malloc(n + m + 2, 1);
    if (!p) return NULL;
    memcpy(p, dir, n);
    if (n && dir[n - 1] != '/') p[n++] = '/';
    memcpy(p + n, name, m + 1);
    return p;
}

/* ---- atomic writer ---- */

struct dmc_writer {
    int fd;
    dmc_status status; /* the first failure */
    uint64_t at;       /* bytes accepted */
    size_t n;          /* bytes in buf */
    char *path;        /* where it goes: behind links */
    char *temporary;   /* "": written straight, into a device or a pipe */
    char message[512]; /* of the first failure: other calls may overwrite dmc_last_error */
    uint8_t buf[1 << 16];
};

static void writer_fail(dmc_writer *w, const char *what)
{
    if (w->status != DMC_OK) return;
    w->status = DMC_ERR_IO;
    snprintf(w->message, sizeof w->message, "%s: cannot %s: %s", w->path, what, strerror(errno));
}

static dmc_status open_output(dmc_writer *w, const char *path)
{
    struct stat at, link;
    const bool there = stat(path, &at) == 0, straight = there && !S_ISREG(at.st_mode) && !S_ISDIR(at.st_mode);
    const bool linked = there && !straight && lstat(path, &link) == 0 && S_ISLNK(link.st_mode);
    char *real = linked ? realpath(path, NULL) : NULL; /* of the C library's memory */
    const size_t n = strlen(real ? real : path) + 32;
    w->path = dmc_strdup(real ? real : path);
    free(real);
    w->temporary = dmc_calloc(n, 1);
    if (!w->path || !w->temporary) return dmc_fail(DMC_ERR_MEMORY, "%s: out of memory", path);
    if (!straight) snprintf(w->temporary, n, "%s.tmp.%ld", w->path, (long)getpid());
    const int how = O_WRONLY | O_CLOEXEC | (straight ? 0 : O_CREAT | O_TRUNC);
    if (FAILED((w->fd = open(straight ? path : w->temporary, how, 0666)) < 0))
        return dmc_fail(DMC_ERR_IO, "%s: cannot create: %s", path, strerror(errno));
    return DMC_OK;
}

dmc_status dmc_writer_open(dmc_writer **out, const char *path)
{
    *out = NULL;
    dmc_writer *w;
    if (!*path) return dmc_fail(DMC_ERR_ARG, "the name of the file to write is empty");
    DMC_TRY(dmc_array(&w, 1, sizeof *w));
    w->fd = -1;
    dmc_status status = open_output(w, path);
    if (status != DMC_OK) {
        dmc_writer_abort(w);
        return status;
    }
    *out = w;
    return DMC_OK;
}

static void flush(dmc_writer *w)
{
    for (size_t at = 0; at < w->n && w->status == DMC_OK;) {
        ssize_t k = 0;
        if (FAILED((k = write(w->fd, w->buf + at, w->n - at)) < 0)) {
            if (errno == EINTR) continue;
            writer_fail(w, "write");
        } else {
            at += (size_t)k;
        }
    }
    w->n = 0;
}

void dmc_write(dmc_writer *w, const void *data, size_t n)
{
    const uint8_t *p = data;
    w->at += n;
    while (n && w->status == DMC_OK) {
        size_t k = sizeof w->buf - w->n < n ? sizeof w->buf - w->n : n;
        memcpy(w->buf + w->n, p, k);
        w->n += k;
        p += k;
        n -= k;
        if (w->n == sizeof w->buf) flush(w);
    }
}

void dmc_writef(dmc_writer *w, const char *fmt, ...)
{
    char text[4096];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof text) {
        errno = EOVERFLOW;
        writer_fail(w, "format");
        return;
    }
    dmc_write(w, text, (size_t)n);
}

uint64_t dmc_writer_tell(const dmc_writer *w) { return w->at; }

/* Makes a rename durable. Some file systems cannot sync directories: not an error. */
static void sync_directory_of(const char *path)
{
    char *dir = dmc_strdup(path);
    if (!dir) return;
    char *slash = strrchr(dir, '/');
    if (slash) slash[slash == dir] = 0;
    int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    dmc_free(dir);
}

dmc_status dmc_writer_commit(dmc_writer *w)
{
    flush(w);
    const bool straight = !w->temporary[0];
    if (!straight && w->status == DMC_OK && FAILED(fsync(w->fd) != 0)) writer_fail(w, "sync");
    int fd = w->fd;
    w->fd = -1;
    if (close(fd) != 0) writer_fail(w, "close");
    if (!straight && w->status == DMC_OK && FAILED(rename(w->temporary, w->path) != 0))
        writer_fail(w, "rename into place");
    dmc_status s = w->status;
    if (s == DMC_OK) {
        if (!straight) sync_directory_of(w->path);
        w->temporary[0] = 0; /* nothing left to remove */
    } else {
        dmc_fail(s, "%s", w->message);
    }
    dmc_writer_abort(w);
    return s;
}

void dmc_writer_abort(dmc_writer *w)
{
    if (!w) return;
    if (w->fd >= 0) close(w->fd);
    if (w->temporary && w->temporary[0]) unlink(w->temporary);
    dmc_free(w->temporary);
    dmc_free(w->path);
    dmc_free(w);
}
