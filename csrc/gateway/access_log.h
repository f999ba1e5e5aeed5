/* The access log of a server: where its lines go, and in which form. */
#ifndef AS_GATEWAY_ACCESS_LOG_H
#define AS_GATEWAY_ACCESS_LOG_H

#include "gateway/gateway.h"

/* `target`: a descriptor (an int), to which lines are written without ever waiting for it; or a
 * callable. `format`: see access_format.h; None: for a descriptor uvicorn's, while a callable is
 * given list[tuple[client, method, target, version, status]]; with a format list[str], lines
 * without their line feeds. NULL with an exception: ValueError for the format. */
struct as_access_log *as_access_log_new(PyObject *target, PyObject *format, bool colors);
/* Writes what is left, for a second at most. How many lines were lost and not told of. */
uint64_t as_access_log_free(struct as_access_log *log);
/* AS_ACCESS_…; 0 for NULL. */
unsigned as_access_log_needs(const struct as_access_log *log);
/* -1 with an exception. */
int as_access_log_reopen(struct as_access_log *log, int fd);

/* Flushes, frees, and tells of lost lines. Runs Python. */
void as_access_log_close(as_server *server);
/* Instead of as_access_log_flush on a thread without Python. True: the lines are for a callable,
 * and valid until the next one is added; somebody must give them. */
bool as_access_log_take(as_server *server, as_slice *lines);
/* Gives them to the callable. Runs Python. */
void as_access_log_give(as_server *server, as_slice lines);
/* as_access_log_report may have something to tell. Costs a load. */
bool as_access_log_has_trouble(const as_server *server);
/* Logs a message when lines were lost; costs a load when none were. Runs Python. */
void as_access_log_report(as_server *server);

/* check_access_log_format(text): ValueError, or None. */
PyObject *as_check_access_log_format(PyObject *module, PyObject *text);

#endif
