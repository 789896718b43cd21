// Intercepts calls of the C library (LD_PRELOAD): while the file TEST_DISK_STATE says so, calls that would write to a
// path that starts with one in TEST_DISK_PATHS (separated by colons) hang, or fail as on a full disk.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

// 'h': hangs, 'f': is full, 0: works.
static char state(void) {
    const char *path = getenv("TEST_DISK_STATE");
    char state = 0;
    int file = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    if (syscall(SYS_read, file, &state, 1) != 1) state = 0;
    syscall(SYS_close, file);
    return state;
}

static int is_on_disk(const char *path) {
    const char *one = getenv("TEST_DISK_PATHS");
    while (one && *one) {
        size_t length = strcspn(one, ":");
        if (length > 0 && strncmp(path, one, length) == 0) return 1;
        one += length + (one[length] == ':');
    }
    return 0;
}

// Waits while the disk hangs; 0 if the call may go on. A call that needs no space succeeds on a full disk.
static int gate_path(const char *path, int needs_space) {
    int saved = errno;
    for (;;) {
        char now = state();
        if (now == 0 || !is_on_disk(path)) break;
        if (now == 'f') {
            if (!needs_space) break;
            errno = ENOSPC;
            return -1;
        }
        usleep(10000);
    }
    errno = saved;
    return 0;
}

static int gate(int file, int needs_space) {
    char link[64], path[PATH_MAX];
    int saved = errno;
    if (state() == 0) {
        errno = saved;
        return 0;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length < 0) return 0;
    path[length] = 0;
    return gate_path(path, needs_space);
}

ssize_t write(int file, const void *bytes, size_t count) {
    return gate(file, 1) ? -1 : REAL(write)(file, bytes, count);
}

ssize_t writev(int file, const struct iovec *pieces, int count) {
    return gate(file, 1) ? -1 : REAL(writev)(file, pieces, count);
}

int fsync(int file) { return gate(file, 0) ? -1 : REAL(fsync)(file); }

int fdatasync(int file) { return gate(file, 0) ? -1 : REAL(fdatasync)(file); }

int ftruncate64(int file, off64_t length) { return gate(file, 0) ? -1 : REAL(ftruncate64)(file, length); }

int rename(const char *old, const char *new) { return gate_path(new, 0) ? -1 : REAL(rename)(old, new); }

int unlink(const char *path) { return gate_path(path, 0) ? -1 : REAL(unlink)(path); }

static int is_new(const char *path) {
    int saved = errno, result = access(path, F_OK) != 0;
    errno = saved;
    return result;
}

int mkdir(const char *path, mode_t mode) { return gate_path(path, is_new(path)) ? -1 : REAL(mkdir)(path, mode); }

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    if (flags & (O_WRONLY | O_RDWR | O_CREAT) && gate_path(path, flags & O_CREAT && is_new(path))) return -1;
    return REAL(open64)(path, flags, mode);
}
