/* The header of the PROXY protocol, versions 1 and 2 (haproxy's proxy-protocol.txt): what a proxy
 * that does not speak HTTP writes in front of a connection's bytes to tell whose they are. No I/O.
 *
 * Whoever asks has made sure that the peer is trusted. */
#ifndef AS_HTTP_PROXY_PROTOCOL_H
#define AS_HTTP_PROXY_PROTOCOL_H

#include <stdint.h>

#include "base/err.h"
#include "base/network.h"
#include "base/slice.h"

/* AS_PROXY_AUTO: either version; without a header, a connection is refused in all modes but OFF. */
typedef enum as_proxy_mode { AS_PROXY_OFF, AS_PROXY_V1, AS_PROXY_V2, AS_PROXY_AUTO } as_proxy_mode;

#define AS_PROXY_V1_MAX ((size_t)107)  /* bytes, line end included (2.1) */
#define AS_PROXY_V2_MAX ((size_t)4096) /* bytes; the format has room for 65551 */
#define AS_PROXY_PATH ((size_t)109)    /* bytes of a Unix socket's path, with a NUL */

typedef enum as_proxy_kind {
    AS_PROXY_LOCAL, /* the proxy's own connection, such as a health check: the peer is the client */
    AS_PROXY_UNKNOWN, /* somebody's, and not told whose */
    AS_PROXY_INET,
    AS_PROXY_UNIX
} as_proxy_kind;

typedef struct as_proxy_header {
    as_proxy_kind kind;
    /* AS_PROXY_INET */
    as_address source, destination;
    uint16_t source_port, destination_port;
    /* AS_PROXY_UNIX: where the client connected to, may be empty; '@' first for an abstract one */
    char path[AS_PROXY_PATH];
} as_proxy_header;

/* `data`: the connection's bytes from its first one, at least that. Sets `*size` to the header's
 * bytes, or to 0 as long as all of `data` belongs to a header that is not complete. AS_E_PROXY_* as
 * early as the bytes allow. */
as_err as_proxy_parse(as_proxy_mode mode, as_slice data, as_proxy_header *out, size_t *size);

#endif
