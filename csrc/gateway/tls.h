/* The type TLSContext: net/tls_context.h in Python. */
#ifndef AS_GATEWAY_TLS_H
#define AS_GATEWAY_TLS_H

#include "gateway/gateway.h"
#include "net/tls_context.h"

int as_tls_add_types(PyObject *module, as_module_state *state);
/* Borrowed from the object; NULL with an exception: it is something else. */
as_tls_context *as_tls_context_of(as_module_state *state, PyObject *object);

#endif
