/* LD_PRELOAD: makes the disk fail on demand, for all processes of a node at once.
 *
 * BREAKER_CONTROL names a file; while it holds "ERRNO FOLDER", every call that changes something below FOLDER fails
 * with that number. A quota, a full disk and an I/O error fail what needs room or the disk, and let files be removed;
 * a read-only file system (EROFS) refuses every change. An empty file is a disk that works again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* The number to fail with, and the folder it is for; 0: nothing fails. */
static int broken(char *folder) {
    const char *control = getenv("BREAKER_CONTROL");
    char text[PATH_MAX + 16];
    int number = 0;
    if (!control) return 0;
    int fd = syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t size = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    if (size <= 0) return 0;
    text[size] = 0;
    return sscanf(text, "%d %4095s", &number, folder) == 2 ? number : 0;
}

static int below(const char *path, const char *folder) { return !strncmp(path, folder, strlen(folder)); }

static int fails_on(int fd) {
    char folder[PATH_MAX], link[64], path[PATH_MAX];
    int number = broken(folder);
    if (!number) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return below(path, folder) ? number : 0;
}

static int fails_at(int base, const char *name) {
    char folder[PATH_MAX], link[64], path[PATH_MAX];
    int number = broken(folder);
    if (!number) return 0;
    if (name[0] == '/') return below(name, folder) ? number : 0;
    if (base == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", base);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return below(path, folder) ? number : 0;
}

#define BREAK(test)                                                                                                    \
    do {                                                                                                               \
        int number = test;                                                                                             \
        if (number) {                                                                                                  \
            errno = number;                                                                                            \
            return -1;                                                                                                 \
        }                                                                                                              \
    } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    BREAK(fails_on(fd));
    return syscall(SYS_write, fd, data, size);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    BREAK(fails_on(fd));
    return syscall(SYS_writev, fd, parts, count);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    BREAK(fails_on(fd));
    return syscall(SYS_pwrite64, fd, data, size, at);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
    BREAK(fails_on(fd));
    return syscall(SYS_pwritev, fd, parts, count, at, 0L);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return pwritev64(fd, parts, count, at); }
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    BREAK(fails_on(fd));
    return syscall(SYS_pwritev2, fd, parts, count, at, 0L, flags);
}
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    return pwritev2(fd, parts, count, at, flags);
}
ssize_t splice(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    BREAK(fails_on(out));
    return syscall(SYS_splice, in, from, out, to, size, flags);
}
ssize_t sendfile64(int out, int in, off64_t *from, size_t size) {
    BREAK(fails_on(out));
    return syscall(SYS_sendfile, out, in, from, size);
}
ssize_t sendfile(int out, int in, off_t *from, size_t size) { return sendfile64(out, in, from, size); }
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    BREAK(fails_on(out));
    return syscall(SYS_copy_file_range, in, from, out, to, size, flags);
}
int ftruncate64(int fd, off64_t size) {
    BREAK(fails_on(fd));
    return syscall(SYS_ftruncate, fd, size);
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int fallocate64(int fd, int mode, off64_t at, off64_t size) {
    BREAK(fails_on(fd));
    return syscall(SYS_fallocate, fd, mode, at, size);
}
int fallocate(int fd, int mode, off_t at, off_t size) { return fallocate64(fd, mode, at, size); }
int posix_fallocate64(int fd, off64_t at, off64_t size) { return fallocate64(fd, 0, at, size) ? errno : 0; }
int posix_fallocate(int fd, off_t at, off_t size) { return posix_fallocate64(fd, at, size); }

static int sync_one(int fd, long call) {
    int number = fails_on(fd);
    if (number == EIO) { /* a full or read-only disk can still sync what it holds */
        errno = EIO;
        return -1;
    }
    return syscall(call, fd);
}
int fsync(int fd) { return sync_one(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_one(fd, SYS_fdatasync); }
int syncfs(int fd) { return sync_one(fd, SYS_syncfs); }

static int open_path(int folder, const char *name, int flags, mode_t mode) {
    int number = fails_at(folder, name), access = flags & O_ACCMODE;
    struct stat about;
    int makes = (flags & O_TMPFILE) == O_TMPFILE || ((flags & O_CREAT) && fstatat(folder, name, &about, 0));
    if (number && (makes || (number == EROFS && access != O_RDONLY))) {
        errno = number;
        return -1;
    }
    return syscall(SYS_openat, folder, name, flags, mode);
}
#define MODE                                                                                                           \
    mode_t mode = 0;                                                                                                   \
    if (flags & (O_CREAT | __O_TMPFILE)) {                                                                             \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode = va_arg(more, mode_t);                                                                                   \
        va_end(more);                                                                                                  \
    }
int open(const char *name, int flags, ...) { MODE return open_path(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE return open_path(AT_FDCWD, name, flags | O_LARGEFILE, mode); }
int openat(int folder, const char *name, int flags, ...) { MODE return open_path(folder, name, flags, mode); }
int openat64(int folder, const char *name, int flags, ...) { MODE return open_path(folder, name, flags | O_LARGEFILE, mode); }
int creat(const char *name, mode_t mode) { return open_path(AT_FDCWD, name, O_WRONLY | O_CREAT | O_TRUNC, mode); }

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    BREAK(fails_at(to_folder, to));
    return syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
}
int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    return renameat2(from_folder, from, to_folder, to, 0);
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    BREAK(fails_at(to_folder, to));
    return syscall(SYS_linkat, from_folder, from, to_folder, to, flags);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
int mkdirat(int folder, const char *name, mode_t mode) {
    struct stat about;
    if (fstatat(folder, name, &about, 0)) BREAK(fails_at(folder, name));
    return syscall(SYS_mkdirat, folder, name, mode);
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }
int unlinkat(int folder, const char *name, int flags) {
    int number = fails_at(folder, name);
    if (number == EROFS) {
        errno = EROFS;
        return -1;
    }
    return syscall(SYS_unlinkat, folder, name, flags);
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
