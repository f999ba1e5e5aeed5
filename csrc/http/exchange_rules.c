#include "http/exchange_rules.h"

#include "http/response.h"

void as_exchange_head_undone(as_exchange *ex) {
    ex->res = AS_RES_START;
    ex->status = 0;
    ex->seen = 0;
    ex->body_left = UINT64_MAX;
    ex->no_body = false;
    ex->trailers = false;
}

static bool has_close(as_slice options) {
    as_slice option;
    while (as_list_next(&options, &option)) {
        if (as_slice_ieq(option, AS_SLICE("close"))) {
            return true;
        }
    }
    return false;
}

static as_err understand(as_exchange *ex, as_name_id name, as_slice value, as_field_kind *kind) {
    *kind = AS_FIELD_READ;
    switch (name) {
    case AS_NAME_CONTENT_LENGTH:
        *kind = AS_FIELD_OURS; /* the end of the head writes it, where there may be one */
        if ((ex->seen & AS_SEEN_LENGTH) != 0 || !as_parse_length(value, &ex->body_left)) {
            return AS_E_RESPONSE_LENGTH;
        }
        ex->seen |= AS_SEEN_LENGTH;
        break;
    case AS_NAME_CONNECTION:
        *kind = AS_FIELD_OURS;
        ex->seen |= has_close(value) ? AS_SEEN_CLOSE : 0;
        break;
    case AS_NAME_TRANSFER_ENCODING:
    case AS_NAME_KEEP_ALIVE:
    case AS_NAME_PROXY_CONNECTION:
    case AS_NAME_UPGRADE:
    case AS_NAME_TE:
        *kind = AS_FIELD_OURS; /* RFC 9110, 7.6.1: hop by hop */
        break;
    case AS_NAME_DATE:
        ex->seen |= AS_SEEN_DATE;
        break;
    case AS_NAME_SERVER:
        ex->seen |= AS_SEEN_SERVER;
        break;
    default:
        *kind = AS_FIELD_PLAIN;
        break;
    }
    return AS_OK;
}

as_err as_check_field(as_slice name, as_slice value) {
    if (!as_is_token(name)) {
        return AS_E_RESPONSE_NAME;
    }
    return as_is_field_value(value) ? AS_OK : AS_E_RESPONSE_VALUE;
}

as_err as_exchange_take_field(as_exchange *ex, as_slice name, as_slice value, as_field_kind *kind) {
    as_err err = as_exchange_check_state(ex, AS_RES_HEAD);
    if (err != AS_OK) {
        return err;
    }
    as_name_id id = as_name_find(name.p, name.n);
    if (id == AS_NAME_OTHER && !as_is_token(name)) { /* the names of the table are tokens */
        return AS_E_RESPONSE_NAME;
    }
    return as_is_field_value(value) ? understand(ex, id, value, kind) : AS_E_RESPONSE_VALUE;
}
