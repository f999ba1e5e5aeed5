/* The Python type asgiserver._core.Server: a loop, a gateway and the application between them. */
#ifndef AS_GATEWAY_SERVER_H
#define AS_GATEWAY_SERVER_H

#include "gateway/gateway.h"

int as_server_add_type(PyObject *module, as_module_state *state);

#endif
