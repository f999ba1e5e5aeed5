/* What the files of HTTP/1 share: http1.c (the connection), h1_head.c (the parser and the rules of
 * requests), h1_response.c (what a gateway may call on an exchange). */
#ifndef AS_HTTP_H1_INTERNAL_H
#define AS_HTTP_H1_INTERNAL_H

#include <llhttp.h>

#include "http/http1.h"

/* --- h1_head.c: from bytes to heads and bodies ---------------------------------------------- */

/* A head that is being parsed: env->scratch within one read, h1->saved over several. */
struct as_h1_scratch {
    as_head head;     /* its spans so far; `base` only when it is complete */
    uint32_t cap;     /* of head.fields */
    as_buf bytes;     /* those of earlier reads */
    const char *from; /* where this read's bytes of the head begin */
    bool in_name;     /* the last field line's name may go on */
    bool line_done;   /* the request line is complete */
    bool unknown_method;
};

/* What parses a head, and a chunked body. */
struct as_h1_parser {
    llhttp_t llhttp;
    int64_t slack; /* AT_CHUNKS: bytes of framing that may still come */
    uint64_t trailer_bytes;
    uint32_t trailers; /* field lines of the trailer section */
    char trailer[20];  /* the beginning of the name that is being parsed there */
    uint8_t trailer_len;
};

struct as_h1_scratch *as__h1_scratch_new(void);
void as__h1_scratch_free(struct as_h1_scratch *scratch);

/* What came of some bytes. An error has been answered already. */
typedef enum as_h1_got { AS_H1_GOT_PART, AS_H1_GOT_ALL, AS_H1_GOT_ERROR } as_h1_got;

/* Before the first byte of a request. False: no memory. */
bool as__h1_begin_head(as_h1 *h1);
/* Each moves *p behind what it took. A complete head is checked, and pointed to by `head`. */
as_h1_got as__h1_parse_head(as_h1 *h1, char **p, char *end, as_head **head);
/* Behind the head: sets the state that its body asks for. */
void as__h1_begin_body(as_h1 *h1, const as_head *head);
/* Body bytes into env->gathered: where they are, or moved together in place. */
as_h1_got as__h1_parse_body(as_h1 *h1, char **p, char *end);

/* --- http1.c: the connection ---------------------------------------------------------------- */

/* Answers with the status of `why`, or cuts where an answer has begun; nothing more is parsed. */
void as__h1_refuse(as_h1 *h1, as_err why, as_slice detail, uint64_t offset);
/* Ends the connection: AS_H1_CLOSING behind what is queued, or AS_H1_DEAD at once. */
void as__h1_stop(as_h1 *h1, as_h1_phase phase, as_err why);
/* Follows what h1->ex became, once no handler runs for this connection. */
void as__h1_settle(as_h1 *h1);
void as__h1_update_phase(as_h1 *h1);

/* --- h1_health.c ---------------------------------------------------------------------------- */

/* The request is one for the health path. */
bool as__h1_is_health(const as_h1_env *env, const as_head *head);
/* The whole answer to it: 200, or 503. */
as_err as__h1_answer_health(as_exchange *ex, bool healthy);

/* --- h1_response.c: exchanges --------------------------------------------------------------- */

/* NULL: no memory. */
as_exchange *as__h1_exchange_new(as_h1 *h1, as_head *head);
/* Its memory alone. */
void as__h1_exchange_free(as_exchange *ex);
/* The protocol lets go of h1->ex. */
void as__h1_let_go(as_h1 *h1);
/* A request whose rest is not worth reading behind its answer, or may never come. */
bool as__h1_leaves_too_much(const as_h1 *h1, const as_exchange *ex);
/* A whole answer with the status and the text of `why`, behind what is queued. */
as_err as__h1_write_error(as_h1 *h1, as_err why, bool is_head);

#endif
