/* The writer of HTTP/1 response heads, chunks and trailers into an output queue. Whatever it is
 * given, one well-formed response leaves or nothing. Knows no connection. */
#ifndef AS_HTTP_RESPONSE_H
#define AS_HTTP_RESPONSE_H

#include "base/err.h"
#include "http/outq.h"

/* Bits for as_exchange.seen. */
enum {
    AS_SEEN_LENGTH = 1,
    AS_SEEN_CLOSE = 2,
    AS_SEEN_DATE = 4,
    AS_SEEN_SERVER = 8,
    AS_SEEN_LAST_CHUNK = 16,
};

/* The field lines that every response gets, ready to copy: Server, Date and the configured ones. */
typedef struct as_response_defaults {
    char *block; /* "server: …\r\ndate: …\r\n" and the rest */
    size_t len;
    size_t date_off; /* of the 29 date bytes; 0: no Date */
    size_t server_off, server_len, date_line_off, date_line_len; /* whole lines, for leaving out */
    int64_t second;                                              /* the time that the block shows */
} as_response_defaults;

/* `extra`: name, value, name, value …, already valid; `nextra` counts slices. */
as_err as_response_defaults_init(as_response_defaults *d, bool server, bool date,
                                 const as_slice *extra, size_t nextra);
void as_response_defaults_fini(as_response_defaults *d);
/* Shows `unix_time` (seconds) from now on; costs nothing within the same second. */
void as_response_defaults_tick(as_response_defaults *d, int64_t unix_time);

/* RFC 9110, 5.6.7: IMF-fixdate, 29 bytes. */
void as_format_date(char out[29], int64_t unix_time);
/* The usual reason phrase, empty for an unknown status. */
as_slice as_status_reason(unsigned status);
/* A token (RFC 9110, 5.6.2) that is not empty; a field value without CR, LF, NUL or space at its
 * ends. */
bool as_is_token(as_slice s);
/* RFC 9110, 6.5.1: no framing, routing or connection in a trailer section. */
bool as_is_forbidden_trailer(as_slice name);
bool as_is_field_value(as_slice s);
/* Without the spaces and tabs around it (RFC 9110, 5.6.3: OWS). */
as_slice as_trim(as_slice s);
/* 1*DIGIT (RFC 9110, 8.6) that fits. */
bool as_parse_length(as_slice s, uint64_t *length);
/* Calls for each member of a comma-separated list (RFC 9110, 5.6.1), trimmed, empty ones too: sets
 * `member` and shortens `list`; false behind the last one. */
bool as_list_next(as_slice *list, as_slice *member);

/* --- for http1 ------------------------------------------------------------------------------ */

/* How a head ends: which of the server's own field lines it gets. */
typedef struct as_head_end {
    uint8_t seen;    /* AS_SEEN_DATE, AS_SEEN_SERVER: the default is left out */
    bool has_length; /* Content-Length: length */
    bool chunked;    /* Transfer-Encoding: chunked */
    bool close;      /* Connection: close */
    bool keep_alive; /* Connection: keep-alive, for HTTP/1.0 */
    uint64_t length;
} as_head_end;

/* A whole field line that was checked and left as it was given. Responses repeat most of theirs;
 * what is the same byte for byte need not be judged again. */
typedef struct as_line {
    uint8_t name_len, value_len; /* name_len 0: none */
    char text[126];              /* "name: value\r\n" */
} as_line;

#define AS_LINES 64u /* rows of a table of them, a power of two */

/* The place for a line in a table; NULL: it is not kept, for it is long, or a client's secret. */
as_line *as__find_line(as_line *lines, as_slice name, as_slice value);
bool as__line_is(const as_line *line, as_slice name, as_slice value);
void as__keep_line(as_line *line, as_slice name, as_slice value);
as_err as__write_line(as_outq *q, const as_line *line);

/* Each writes its lines as held bytes, or nothing and returns AS_E_NOMEM. Arguments are valid. */
as_err as__write_status_line(as_outq *q, unsigned status, as_slice reason);
as_err as__write_field(as_outq *q, as_slice name, as_slice value);
/* The last lines of a head and the empty one. `room` bytes behind them are reserved. */
as_err as__write_head_end(as_outq *q, const as_response_defaults *d, const as_head_end *end,
                          size_t room);
/* The line in front of a chunk; the most bytes that it takes. */
#define AS_CHUNK_LINE ((size_t)18)
size_t as__format_chunk_line(char *out, uint64_t n);

#endif
