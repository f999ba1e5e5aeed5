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

/* --- all of a server -------------------------------------------------------------------------- */

as_spools *as_spools_new(uint64_t memory_max, uint64_t files_max) {
    as_spools *spools = malloc(sizeof(*spools));
    if (spools != NULL) {
        *spools = (as_spools){.memory_max = memory_max, .files_max = files_max, .refs = 1};
    }
    return spools;
}

void as_spools_unref(as_spools *spools) {
    if (spools != NULL && atomic_fetch_sub(&spools->refs, 1) == 1) {
        free(spools);
    }
}

/* Whether a file that has `size` bytes may have `more`. There are never more in all than may be:
 * others only take away meanwhile. */
static as_err check_room(const as_spools *spools, uint64_t size, uint64_t more) {
    uint64_t max = spools->files_max;
    if (max == 0) {
        return AS_OK;
    }
    if (more > max - size) {
        return AS_E_SPOOL_LARGE;
    }
    return more <= max - atomic_load(&spools->filled) ? AS_OK : AS_E_SPOOL_FULL;
}

as_err as_spools_expect(const as_spools *spools, uint64_t size) {
    return size > spools->memory_max ? check_room(spools, 0, size) : AS_OK;
}

/* --- the file of a body ----------------------------------------------------------------------- */

void as_spool_file_init(as_spool_file *file, as_spools *spools) {
    *file = (as_spool_file){.spools = spools, .fd = -1};
}

static as_err open_file(as_spool_file *file) {
    file->fd = as_open_temporary_file();
    if (file->fd < 0) {
        return AS_E_IO;
    }
    (void)atomic_fetch_add(&file->spools->refs, 1);
    return AS_OK;
}

as_err as_spool_file_append(as_spool_file *file, as_slice data) {
    as_err err = check_room(file->spools, file->size, data.n);
    if (err == AS_OK && file->fd < 0) {
        err = open_file(file);
    }
    if (err != AS_OK) {
        return err;
    }
    file->size += data.n; /* also what a disk takes only a part of */
    (void)atomic_fetch_add(&file->spools->filled, data.n);
    return as_write_all(file->fd, data);
}

void as_spool_file_close(as_spool_file *file) {
    if (file->fd >= 0) {
        (void)close(file->fd);
        file->fd = -1;
        (void)atomic_fetch_sub(&file->spools->filled, file->size);
        as_spools_unref(file->spools);
    }
}

/* --- a body ----------------------------------------------------------------------------------- */

void as_spool_init(as_spool *spool, as_spools *spools) {
    *spool = (as_spool){.size = 0};
    as_spool_file_init(&spool->file, spools);
}

void as_spool_fini(as_spool *spool) {
    as_buf_fini(&spool->memory, NULL);
    as_spool_file_close(&spool->file);
}

static as_err move_to_file(as_spool *spool) {
    as_err err =
        as_spool_file_append(&spool->file, (as_slice){spool->memory.data, spool->memory.len});
    as_buf_fini(&spool->memory, NULL);
    return err;
}

as_err as_spool_append(as_spool *spool, as_slice data) {
    as_err err = AS_OK;
    if (spool->file.fd < 0 && spool->size + data.n > spool->file.spools->memory_max) {
        err = move_to_file(spool);
    }
    if (err == AS_OK) {
        err = spool->file.fd >= 0 ? as_spool_file_append(&spool->file, data)
                                  : as_buf_append(&spool->memory, NULL, data.p, data.n);
    }
    if (err == AS_OK) {
        spool->size += data.n;
    }
    return err;
}
