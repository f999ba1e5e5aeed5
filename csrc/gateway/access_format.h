/* The format of the access log: a text with %(…)s atoms, or the name of a preset, is compiled once
 * and then expanded for each request. Knows no Python; runs nothing of anybody else's.
 *
 * Whatever bytes a stranger sends, a line stays one line of printable ASCII: other bytes, quotes
 * and backslashes are written as \xNN (in JSON as \u00NN, \" and \\). */
#ifndef AS_GATEWAY_ACCESS_FORMAT_H
#define AS_GATEWAY_ACCESS_FORMAT_H

#include "base/buf.h"
#include "http/exchange.h"

typedef struct as_access_format as_access_format;

/* What a format reads beside the exchange: bits of as_access_format_needs. */
enum {
    AS_ACCESS_TIME = 1,          /* as_access_moment.seconds, .nanoseconds */
    AS_ACCESS_DURATION = 2,      /* as_access_moment.duration */
    AS_ACCESS_RESPONSE_HEAD = 4, /* as_exchange.head_copy */
};

/* When a response was complete. Fields that the format does not need are not read. */
typedef struct as_access_moment {
    int64_t seconds;      /* since 1970 */
    uint32_t nanoseconds; /* and this much */
    uint64_t duration;    /* of the request, microseconds */
} as_access_moment;

#define AS_ACCESS_PROBLEM 192 /* bytes of room for a text that says what is wrong */

/* `text`: "uvicorn", "common", "combined", "json" or a format (UTF-8). Without a pointer: the
 * fields of a record for Python's logging (client, method, target, version, status) with a tab
 * between. `colors` is for uvicorn's. NULL with a text in `problem`: the format is wrong, or no
 * memory. */
as_access_format *as_access_format_new(as_slice text, bool colors, char problem[AS_ACCESS_PROBLEM]);
void as_access_format_free(as_access_format *format);
unsigned as_access_format_needs(const as_access_format *format);

/* Adds the line of one request, with its line feed, behind `out`; or nothing, and AS_E_NOMEM. */
as_err as_access_format_add(as_access_format *format, const as_exchange *ex,
                            const as_access_moment *moment, as_buf *out);

/* "127.0.0.1:5000", or "unix"; not terminated. The length. */
#define AS_CLIENT_TEXT (sizeof(((as_conn_info *)0)->client) + 8) /* bytes of room */
size_t as_format_client(const as_conn_info *info, char *out);

#endif
