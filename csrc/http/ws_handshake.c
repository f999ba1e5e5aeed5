#include "http/ws_handshake.h"

#include <openssl/err.h>
#include <openssl/sha.h>

#include "http/response.h"

/* --- field lines ---------------------------------------------------------------------------- */

/* The next line of that name from `*at` on, which moves behind it; NULL: no more. */
static const as_field *next_line(const as_head *head, as_name_id id, uint32_t *at) {
    while (*at < head->nfields) {
        const as_field *field = &head->fields[(*at)++];
        if (field->name_id == id) {
            return field;
        }
    }
    return NULL;
}

/* How many lines there are, and the last one's value. */
static unsigned read_single(const as_head *head, as_name_id id, as_slice *value) {
    unsigned lines = 0;
    uint32_t at = 0;
    for (const as_field *field; (field = next_line(head, id, &at)) != NULL; lines++) {
        *value = as_field_value(head, field);
    }
    return lines;
}

bool as_ws_is_asked_for(const as_head *head) {
    uint32_t at = 0;
    as_slice member;
    if (!head->upgrade || head->minor < 1) {
        return false;
    }
    for (const as_field *field; (field = next_line(head, AS_NAME_UPGRADE, &at)) != NULL;) {
        for (as_slice list = as_field_value(head, field); as_list_next(&list, &member);) {
            if (as_slice_ieq(member, AS_SLICE("websocket"))) {
                return true;
            }
        }
    }
    return false;
}

/* --- Sec-WebSocket-Key (RFC 6455, 4.2.1 and 4.2.2) ------------------------------------------- */

enum { KEY_LEN = 24 /* base64 of 16 bytes, the last two are padding */ };

#define GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static bool is_key(as_slice key) {
    if (key.n != KEY_LEN || key.p[KEY_LEN - 2] != '=' || key.p[KEY_LEN - 1] != '=') {
        return false;
    }
    const char *digit = NULL;
    for (size_t i = 0; i < KEY_LEN - 2; i++) {
        digit = memchr(base64, key.p[i], sizeof(base64) - 1);
        if (digit == NULL) {
            return false;
        }
    }
    /* RFC 4648, 3.5: the bits beyond the 16 bytes are zero. */
    return (digit - base64) % 16 == 0;
}

/* `n` bytes, padded with zeros; whole groups of three. */
static void write_base64(const unsigned char *p, size_t n, char *out) {
    for (size_t i = 0; i < n; i += 3, out += 4) {
        unsigned group = (unsigned)p[i] << 16 | (unsigned)p[i + 1] << 8 | p[i + 2];
        for (unsigned digit = 0; digit < 4; digit++) {
            out[digit] = base64[group >> (18 - 6 * digit) & 63];
        }
    }
}

static as_err write_accept(as_slice key, char out[28]) {
    unsigned char text[KEY_LEN + sizeof(GUID) - 1], digest[SHA_DIGEST_LENGTH + 1] = {0};
    memcpy(text, key.p, KEY_LEN);
    memcpy(text + KEY_LEN, GUID, sizeof(GUID) - 1);
    if (SHA1(text, sizeof(text), digest) == NULL) {
        ERR_clear_error(); /* the thread's queue is shared with whoever else uses OpenSSL */
        return AS_E_NOMEM;
    }
    write_base64(digest, sizeof(digest), out);
    out[27] = '='; /* 20 bytes: the last group lacks one */
    return AS_OK;
}

/* --- Sec-WebSocket-Extensions (RFC 6455, 9.1) ------------------------------------------------ */

/* What is left of a value that is read from the left. */
typedef struct reader {
    const char *p, *end;
} reader;

enum { VALUE_MAX = 3 }; /* bytes that are kept: more than any value that is known has */

typedef struct parameter {
    as_slice name;
    bool has_value;
    char value[VALUE_MAX];
    size_t nvalue;
} parameter;

static void skip_space(reader *r) {
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t')) {
        r->p++;
    }
}

/* Whether `c` is next; it is taken, with the space on both sides. */
static bool take(reader *r, char c) {
    skip_space(r);
    if (r->p == r->end || *r->p != c) {
        return false;
    }
    r->p++;
    skip_space(r);
    return true;
}

static bool is_token_byte(char c) {
    return as_is_token((as_slice){&c, 1});
}

static bool take_token(reader *r, as_slice *token) {
    token->p = r->p;
    while (r->p < r->end && is_token_byte(*r->p)) {
        r->p++;
    }
    token->n = (size_t)(r->p - token->p);
    return token->n > 0;
}

static bool add_value_byte(parameter *param, char c) {
    if (param->nvalue < VALUE_MAX) {
        param->value[param->nvalue++] = c;
    }
    return is_token_byte(c);
}

/* Behind the opening quote. What is quoted is a token too, once the backslashes are gone. */
static bool take_quoted(reader *r, parameter *param) {
    while (r->p < r->end && *r->p != '"') {
        r->p += *r->p == '\\' && r->p + 1 < r->end;
        if (!add_value_byte(param, *r->p++)) {
            return false;
        }
    }
    if (r->p == r->end) {
        return false;
    }
    r->p++;
    return param->nvalue > 0;
}

static bool take_value(reader *r, parameter *param) {
    as_slice token;
    param->has_value = true;
    if (r->p < r->end && *r->p == '"') {
        r->p++;
        return take_quoted(r, param);
    }
    if (!take_token(r, &token)) {
        return false;
    }
    for (size_t i = 0; i < token.n; i++) {
        (void)add_value_byte(param, token.p[i]);
    }
    return true;
}

static bool take_parameter(reader *r, parameter *param) {
    *param = (parameter){0};
    return take_token(r, &param->name) && (!take(r, '=') || take_value(r, param));
}

/* --- permessage-deflate (RFC 7692, 7.1) ------------------------------------------------------ */

enum {
    BITS_ABSENT = 0,
    BITS_LEAST = 8,
    BITS_MOST = 15,
    /* zlib's deflater has no window of 8 bits. */
    OUR_BITS_LEAST = 9,
    /* What is asked of the client where that is allowed: its window is our memory. */
    OUR_BITS_MOST = 12
};

typedef enum value_rule { NO_VALUE, BITS, BITS_OR_NO_VALUE } value_rule;

enum { SERVER_NO_TAKEOVER, CLIENT_NO_TAKEOVER, SERVER_BITS, CLIENT_BITS, PARAMETERS };

static const struct {
    const char *name;
    value_rule rule;
} parameters[PARAMETERS] = {
    [SERVER_NO_TAKEOVER] = {"server_no_context_takeover", NO_VALUE},
    [CLIENT_NO_TAKEOVER] = {"client_no_context_takeover", NO_VALUE},
    [SERVER_BITS] = {"server_max_window_bits", BITS},
    [CLIENT_BITS] = {"client_max_window_bits", BITS_OR_NO_VALUE},
};

static as_slice parameter_name(size_t row) {
    return (as_slice){parameters[row].name, strlen(parameters[row].name)};
}

typedef struct offer {
    bool is_deflate;
    bool bad; /* to be declined */
    bool has[PARAMETERS];
    uint8_t bits[PARAMETERS];
} offer;

/* A decimal number from 8 to 15 without leading zeros; 0: it is none. */
static uint8_t read_bits(const parameter *param) {
    uint64_t bits = 0;
    bool is_number = as_parse_length((as_slice){param->value, param->nvalue}, &bits);
    return is_number && param->value[0] != '0' && bits >= BITS_LEAST && bits <= BITS_MOST
               ? (uint8_t)bits
               : BITS_ABSENT;
}

static bool is_value_right(value_rule rule, const parameter *param, uint8_t bits) {
    if (!param->has_value) {
        return rule != BITS;
    }
    return rule != NO_VALUE && bits != BITS_ABSENT;
}

/* 7.1: what is unknown, given twice, or has a wrong value is reason to decline. */
static void add_parameter(offer *o, const parameter *param) {
    size_t row = 0;
    while (row < PARAMETERS && !as_slice_ieq(parameter_name(row), param->name)) {
        row++;
    }
    if (row == PARAMETERS || o->has[row]) {
        o->bad = true;
        return;
    }
    uint8_t bits = read_bits(param);
    o->has[row] = true;
    o->bits[row] = bits != BITS_ABSENT ? bits : BITS_MOST;
    o->bad = o->bad || !is_value_right(parameters[row].rule, param, bits);
}

/* One extension with its parameters; false: that is no grammar. */
static bool take_offer(reader *r, offer *o) {
    as_slice name;
    parameter param;
    *o = (offer){0};
    if (!take_token(r, &name)) {
        return false;
    }
    o->is_deflate = as_slice_ieq(name, AS_SLICE("permessage-deflate"));
    while (take(r, ';')) {
        if (!take_parameter(r, &param)) {
            return false;
        }
        add_parameter(o, &param);
    }
    return true;
}

static uint8_t least(uint8_t a, uint8_t b) {
    return a < b ? a : b;
}

/* What is agreed on of it; `on` only if it is. */
static as_ws_deflate_params agree(const offer *o) {
    as_ws_deflate_params params = {.server_bits = BITS_MOST, .client_bits = BITS_MOST};
    if (o->has[SERVER_BITS]) { /* 7.1.2.1: not more than this */
        params.server_bits = least(o->bits[SERVER_BITS], OUR_BITS_MOST);
    }
    if (o->has[CLIENT_BITS]) { /* 7.1.2.2: only then may the answer have it */
        params.client_bits = least(o->bits[CLIENT_BITS], OUR_BITS_MOST);
    }
    params.server_no_takeover = o->has[SERVER_NO_TAKEOVER];
    params.client_no_takeover = o->has[CLIENT_NO_TAKEOVER];
    params.on = o->is_deflate && !o->bad && params.server_bits >= OUR_BITS_LEAST;
    return params;
}

/* The offers of one line, in the order of preference; empty members are allowed (RFC 9110, 5.6.1).
 */
static as_err read_offers(as_slice line, as_ws_deflate_params *params) {
    reader r = {line.p, line.p + line.n};
    offer o;
    do {
        while (take(&r, ',')) {
        }
        if (r.p == r.end) {
            return AS_OK;
        }
        if (!take_offer(&r, &o)) {
            return AS_E_WS_HANDSHAKE;
        }
        if (!params->on) {
            *params = agree(&o);
        }
    } while (take(&r, ','));
    return r.p == r.end ? AS_OK : AS_E_WS_HANDSHAKE;
}

/* 9.1: what does not conform to the grammar fails the handshake, wanted or not. */
static as_err read_extensions(const as_head *head, as_ws_deflate_params *params) {
    uint32_t at = 0;
    const as_field *field;
    as_err err = AS_OK;
    while (err == AS_OK &&
           (field = next_line(head, AS_NAME_SEC_WEBSOCKET_EXTENSIONS, &at)) != NULL) {
        err = read_offers(as_field_value(head, field), params);
    }
    return err;
}

static char *append(char *out, as_slice text) {
    memcpy(out, text.p, text.n);
    return out + text.n;
}

static char *append_parameter(char *out, size_t row, uint8_t bits) {
    out = append(append(out, AS_SLICE("; ")), parameter_name(row));
    if (bits == BITS_ABSENT) {
        return out;
    }
    *out++ = '=';
    if (bits >= 10) {
        *out++ = '1';
    }
    *out++ = (char)('0' + bits % 10);
    return out;
}

size_t as_ws_extensions_write(const as_ws_deflate_params *deflate, char out[AS_WS_EXTENSION_MAX]) {
    if (!deflate->on) {
        return 0;
    }
    char *end = append(out, AS_SLICE("permessage-deflate"));
    if (deflate->server_no_takeover) {
        end = append_parameter(end, SERVER_NO_TAKEOVER, BITS_ABSENT);
    }
    if (deflate->client_no_takeover) {
        end = append_parameter(end, CLIENT_NO_TAKEOVER, BITS_ABSENT);
    }
    if (deflate->server_bits < BITS_MOST) {
        end = append_parameter(end, SERVER_BITS, deflate->server_bits);
    }
    if (deflate->client_bits < BITS_MOST) {
        end = append_parameter(end, CLIENT_BITS, deflate->client_bits);
    }
    return (size_t)(end - out);
}

/* --- Sec-WebSocket-Protocol ----------------------------------------------------------------- */

/* `*at`: the line in the upper half, the offset into its value in the lower. */
bool as_ws_next_protocol(const as_head *head, uint64_t *at, as_slice *protocol) {
    uint32_t line = (uint32_t)(*at >> 32), offset = (uint32_t)*at;
    for (; line < head->nfields; line++, offset = 0) {
        const as_field *field = &head->fields[line];
        if (field->name_id != AS_NAME_SEC_WEBSOCKET_PROTOCOL) {
            continue;
        }
        as_slice value = as_field_value(head, field);
        while (offset < value.n) {
            as_slice list = {value.p + offset, value.n - offset};
            (void)as_list_next(&list, protocol);
            offset = list.p != NULL ? (uint32_t)(list.p - value.p) : (uint32_t)value.n;
            if (protocol->n > 0) {
                *at = (uint64_t)line << 32 | offset;
                return true;
            }
        }
    }
    *at = (uint64_t)line << 32;
    return false;
}

/* RFC 6455, 4.1: tokens. */
static bool are_protocols_valid(const as_head *head) {
    uint64_t at = 0;
    as_slice protocol;
    while (as_ws_next_protocol(head, &at, &protocol)) {
        if (!as_is_token(protocol)) {
            return false;
        }
    }
    return true;
}

/* --- all of it ------------------------------------------------------------------------------ */

static bool has_body(const as_head *head) {
    return head->body == AS_BODY_CHUNKED ||
           (head->body == AS_BODY_LENGTH && head->content_length > 0);
}

as_err as_ws_handshake_read(const as_head *head, bool deflate_wanted, as_ws_handshake *out) {
    static const as_ws_deflate_params off = {0};
    as_slice version = {0}, key = {0};
    *out = (as_ws_handshake){.deflate = off};
    if (!as_slice_eq(as_head_slice(head, head->method), AS_SLICE("GET"))) {
        return AS_E_WS_METHOD;
    }
    /* 4.4: a client of another version learns which one there is, and so does one that tells none.
     */
    unsigned versions = read_single(head, AS_NAME_SEC_WEBSOCKET_VERSION, &version);
    if (versions == 0 || (versions == 1 && !as_slice_eq(version, AS_SLICE("13")))) {
        return AS_E_WS_VERSION;
    }
    if (versions > 1 || read_single(head, AS_NAME_SEC_WEBSOCKET_KEY, &key) != 1 || !is_key(key) ||
        has_body(head) || !are_protocols_valid(head)) {
        return AS_E_WS_HANDSHAKE;
    }
    as_err err = read_extensions(head, &out->deflate);
    if (!deflate_wanted || err != AS_OK) {
        out->deflate = off;
    }
    return err != AS_OK ? err : write_accept(key, out->accept);
}
