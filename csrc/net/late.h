/* Answers that leave together, at the end of a turn of the loop.
 *
 * Handlers run one after another then, with the kernel's network code out of the caches, and a
 * client that waits for several answers is woken once. That is worth a fifth of the CPU of a
 * request (docs/performance.md). While a handler runs, which may take its time, a thread of this
 * file's own sees to it that what is put here leaves within four milliseconds.
 *
 * Bytes that are put here are this file's until they are taken back. All calls are made on the
 * loop's thread; the thread of this file touches nothing but a slot's bytes, never Python. */
#ifndef AS_NET_LATE_H
#define AS_NET_LATE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/buf.h"
#include "net/transport.h"

typedef struct as_late as_late;

/* NULL: no memory. */
as_late *as__late_new(void);
/* Bytes that were not taken back are dropped. */
void as__late_free(as_late *late, as_buf_pool *pool);

/* Whether there is something, and whether it had better leave before a handler is called. */
bool as__late_any(const as_late *late);
bool as__late_is_due(as_late *late);

/* A handler may run now: from here on the thread looks. False: there is no thread, and can be none.
 */
bool as__late_guard(as_late *late);

/* Takes over `buf`, whose bytes from `off` on are to leave by `transport`. The slot, from 1 on; 0:
 * there is none, and nothing has changed. */
unsigned as__late_put(as_late *late, const as_transport *transport, as_buf *buf, size_t off,
                      void *owner);
/* Gives the buffer back. How many bytes have left, or a negative as_err. */
ssize_t as__late_take(as_late *late, unsigned slot, as_buf *buf, size_t *off);
/* The owners of what is here, in their order, from `*at` on, which is 0 at first; NULL: that was
 * all.
 */
void *as__late_next(const as_late *late, unsigned *at);

#endif
