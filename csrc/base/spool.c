#include "base/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* --- files ------------------------------------------------------------------------------------ */

static int open_unlinked_in(const char *dir) {
    int fd = open(dir, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT)) {
        return fd;
    }
    /* A file system without O_TMPFILE (or no such folder, which mkostemp finds out again). */
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/asgiserver-XXXXXX", dir);
    if (n < 0 || (size_t)n >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0) {
        unlink(path);
    }
    return fd;
}

int as_open_temporary_file(void) {
    const char *dirs[] = {getenv("TMPDIR"), "/tmp", "/var/tmp"};
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
        if (dirs[i] == NULL || *dirs[i] == '\0') {
            continue;
        }
        int fd = open_unlinked_in(dirs[i]);
        if (fd >= 0) {
            return fd;
        }
    }
    return -1;
}

as_err as_write_all(int fd, as_slice data) {
    while (data.n > 0) {
        ssize_t k = write(fd, data.p, data.n);
        if (k < 0) {
            if (errno == EINTR) {
                continue;
            }
            return AS_E_IO;
        }
        data.p += k;
        data.n -= (size_t)k;
    }
    return AS_OK;
}

/* --- spools ----------------------------------------------------------------------------------- */

void as_spool_init(as_spool *spool, uint64_t memory_max) {
    *spool = (as_spool){.fd = -1, .memory_max = memory_max};
}

void as_spool_fini(as_spool *spool) {
    as_buf_fini(&spool->memory, NULL);
    if (spool->fd >= 0) {
        (void)close(spool->fd);
        spool->fd = -1;
    }
}

static as_err move_to_file(as_spool *spool) {
    spool->fd = as_open_temporary_file();
    if (spool->fd < 0) {
        return AS_E_IO;
    }
    as_err err = as_write_all(spool->fd, (as_slice){spool->memory.data, spool->memory.len});
    as_buf_fini(&spool->memory, NULL);
    return err;
}

as_err as_spool_append(as_spool *spool, as_slice data) {
    as_err err = AS_OK;
    if (spool->fd < 0 && spool->size + data.n > spool->memory_max) {
        err = move_to_file(spool);
    }
    if (err == AS_OK) {
        err = spool->fd >= 0 ? as_write_all(spool->fd, data)
                             : as_buf_append(&spool->memory, NULL, data.p, data.n);
    }
    if (err == AS_OK) {
        spool->size += data.n;
    }
    return err;
}
