/* What server.c (the type, and what its methods do) and server_drive.c (who drives its loop) share.
 */
#ifndef AS_GATEWAY_SERVER_INTERNAL_H
#define AS_GATEWAY_SERVER_INTERNAL_H

#include "gateway/server.h"
#include "net/loop.h"

/* --- server.c --------------------------------------------------------------------------------- */

/* -1 with RuntimeError: the server is closed. */
int as__server_check_open(const as_server *self);

/* --- server_drive.c --------------------------------------------------------------------------- */

/* What the loop calls when it wants to be driven, or has something to tell. */
void as__server_set_hooks(const as_server *self, as_loop_config *config);
/* Takes the descriptor and the timer out of the asyncio loop, if that still runs. */
void as__server_unwatch(as_server *self);

/* Methods. */
PyObject *as__server_start(PyObject *op, PyObject *ignored);
PyObject *as__server_poll(PyObject *op, PyObject *ignored);
PyObject *as__server_woken(PyObject *op, PyObject *ignored);
PyObject *as__server_timer(PyObject *op, PyObject *ignored);
PyObject *as__server_run(PyObject *op, PyObject *args, PyObject *kwargs);
PyObject *as__server_work(PyObject *op, PyObject *ignored);

#endif
