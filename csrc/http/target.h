/* Request targets (RFC 9112, 3.2), hosts (RFC 3986, 3.2.2) and percent decoding. */
#ifndef AS_HTTP_TARGET_H
#define AS_HTTP_TARGET_H

#include "base/err.h"
#include "http/head.h"

/* Splits head->target into path, query and authority; refuses every form that RFC 9112 does not
 * allow for the method, a fragment, bytes outside of printable ASCII, and bytes that no target may
 * bear. */
as_err as_target_split(as_head *head);
/* True for `host[:port]` as RFC 3986 writes it; the empty string is valid (RFC 9112, 3.2). */
bool as_host_valid(as_slice host);
/* Decodes %XX into `out` (at least `in.n` bytes), leaves malformed ones as they are; the length. */
size_t as_percent_decode(as_slice in, char *out);
/* True if decoding would change nothing and all is ASCII. */
bool as_path_is_plain(as_slice path);

#endif
