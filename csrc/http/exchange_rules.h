/* The rules of a response that hold in every protocol: the order of the calls, statuses, fields,
 * declared lengths. They read and change an exchange's own fields, and write nothing. */
#ifndef AS_HTTP_EXCHANGE_RULES_H
#define AS_HTTP_EXCHANGE_RULES_H

#include "http/exchange.h"
#include "http/response.h"

/* What every call needs: a response that is not complete, and somebody to write to. */
static inline as_err as_exchange_check(const as_exchange *ex) {
    if (ex->res == AS_RES_DONE) {
        return AS_E_RESPONSE_STATE;
    }
    return ex->aborted || ex->proto == NULL ? AS_E_CLOSED : AS_OK;
}

static inline as_err as_exchange_check_state(const as_exchange *ex, as_res_state state) {
    as_err err = as_exchange_check(ex);
    return err == AS_OK && ex->res != state ? AS_E_RESPONSE_STATE : err;
}

/* START -> HEAD, in two steps: may it be, and it has been. */
static inline as_err as_exchange_check_head(const as_exchange *ex, unsigned status,
                                            as_slice reason) {
    as_err err = as_exchange_check_state(ex, AS_RES_START);
    if (err != AS_OK) {
        return err;
    }
    if (status < 200 || status > 999) {
        return AS_E_RESPONSE_STATUS;
    }
    return as_is_field_value(reason) ? AS_OK : AS_E_RESPONSE_VALUE;
}

static inline void as_exchange_head_begun(as_exchange *ex, unsigned status) {
    ex->res = AS_RES_HEAD;
    ex->status = (uint16_t)status;
    ex->seen = 0;
    ex->body_left = UINT64_MAX;
    ex->no_body = ex->head->is_head || status == 204 || status == 304;
}

/* HEAD -> START */
void as_exchange_head_undone(as_exchange *ex);

/* What becomes of a field line of the application's. */
typedef enum as_field_kind {
    AS_FIELD_PLAIN, /* it leaves as it is, and means nothing to the server */
    AS_FIELD_READ,  /* it leaves as it is, and the server has remembered something of it */
    AS_FIELD_OURS   /* it is the server's to write, or nobody's */
} as_field_kind;

/* Checks a field line and remembers what the server must know of it. `value` is trimmed. */
as_err as_exchange_take_field(as_exchange *ex, as_slice name, as_slice value, as_field_kind *kind);
as_err as_check_field(as_slice name, as_slice value);

/* `n` more bytes of body, in two steps. What fails here has changed nothing. */
static inline as_err as_exchange_check_body(const as_exchange *ex, uint64_t n, bool more) {
    as_err err = as_exchange_check(ex);
    if (err != AS_OK) {
        return err;
    }
    if (ex->res == AS_RES_START || (ex->seen & AS_SEEN_LAST_CHUNK) != 0) {
        return AS_E_RESPONSE_STATE;
    }
    if (!ex->no_body && (ex->seen & AS_SEEN_LENGTH) != 0) {
        if (n > ex->body_left) {
            return AS_E_RESPONSE_LONG;
        }
        if (!more && n < ex->body_left) {
            return AS_E_RESPONSE_SHORT;
        }
    }
    return AS_OK;
}

static inline void as_exchange_body_given(as_exchange *ex, uint64_t n, bool more) {
    ex->sent += ex->no_body ? 0 : n;
    if ((ex->seen & AS_SEEN_LENGTH) != 0) {
        ex->body_left -= n < ex->body_left ? n : ex->body_left;
    }
    if (!more) {
        ex->res = AS_RES_DONE;
    }
}

#endif
