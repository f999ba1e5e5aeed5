/* A request head as spans of its own bytes: nothing is copied until somebody keeps it.
 *
 * Every offset counts from `base`. A head that is being parsed points into the loop's read buffer;
 * `as_head_keep` makes the one copy, in one block, that may outlive it. */
#ifndef AS_HTTP_HEAD_H
#define AS_HTTP_HEAD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"
#include "http/names.h"

typedef struct as_span {
    uint32_t off, len;
} as_span;

/* One field line, names as received, values without the white space around them. */
typedef struct as_field {
    uint32_t name_off;
    uint16_t name_len;
    uint16_t name_id; /* enum as_name_id; AS_NAME_OTHER for names without a row in names.h */
    uint32_t value_off;
    uint32_t value_len;
} as_field;

typedef enum as_body_kind { AS_BODY_NONE, AS_BODY_LENGTH, AS_BODY_CHUNKED } as_body_kind;

typedef struct as_head {
    const char *base;
    as_field *fields;
    uint64_t content_length; /* valid for AS_BODY_LENGTH */
    uint32_t len;            /* bytes of the whole head, its final empty line included */
    uint32_t refs;           /* 0: a head in the parser's hands; else a kept copy, shared */
    uint32_t nfields;
    as_span method;
    as_span target;    /* the request target as received */
    as_span path;      /* within it: without scheme, authority and query; empty only for "*" */
    as_span query;     /* within it: behind the '?', empty if there is none */
    as_span authority; /* of an absolute-form target, else empty */
    as_span host;      /* as a trusted proxy tells it, else empty: http/forwarded.h */
    as_span prefix;    /* so, too */
    uint8_t minor;     /* HTTP/1.minor */
    uint8_t method_id; /* llhttp's number */
    uint8_t body;      /* as_body_kind */
    bool is_head;      /* the method is HEAD */
    bool keep_alive; /* more requests may follow: version, Connection and Upgrade taken together */
    bool leaves;     /* by its own word, "close", the client sends nothing behind this head */
    bool expect_continue;
    bool upgrade;   /* Connection: upgrade with an Upgrade field */
    bool forwarded; /* has fields that http/forwarded.h reads */
} as_head;

static inline as_slice as_head_slice(const as_head *head, as_span span) {
    return (as_slice){head->base + span.off, span.len};
}
static inline as_slice as_field_name(const as_head *head, const as_field *field) {
    return (as_slice){head->base + field->name_off, field->name_len};
}
static inline as_slice as_field_value(const as_head *head, const as_field *field) {
    return (as_slice){head->base + field->value_off, field->value_len};
}

/* A shared copy of `head` in one block with one reference more for the caller; the same head with
 * one more reference when it is such a copy already. NULL: no memory. */
as_head *as_head_keep(as_head *head);
/* Makes *head a shared copy, its reference the owner's of *head, unless it is one already. False:
 * no memory, and nothing has changed. */
bool as_head_settle(as_head **head);
/* As as_head_keep, of its request line alone: without fields, and what is told in them. */
as_head *as_head_keep_line(as_head *head);
/* Drops a reference that as_head_keep gave. NULL is allowed. */
void as_head_unref(as_head *head);

#endif
