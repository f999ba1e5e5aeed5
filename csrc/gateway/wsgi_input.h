/* wsgi.input: a request body that is here in full before the application runs. It is gathered in
 * memory and moves to an unlinked temporary file when it grows beyond a bound; the application then
 * reads it as a file-like object (PEP 3333, "Input and Error Streams").
 *
 * An input knows nothing of its exchange, so an application may keep it for as long as it likes and
 * drop it on any thread. Nothing here runs Python code of others or closes a connection. */
#ifndef AS_GATEWAY_WSGI_INPUT_H
#define AS_GATEWAY_WSGI_INPUT_H

#include "base/spool.h"
#include "gateway/gateway.h"

/* Makes the type; NULL with an exception. */
PyTypeObject *as__input_make_type(PyObject *module);

/* An empty input, new reference. `expected`: the bytes that will come as far as that is known, a
 * hint that keeps a body from being moved about; `spools`, which outlives the gathering, says when
 * the body goes to a file; NULL: it stays empty. */
PyObject *as__input_new(as_module_state *state, uint64_t expected, as_spools *spools);

/* A sealed input over what a spool has gathered, whose file it takes over. New reference, NULL with
 * an exception. */
PyObject *as__input_from_spool(as_module_state *state, as_spool *spool);

/* Adds body bytes. AS_E_NOMEM, or what as_spool_file_append says; no Python exception is set. */
as_err as__input_append(PyObject *input, as_slice data);

/* Nothing more will be added; required before anybody reads. */
as_err as__input_seal(PyObject *input);

/* Bytes in all. */
uint64_t as__input_size(PyObject *input);

#endif
