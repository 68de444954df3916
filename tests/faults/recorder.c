/* LD_PRELOAD: writes down, in one order for all processes, what is done to the files below RECORD_ROOT and what is
 * sent over TCP. What a power cut would leave is worked out from it (powerloss.py).
 *
 * A change is made and written down under one lock. A sync is written down twice, before and after, and made without
 * the lock: it covers what stands before its begin, and it holds from its end on.
 * Environment: RECORD_ROOT (absolute folder), RECORD_FILE (appended to). RECORD_FILE.lock holds lock and counter.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, MKDIR, WRITE, TRUNCATE, EXTEND, RENAME, LINK, UNLINK, RMDIR, SYNC_BEGIN, SYNC_END, SEND, UNSUPPORTED };

struct shared { pthread_mutex_t mutex; uint64_t sequence; uint32_t ready; };
struct head { uint64_t sequence, inode, offset, length; uint32_t pid; uint16_t kind, first, second, pad; uint32_t more; };
_Static_assert(sizeof(struct head) == 48, "powerloss.py reads 48 bytes");

static struct shared *shared;
static char root[PATH_MAX];
static size_t root_length;
static int record_fd = -1;


__attribute__((constructor)) static void prepare(void) {
    const char *folder = getenv("RECORD_ROOT"), *file = getenv("RECORD_FILE");
    char lock[PATH_MAX];
    if (!folder || !file) return;
    snprintf(lock, sizeof lock, "%s.lock", file);
    int fd = syscall(SYS_openat, AT_FDCWD, lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int log = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || log < 0) _exit(97);
    syscall(SYS_flock, fd, LOCK_EX);
    if (syscall(SYS_ftruncate, fd, sizeof(struct shared))) _exit(97);
    shared = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED) _exit(97);
    if (!shared->ready) {
        pthread_mutexattr_t how;
        pthread_mutexattr_init(&how);
        pthread_mutexattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(&shared->mutex, &how);
        shared->ready = 1;
    }
    syscall(SYS_flock, fd, LOCK_UN);
    syscall(SYS_close, fd);
    record_fd = fcntl(log, F_DUPFD_CLOEXEC, 700);
    syscall(SYS_close, log);
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
}

static void lock(void) {
    if (shared && pthread_mutex_lock(&shared->mutex) == EOWNERDEAD) pthread_mutex_consistent(&shared->mutex);
}
static void unlock(void) {
    if (shared) pthread_mutex_unlock(&shared->mutex);
}

static uint64_t record(int kind, uint64_t inode, uint64_t offset, const char *first, const char *second,
                       const void *data, size_t length) {
    struct head head = {++shared->sequence, inode, offset, length, (uint32_t)getpid(), (uint16_t)kind,
                        (uint16_t)(first ? strlen(first) : 0), (uint16_t)(second ? strlen(second) : 0), 0, 0};
    struct iovec parts[4] = {{&head, sizeof head}, {(void *)first, head.first}, {(void *)second, head.second},
                             {(void *)data, length}};
    ssize_t wanted = (ssize_t)(sizeof head + head.first + head.second + length);
    if (syscall(SYS_writev, record_fd, parts, 4) != wanted) _exit(98);
    return head.sequence;
}

static int inside(const char *path) {
    return shared && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

/* The absolute form of path; 1 when it is below the root. */
static int resolve(int folder, const char *path, char *out) {
    if (!shared) return 0;
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
    } else {
        char link[64], base[PATH_MAX];
        if (folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, base, sizeof base - 1);
        if (n < 0) return 0;
        base[n] = 0;
        if ((size_t)snprintf(out, PATH_MAX, "%s%s%s", base, *path ? "/" : "", path) >= PATH_MAX) return 0;
    }
    return inside(out);
}

/* 1: a regular file below the root, 2: a folder below it, 3: a socket; 0: anything else. */
static int tracked(int fd, struct stat *about, char *path) {
    char link[64];
    if (!shared || fd < 0 || fd == record_fd || fstat(fd, about)) return 0;
    if (S_ISSOCK(about->st_mode)) return 3;
    if (!S_ISREG(about->st_mode) && !S_ISDIR(about->st_mode)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return inside(path) ? (S_ISDIR(about->st_mode) ? 2 : 1) : 0;
}

static uint64_t inode_of(const char *path) {
    struct stat about;
    return lstat(path, &about) ? 0 : about.st_ino;
}

static int peer_of(int fd) {
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    if (getpeername(fd, (struct sockaddr *)&address, &size)) return 0;
    if (address.ss_family == AF_INET) return ntohs(((struct sockaddr_in *)&address)->sin_port);
    if (address.ss_family == AF_INET6) return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
    return 0;
}

static void unsupported(const char *what, const char *path) {
    lock();
    record(UNSUPPORTED, 0, 0, what, path, NULL, 0);
    unlock();
}

/* ---- writing ---- */

static void durable_at_once(int fd, uint64_t inode) {
    if (fcntl(fd, F_GETFL) & O_DSYNC) {
        uint64_t begin = record(SYNC_BEGIN, inode, 0, NULL, NULL, NULL, 0);
        record(SYNC_END, inode, begin, NULL, NULL, NULL, 0);
    }
}

static ssize_t write_parts(int fd, const struct iovec *parts, int count, off_t at, ssize_t (*act)(int, const struct iovec *, int, off_t)) {
    struct stat about;
    char path[PATH_MAX];
    int kind = tracked(fd, &about, path);
    if (kind != 1 && kind != 3) return act(fd, parts, count, at);
    int peer = kind == 3 ? peer_of(fd) : 0;
    if (kind == 3 && !peer) return act(fd, parts, count, at);
    lock();
    off_t start = at;
    if (kind == 1 && at < 0) {
        fstat(fd, &about);
        start = fcntl(fd, F_GETFL) & O_APPEND ? about.st_size : lseek(fd, 0, SEEK_CUR);
    }
    ssize_t done = act(fd, parts, count, at);
    int error = errno;
    if (done > 0) {
        char *copy = malloc((size_t)done);
        size_t filled = 0;
        for (int i = 0; i < count && filled < (size_t)done; i++) {
            size_t part = parts[i].iov_len < (size_t)done - filled ? parts[i].iov_len : (size_t)done - filled;
            memcpy(copy + filled, parts[i].iov_base, part);
            filled += part;
        }
        if (kind == 1) {
            record(WRITE, about.st_ino, (uint64_t)start, path, NULL, copy, (size_t)done);
            durable_at_once(fd, about.st_ino);
        } else {
            record(SEND, (uint64_t)peer, 0, NULL, NULL, copy, (size_t)done);
        }
        free(copy);
    }
    unlock();
    errno = error;
    return done;
}

static ssize_t act_write(int fd, const struct iovec *parts, int count, off_t at) {
    return at < 0 ? syscall(SYS_writev, fd, parts, count) : syscall(SYS_pwritev, fd, parts, count, at, 0L);
}
ssize_t write(int fd, const void *data, size_t size) {
    struct iovec part = {(void *)data, size};
    return write_parts(fd, &part, 1, -1, act_write);
}
ssize_t writev(int fd, const struct iovec *parts, int count) { return write_parts(fd, parts, count, -1, act_write); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) {
    struct iovec part = {(void *)data, size};
    return write_parts(fd, &part, 1, at, act_write);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    return write_parts(fd, parts, count, at, act_write);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at) { return pwritev(fd, parts, count, at); }
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    return flags ? (errno = ENOSYS, -1) : write_parts(fd, parts, count, at, act_write);
}
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    return pwritev2(fd, parts, count, at, flags);
}

static ssize_t act_send(int fd, const struct iovec *parts, int count, off_t at) {
    (void)at;
    struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
    return syscall(SYS_sendmsg, fd, &message, MSG_NOSIGNAL);
}
ssize_t send(int fd, const void *data, size_t size, int flags) {
    struct iovec part = {(void *)data, size};
    if (flags & ~MSG_NOSIGNAL) return syscall(SYS_sendto, fd, data, size, flags, NULL, 0);
    return write_parts(fd, &part, 1, -1, act_send);
}
ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length) {
    return to ? syscall(SYS_sendto, fd, data, size, flags, to, length) : send(fd, data, size, flags);
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    if (message->msg_controllen || message->msg_name) return syscall(SYS_sendmsg, fd, message, flags);
    return write_parts(fd, message->msg_iov, (int)message->msg_iovlen, -1, act_send);
}

/* What the kernel itself moves into a file is read back from there. */
static void moved(int out, off_t start, ssize_t size) {
    struct stat about;
    char path[PATH_MAX], link[64];
    if (size <= 0 || tracked(out, &about, path) != 1) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", out);
    int fd = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC);
    char *copy = malloc((size_t)size);
    if (fd < 0 || syscall(SYS_pread64, fd, copy, size, start) != size) _exit(98);
    record(WRITE, about.st_ino, (uint64_t)start, path, NULL, copy, (size_t)size);
    durable_at_once(out, about.st_ino);
    free(copy);
    syscall(SYS_close, fd);
}
static int regular(int fd) {
    struct stat about;
    char path[PATH_MAX];
    return tracked(fd, &about, path) == 1;
}
ssize_t splice(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    if (!regular(out)) return syscall(SYS_splice, in, from, out, to, size, flags);
    lock();
    off_t start = to ? *to : lseek(out, 0, SEEK_CUR);
    ssize_t done = syscall(SYS_splice, in, from, out, to, size, flags);
    int error = errno;
    moved(out, start, done);
    unlock();
    errno = error;
    return done;
}
ssize_t sendfile64(int out, int in, off64_t *from, size_t size) {
    if (!regular(out)) return syscall(SYS_sendfile, out, in, from, size);
    lock();
    off_t start = lseek(out, 0, SEEK_CUR);
    ssize_t done = syscall(SYS_sendfile, out, in, from, size);
    moved(out, start, done);
    unlock();
    return done;
}
ssize_t sendfile(int out, int in, off_t *from, size_t size) { return sendfile64(out, in, from, size); }
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    if (!regular(out)) return syscall(SYS_copy_file_range, in, from, out, to, size, flags);
    lock();
    off_t start = to ? *to : lseek(out, 0, SEEK_CUR);
    ssize_t done = syscall(SYS_copy_file_range, in, from, out, to, size, flags);
    moved(out, start, done);
    unlock();
    return done;
}

void *mmap64(void *at, size_t size, int rights, int flags, int fd, off64_t offset) {
    struct stat about;
    char path[PATH_MAX];
    if (fd >= 0 && (flags & MAP_SHARED) && (rights & PROT_WRITE) && tracked(fd, &about, path) == 1) {
        size_t length = strlen(path);
        if (length < 4 || strcmp(path + length - 4, "-shm")) unsupported("mmap", path);
    }
    return (void *)syscall(SYS_mmap, at, size, rights, flags, fd, offset);
}
void *mmap(void *at, size_t size, int rights, int flags, int fd, off_t offset) {
    return mmap64(at, size, rights, flags, fd, offset);
}

/* ---- size ---- */

int ftruncate64(int fd, off64_t size) {
    struct stat about;
    char path[PATH_MAX];
    if (tracked(fd, &about, path) != 1) return syscall(SYS_ftruncate, fd, size);
    lock();
    int result = syscall(SYS_ftruncate, fd, size);
    if (!result) record(TRUNCATE, about.st_ino, (uint64_t)size, path, NULL, NULL, 0);
    unlock();
    return result;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int truncate64(const char *name, off64_t size) {
    char path[PATH_MAX];
    if (!resolve(AT_FDCWD, name, path)) return syscall(SYS_truncate, name, size);
    lock();
    int result = syscall(SYS_truncate, name, size);
    if (!result) record(TRUNCATE, inode_of(path), (uint64_t)size, path, NULL, NULL, 0);
    unlock();
    return result;
}
int truncate(const char *name, off_t size) { return truncate64(name, size); }
int fallocate64(int fd, int mode, off64_t at, off64_t size) {
    struct stat about;
    char path[PATH_MAX];
    if (tracked(fd, &about, path) != 1) return syscall(SYS_fallocate, fd, mode, at, size);
    lock();
    int result = syscall(SYS_fallocate, fd, mode, at, size);
    if (!result && !mode) record(EXTEND, about.st_ino, (uint64_t)(at + size), path, NULL, NULL, 0);
    if (!result && (mode & ~FALLOC_FL_KEEP_SIZE)) record(UNSUPPORTED, 0, 0, "fallocate", path, NULL, 0);
    unlock();
    return result;
}
int fallocate(int fd, int mode, off_t at, off_t size) { return fallocate64(fd, mode, at, size); }
int posix_fallocate64(int fd, off64_t at, off64_t size) { return fallocate64(fd, 0, at, size) ? errno : 0; }
int posix_fallocate(int fd, off_t at, off_t size) { return posix_fallocate64(fd, at, size); }

/* ---- names ---- */

static int open_path(int folder, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    struct stat about;
    if (!(flags & (O_CREAT | O_TRUNC)) && (flags & O_TMPFILE) != O_TMPFILE) return syscall(SYS_openat, folder, name, flags, mode);
    if (!resolve(folder, name, path)) return syscall(SYS_openat, folder, name, flags, mode);
    lock();
    int there = !lstat(path, &about);
    int fd = syscall(SYS_openat, folder, name, flags, mode), error = errno;
    if (fd >= 0 && !fstat(fd, &about)) {
        int anonymous = (flags & O_TMPFILE) == O_TMPFILE;
        if (anonymous || !there) record(CREATE, about.st_ino, 0, anonymous ? NULL : path, NULL, NULL, 0);
        else if (flags & O_TRUNC) record(TRUNCATE, about.st_ino, 0, path, NULL, NULL, 0);
    }
    unlock();
    errno = error;
    return fd;
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
int creat64(const char *name, mode_t mode) { return creat(name, mode); }

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    char old[PATH_MAX], new[PATH_MAX];
    int here = resolve(from_folder, from, old), there = resolve(to_folder, to, new);
    if (!here && !there) return syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
    lock();
    int result = syscall(SYS_renameat2, from_folder, from, to_folder, to, flags), error = errno;
    struct stat about;
    if (!result && (!here || !there || (flags & RENAME_EXCHANGE) || lstat(new, &about) || S_ISDIR(about.st_mode)))
        record(UNSUPPORTED, 0, 0, "rename", new, NULL, 0);
    else if (!result) record(RENAME, about.st_ino, 0, old, new, NULL, 0);
    unlock();
    errno = error;
    return result;
}
int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    return renameat2(from_folder, from, to_folder, to, 0);
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    char new[PATH_MAX];
    if (!resolve(to_folder, to, new)) return syscall(SYS_linkat, from_folder, from, to_folder, to, flags);
    lock();
    int result = syscall(SYS_linkat, from_folder, from, to_folder, to, flags), error = errno;
    if (!result) record(LINK, inode_of(new), 0, new, NULL, NULL, 0);
    unlock();
    errno = error;
    return result;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
int symlinkat(const char *from, int to_folder, const char *to) {
    char new[PATH_MAX];
    if (resolve(to_folder, to, new)) unsupported("symlink", new);
    return syscall(SYS_symlinkat, from, to_folder, to);
}
int symlink(const char *from, const char *to) { return symlinkat(from, AT_FDCWD, to); }

int unlinkat(int folder, const char *name, int flags) {
    char path[PATH_MAX];
    if (!resolve(folder, name, path)) return syscall(SYS_unlinkat, folder, name, flags);
    lock();
    int result = syscall(SYS_unlinkat, folder, name, flags), error = errno;
    if (!result) record(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, 0, path, NULL, NULL, 0);
    unlock();
    errno = error;
    return result;
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }
int remove(const char *name) {
    struct stat about;
    if (lstat(name, &about)) return -1;
    return unlinkat(AT_FDCWD, name, S_ISDIR(about.st_mode) ? AT_REMOVEDIR : 0);
}

int mkdirat(int folder, const char *name, mode_t mode) {
    char path[PATH_MAX];
    if (!resolve(folder, name, path)) return syscall(SYS_mkdirat, folder, name, mode);
    lock();
    int result = syscall(SYS_mkdirat, folder, name, mode), error = errno;
    if (!result) record(MKDIR, inode_of(path), 0, path, NULL, NULL, 0);
    unlock();
    errno = error;
    return result;
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

/* ---- sync ---- */

static int sync_one(int fd, long call) {
    struct stat about;
    char path[PATH_MAX];
    int kind = tracked(fd, &about, path);
    if (kind != 1 && kind != 2) return syscall(call, fd);
    uint64_t inode = call == SYS_syncfs ? 0 : about.st_ino;
    lock();
    uint64_t begin = record(SYNC_BEGIN, inode, 0, path, NULL, NULL, 0);
    unlock();
    int result = syscall(call, fd), error = errno;
    if (!result) {
        lock();
        record(SYNC_END, inode, begin, path, NULL, NULL, 0);
        unlock();
    }
    errno = error;
    return result;
}
int fsync(int fd) { return sync_one(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_one(fd, SYS_fdatasync); }
int syncfs(int fd) { return sync_one(fd, SYS_syncfs); }
void sync(void) {
    uint64_t begin = 0;
    if (shared) {
        lock();
        begin = record(SYNC_BEGIN, 0, 0, NULL, NULL, NULL, 0);
        unlock();
    }
    syscall(SYS_sync);
    if (shared) {
        lock();
        record(SYNC_END, 0, begin, NULL, NULL, NULL, 0);
        unlock();
    }
}
