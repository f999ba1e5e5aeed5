/* What a trusted proxy says about the request that it passes on: X-Forwarded-For, -Proto, -Host,
 * -Port and -Prefix, and Forwarded (RFC 7239). No I/O: from a head to what holds for its request.
 *
 * Only asked where the peer is trusted. Everybody else's fields stay ordinary fields.
 *
 * CLIENT  The hops are the elements of all lines in order; each was written by the one behind it,
 *     the last one by the peer. The client is the right-most one that is not trusted, or the first
 *     one where all are. Nothing to the left of a hop that cannot be read counts: what is
 * malformed, "unknown" or hidden ("_x") ends the walk, and the client is the last good hop, be it
 * the peer itself. A line of Forwarded with bad syntax is one such hop from there to its end.
 * SCHEME  http, https, ws or wss; anything else changes nothing. Of X-Forwarded-Proto the last
 *     element, which is what the peer wrote or passed on; of Forwarded that of the element at which
 *     the walk ended.
 * SERVER  X-Forwarded-Host (last element) or host= (as the scheme) give name and port, the port
 *     of the scheme if it names none; X-Forwarded-Port (last element) replaces the port. The
 *     field Host stays as it is.
 * PREFIX  X-Forwarded-Prefix (last element): what the proxy took off the path. An absolute path
 *     of plain segments: none of them empty, "." or "..", and nothing percent-encoded.
 * BOTH  Where X-Forwarded-For, -Proto or -Host is there, Forwarded is not looked at.
 *
 * docs/decisions/forwarded-fields.md has the reasons. */
#ifndef AS_HTTP_FORWARDED_H
#define AS_HTTP_FORWARDED_H

#include "base/network.h"
#include "http/exchange.h"

/* A field whose presence tells the scheme: `value` means https, anything else http. */
typedef struct as_scheme_field {
    as_slice name, value;
} as_scheme_field;

/* What is believed, and from whom. Lives longer than the loops that use it. */
typedef struct as_forwarding {
    as_trust trust;
    bool fields; /* those listed above count */
    /* gunicorn's secure_scheme_headers: where there are any, they alone tell the scheme. */
    const as_scheme_field *schemes;
    size_t nschemes;
} as_forwarding;

typedef enum as_scheme { AS_SCHEME_NONE, AS_SCHEME_HTTP, AS_SCHEME_HTTPS } as_scheme;

/* What was found; zeroes for what was not. */
typedef struct as_forwarded {
    as_address client;
    uint16_t client_port;
    as_scheme scheme;
    as_span host; /* of the head, without port and brackets */
    uint16_t port;
    as_span prefix; /* of the head, without a slash at its end */
} as_forwarded;

/* AS_E_SCHEME: scheme fields contradict each other. */
as_err as_forwarded_read(const as_forwarding *forwarding, const as_head *head, as_forwarded *out);
/* Makes `ex->info` and `ex->head` tell what is found, if anything; the same errors, and
 * AS_E_NOMEM. Before on_request. */
as_err as_forward(const as_forwarding *forwarding, as_exchange *ex);

#endif
