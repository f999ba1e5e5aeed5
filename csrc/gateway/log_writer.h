/* Writes lines to a descriptor without ever making the caller wait: a thread of its own does the
 * writing, because a regular file blocks with its disk, a pipe with its reader and a terminal with
 * CTRL+S. Knows no Python.
 *
 * Whatever cannot be written (nobody reads, the disk is full) is dropped in whole lines and
 * counted. The thread is made by the first lines, so that a process may still fork before; at rest
 * it sleeps without a time-out. All calls are made on one thread, which owns the writer. */
#ifndef AS_GATEWAY_LOG_WRITER_H
#define AS_GATEWAY_LOG_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

#define AS_LOG_WAITING ((size_t)1024 * 1024) /* bytes that wait, beside those being written */

typedef struct as_log_writer as_log_writer;

/* Writes to a duplicate of `fd`. NULL: errno tells. */
as_log_writer *as_log_writer_new(int fd);
/* Waits for what is queued to be written, at most `wait` milliseconds; a thread that hangs longer
 * is left to end by itself. How many lines were lost and not told yet. */
uint64_t as_log_writer_free(as_log_writer *writer, unsigned wait);

/* Takes whole lines out of `lines`, which is empty then. */
void as_log_writer_put(as_log_writer *writer, as_buf *lines);
/* From now on, lines go to `fd`, which stays the caller's. -1: errno tells, nothing has changed. */
int as_log_writer_reopen(as_log_writer *writer, int fd);

/* What is to be told about lines that were lost. */
typedef struct as_log_trouble {
    uint64_t dropped; /* lines so far */
    int error;        /* errno of the write that failed; 0: nobody read */
    bool over;        /* lines are written again; false: the first failure of an error */
} as_log_trouble;
/* Costs a load. */
bool as_log_writer_has_trouble(const as_log_writer *writer);
/* The trouble counts as told. */
void as_log_writer_take_trouble(as_log_writer *writer, as_log_trouble *trouble);

#endif
