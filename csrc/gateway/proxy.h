/* What a Server is told about the proxies in front of it (_core.pyi: ProxySettings), in the form
 * that the loop takes. */
#ifndef AS_GATEWAY_PROXY_H
#define AS_GATEWAY_PROXY_H

#include "gateway/gateway.h"
#include "net/loop.h"

/* From a dict; NULL with an exception. It must live longer than the loop. */
struct as_proxy *as_proxy_new(PyObject *settings);
void as_proxy_free(struct as_proxy *proxy);
void as_proxy_configure(const struct as_proxy *proxy, as_loop_config *config);

#endif
