/* The Python type asgiserver._core.Server: a loop, a gateway and the application between them. */
#ifndef AS_GATEWAY_SERVER_H
#define AS_GATEWAY_SERVER_H

#include "gateway/gateway.h"

/* Calls and forgets a callback that is called once; NULL: there is none. What it raises is logged.
 */
void as__server_call_once(PyObject **field);
/* The callable that run() was given, if it is due; false: it raised. */
bool as__server_tick(as_server *server);

int as_server_add_type(PyObject *module, as_module_state *state);

#endif
