/* The framing of HTTP/1 (RFC 9112) once more, written from the grammar and for nothing but to be
 * compared with: what the server accepts, this must read in the same way. */
#ifndef AS_FUZZ_REFERENCE_H
#define AS_FUZZ_REFERENCE_H

#include "fuzz.h"

typedef enum reading { READ_MORE, READ_BAD, READ_ALL } reading;

typedef struct reference_request {
    as_slice method, target;
    unsigned minor;
    as_buf body; /* the caller's to free, whatever came of it */
    size_t size; /* bytes of the message, with empty lines in front of it */
} reference_request;

reading reference_read(as_slice bytes, reference_request *out);
/* A chunked body with its trailer section (7.1); adds to `body`, and sets `size`. */
reading reference_read_chunked(as_slice bytes, as_buf *body, size_t *size);

/* One response with what it needs to be complete. `is_head`: to a HEAD. `ended`: the connection
 * closes behind `bytes`. */
typedef struct reference_response {
    unsigned status;
    as_buf fields; /* "name: value\n", as they are */
    as_buf body, trailers;
    size_t size;
    bool closes;      /* Connection: close */
    bool until_close; /* its body ends with the connection */
} reference_response;

reading reference_read_response(as_slice bytes, bool is_head, bool ended, reference_response *out);
void reference_response_fini(reference_response *response);

#endif
