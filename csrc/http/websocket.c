/* Frames to events (RFC 6455, sections 5 to 7).
 *
 * A frame is read in two states, its header and its payload; a message is open from its first frame
 * to its last. What is complete in the input is lent from there. What comes in parts is gathered,
 * and lent from there until the next call. */
#include <stdlib.h>

#include "base/utf8.h"
#include "http/ws_internal.h"

/* RFC 6455, 5.2. */
enum {
    FIN = 0x80,
    RSV1 = 0x40, /* RFC 7692, 6: "per-message compressed" */
    RSV2_RSV3 = 0x30,
    OPCODE = 0x0f,
    MASKED = 0x80,
    LENGTH = 0x7f,
    LENGTH_16 = 126,
    LENGTH_64 = 127,
    MASK_SIZE = 4
};

/* Parts of a message that are shorter begin with a small buffer rather than a block of the pool, so
 * that many who send a byte and wait hold little. */
#define POOLED_FROM ((uint64_t)2048)

typedef enum frame_class { RESERVED, STARTS, CONTINUES, CONTROL } frame_class;

static const uint8_t classes[OPCODE + 1] = {
    [AS_WS_CONTINUATION] = CONTINUES, [AS_WS_TEXT] = STARTS,  [AS_WS_BINARY] = STARTS,
    [AS_WS_CLOSE] = CONTROL,          [AS_WS_PING] = CONTROL, [AS_WS_PONG] = CONTROL,
};

static const uint8_t kinds[OPCODE + 1] = {
    [AS_WS_TEXT] = AS_WS_MESSAGE_TEXT, [AS_WS_BINARY] = AS_WS_MESSAGE_BINARY,
    [AS_WS_CLOSE] = AS_WS_GOT_CLOSE,   [AS_WS_PING] = AS_WS_GOT_PING,
    [AS_WS_PONG] = AS_WS_GOT_PONG,
};

typedef enum ws_state { AT_HEADER, IN_DATA, IN_CONTROL, AT_END } ws_state;

struct as_ws {
    as_ws_env *env;
    as__ws_history *history; /* NULL: none yet */
    uint8_t *part;     /* of a header, or a control frame's payload, that comes in parts; NULL:
                        * nothing is */
    as_buf message;    /* a data message that comes in parts, so far */
    uint64_t max_size; /* UINT64_MAX: no limit */
    uint64_t left;     /* bytes of the payload that have not come */
    uint32_t mask;     /* for the next of them */
    as_err error;
    as_ws_deflate_params deflate;
    uint8_t npart;
    uint8_t state;          /* ws_state */
    uint8_t opcode;         /* of the control frame */
    uint8_t message_opcode; /* of the open message; 0: none is open */
    as_utf8 text;           /* where its text ends */
    bool compressed;        /* it is */
    bool fin;               /* this frame is its last */
    bool lent;              /* `part` is, with the last event */
};

/* --- making --------------------------------------------------------------------------------- */

as_ws_env *as_ws_env_new(as_buf_pool *pool) {
    as_ws_env *env = calloc(1, sizeof(*env));
    if (env != NULL) {
        env->pool = pool;
    }
    return env;
}

void as_ws_env_free(as_ws_env *env) {
    if (env != NULL) {
        as__ws_zlib_free(env->zlib);
        as_buf_fini(&env->inflated, env->pool);
        as_buf_fini(&env->deflated, env->pool);
        free(env);
    }
}

as_ws *as_ws_new(as_ws_env *env, const as_ws_deflate_params *deflate, uint64_t max_size) {
    as_ws *ws = calloc(1, sizeof(*ws));
    if (ws != NULL) {
        ws->env = env;
        ws->deflate = *deflate;
        ws->max_size = max_size != 0 ? max_size : UINT64_MAX;
    }
    return ws;
}

static void drop_message(as_ws *ws) {
    if (ws->message.data != NULL) {
        as_buf_fini(&ws->message, ws->env->pool);
    }
}

static void drop_part(as_ws *ws) {
    if (ws->part != NULL) {
        free(ws->part);
        ws->part = NULL;
        ws->npart = 0;
        ws->lent = false;
    }
}

void as_ws_free(as_ws *ws) {
    if (ws != NULL) {
        drop_message(ws);
        drop_part(ws);
        as__ws_history_free(ws->history);
        free(ws);
    }
}

/* --- headers -------------------------------------------------------------------------------- */

/* What can be said of the first two bytes. */
static as_err check_start(const as_ws *ws, const uint8_t *header) {
    frame_class class = (frame_class)classes[header[0] & OPCODE];
    bool rsv1 = (header[0] & RSV1) != 0, compressible = class == STARTS && ws->deflate.on;
    /* 5.1: what a client sends is masked. */
    if (class == RESERVED || (header[0] & RSV2_RSV3) != 0 || (rsv1 && !compressible) ||
        (header[1] & MASKED) == 0) {
        return AS_E_WS_PROTOCOL;
    }
    if (class == CONTROL) { /* 5.5 */
        bool whole = (header[0] & FIN) != 0, small = (header[1] & LENGTH) <= AS_WS_CONTROL_MAX;
        return whole && small ? AS_OK : AS_E_WS_PROTOCOL;
    }
    bool open = ws->message_opcode != 0; /* 5.4 */
    return open == (class == CONTINUES) ? AS_OK : AS_E_WS_PROTOCOL;
}

static size_t length_size(const uint8_t *header) {
    uint8_t length = header[1] & LENGTH;
    return length == LENGTH_64 ? 8 : length == LENGTH_16 ? 2 : 0;
}

/* 5.2: in the fewest bytes that hold it, and below 2^63. */
static as_err read_length(const uint8_t *header, uint64_t *length) {
    size_t size = length_size(header);
    if (size == 0) {
        *length = header[1] & LENGTH;
        return AS_OK;
    }
    uint64_t n = 0;
    for (size_t i = 0; i < size; i++) {
        n = n << 8 | header[2 + i];
    }
    *length = n;
    uint64_t least = size == 2 ? LENGTH_16 : UINT16_MAX + 1;
    return n >= least && n <= INT64_MAX ? AS_OK : AS_E_WS_PROTOCOL;
}

/* The most bytes on the wire of a message that may be allowed: no deflater makes more than this out
 * of `max_size` bytes, since even the fixed codes (RFC 1951, 3.2.6) make nine bits of eight. */
static uint64_t wire_max(const as_ws *ws) {
    uint64_t more = ws->compressed ? ws->max_size / 8 + 64 : 0;
    return more <= UINT64_MAX - ws->max_size ? ws->max_size + more : UINT64_MAX;
}

static as_err enter_data(as_ws *ws, const uint8_t *header, uint64_t length) {
    if (ws->message_opcode == 0) {
        ws->message_opcode = header[0] & OPCODE;
        ws->compressed = (header[0] & RSV1) != 0;
        ws->text = 0;
    }
    ws->fin = (header[0] & FIN) != 0;
    ws->state = IN_DATA;
    return length <= wire_max(ws) - ws->message.len ? AS_OK : AS_E_WS_LARGE;
}

static as_err enter_payload(as_ws *ws, const uint8_t *header) {
    as_err err = read_length(header, &ws->left);
    if (err != AS_OK) {
        return err;
    }
    memcpy(&ws->mask, header + 2 + length_size(header), MASK_SIZE);
    if (classes[header[0] & OPCODE] != CONTROL) {
        return enter_data(ws, header, ws->left);
    }
    ws->opcode = header[0] & OPCODE;
    ws->state = IN_CONTROL;
    return AS_OK;
}

static void advance(as_ws_input *in, size_t n) {
    in->p += n;
    in->n -= n;
}

/* Room for all of a control frame's payload, which is more than any header. */
static as_err gather_part(as_ws *ws, as_slice part) {
    if (ws->part == NULL && (ws->part = malloc(AS_WS_CONTROL_MAX)) == NULL) {
        return AS_E_NOMEM;
    }
    if (part.n > 0) {
        memcpy(ws->part + ws->npart, part.p, part.n);
    }
    ws->npart = (uint8_t)(ws->npart + part.n);
    return AS_OK;
}

/* The first `n` bytes of a header where they are, or NULL when they are not all here; then what
 * there is of them is taken. */
static const uint8_t *look_at_header(as_ws *ws, as_ws_input *in, size_t n) {
    if (ws->npart == 0 && in->n >= n) {
        return (const uint8_t *)in->p;
    }
    if (ws->npart < n && in->n > 0) {
        size_t missing = n - ws->npart, take = in->n < missing ? in->n : missing;
        ws->error = gather_part(ws, (as_slice){in->p, take});
        advance(in, take);
    }
    return ws->error == AS_OK && ws->npart >= n ? ws->part : NULL;
}

static bool read_header(as_ws *ws, as_ws_input *in, as_ws_event *event) {
    const uint8_t *header = look_at_header(ws, in, 2);
    if (header == NULL) {
        return false;
    }
    ws->error = check_start(ws, header);
    if (ws->error != AS_OK) {
        return false;
    }
    size_t size = 2 + length_size(header) + MASK_SIZE;
    header = look_at_header(ws, in, size);
    if (header == NULL) {
        return false;
    }
    ws->error = enter_payload(ws, header);
    if (ws->npart == 0) {
        advance(in, size);
    }
    drop_part(ws);
    return true;
}

/* --- data ----------------------------------------------------------------------------------- */

/* The next bytes of a frame's payload, unmasked. */
static as_slice take_payload(as_ws *ws, as_ws_input *in) {
    as_slice part = {in->p, in->n < ws->left ? in->n : (size_t)ws->left};
    ws->mask = as__ws_unmask(in->p, part.n, ws->mask);
    ws->left -= part.n;
    advance(in, part.n);
    return part;
}

static as_err gather(as_ws *ws, as_slice part) {
    bool large = ws->message.len + part.n >= POOLED_FROM;
    return as_buf_append(&ws->message, large ? ws->env->pool : NULL, part.p, part.n);
}

static as_err finish_message(as_ws *ws, as_slice data, as_ws_event *event) {
    bool is_text = ws->message_opcode == AS_WS_TEXT;
    if (ws->compressed) {
        as_err err = as__ws_inflate(ws->env, &ws->history, &ws->deflate, data, ws->max_size, &data);
        if (err != AS_OK) {
            return err;
        }
        if (is_text && !as_utf8_feed(&ws->text, data)) {
            return AS_E_WS_UTF8;
        }
    }
    if (is_text && !as_utf8_complete(ws->text)) { /* 8.1 */
        return AS_E_WS_UTF8;
    }
    *event = (as_ws_event){.kind = (as_ws_kind)kinds[ws->message_opcode],
                           .data = data,
                           .is_ascii = is_text && as_utf8_is_ascii(ws->text)};
    ws->message_opcode = 0;
    return AS_OK;
}

static as_err take_data(as_ws *ws, as_ws_input *in, as_ws_event *event) {
    as_slice part = take_payload(ws, in);
    /* 8.1 of what is here: whoever sends what is no text learns it before the message is complete.
     */
    if (ws->message_opcode == AS_WS_TEXT && !ws->compressed && !as_utf8_feed(&ws->text, part)) {
        return AS_E_WS_UTF8;
    }
    bool last = ws->fin && ws->left == 0;
    if (!last || ws->message.len > 0) {
        as_err err = gather(ws, part);
        if (err != AS_OK) {
            return err;
        }
        part = (as_slice){ws->message.data, ws->message.len};
    }
    return last ? finish_message(ws, part, event) : AS_OK;
}

static bool read_data(as_ws *ws, as_ws_input *in, as_ws_event *event) {
    if (in->n == 0 && ws->left > 0) {
        return false;
    }
    ws->error = take_data(ws, in, event);
    if (ws->left == 0) {
        ws->state = AT_HEADER;
    }
    return true;
}

/* --- control frames -------------------------------------------------------------------------- */

/* 5.5.1, 7.4: a code and a reason, or nothing. */
static as_err read_close(as_slice payload, as_ws_event *event) {
    event->code = 1005; /* 7.4.1: no code was there */
    if (payload.n == 0) {
        return AS_OK;
    }
    if (payload.n == 1) {
        return AS_E_WS_PROTOCOL;
    }
    event->code = (unsigned)(unsigned char)payload.p[0] << 8 | (unsigned char)payload.p[1];
    event->data = (as_slice){payload.p + 2, payload.n - 2};
    if (!as_ws_close_code_valid(event->code)) {
        return AS_E_WS_PROTOCOL;
    }
    return as_utf8_valid(event->data) ? AS_OK : AS_E_WS_UTF8;
}

static as_err finish_control(as_ws *ws, as_slice payload, as_ws_event *event) {
    *event = (as_ws_event){.kind = (as_ws_kind)kinds[ws->opcode], .data = payload};
    ws->state = AT_HEADER;
    if (ws->opcode != AS_WS_CLOSE) {
        return AS_OK;
    }
    ws->state = AT_END;
    return read_close(payload, event);
}

static bool read_control(as_ws *ws, as_ws_input *in, as_ws_event *event) {
    if (in->n == 0 && ws->left > 0) {
        return false;
    }
    as_slice part = take_payload(ws, in);
    if (ws->left > 0 || ws->npart > 0) {
        ws->error = gather_part(ws, part);
        part = (as_slice){(const char *)ws->part, ws->npart};
        ws->lent = ws->left == 0;
    }
    if (ws->error == AS_OK && ws->left == 0) {
        ws->error = finish_control(ws, part, event);
    }
    return true;
}

/* --- events --------------------------------------------------------------------------------- */

/* 1.4: whatever follows a close is discarded. */
static bool read_nothing(as_ws *ws, as_ws_input *in, as_ws_event *event) {
    advance(in, in->n);
    return false;
}

/* One step further; false: more bytes are needed, or there is an error. */
typedef bool step(as_ws *ws, as_ws_input *in, as_ws_event *event);
static step *const steps[] = {
    [AT_HEADER] = read_header,
    [IN_DATA] = read_data,
    [IN_CONTROL] = read_control,
    [AT_END] = read_nothing,
};

/* What is complete has been lent with the last event. */
static void take_back(as_ws *ws) {
    if (ws->message_opcode == 0) {
        drop_message(ws);
    }
    if (ws->lent) {
        drop_part(ws);
    }
}

as_err as_ws_next(as_ws *ws, as_ws_input *in, as_ws_event *event) {
    static const as_ws_event nothing = {.kind = AS_WS_NOTHING};
    *event = nothing;
    take_back(ws);
    while (ws->error == AS_OK && event->kind == AS_WS_NOTHING && steps[ws->state](ws, in, event)) {
    }
    if (ws->error != AS_OK) {
        drop_message(ws);
        drop_part(ws);
        *event = nothing;
    }
    return ws->error;
}

unsigned as_ws_close_code(as_err err) {
    switch (err) {
    case AS_E_WS_UTF8:
        return 1007;
    case AS_E_WS_LARGE:
        return 1009;
    case AS_E_NOMEM:
        return 1011;
    default:
        return 1002;
    }
}

/* RFC 6455, 7.4.2, and what IANA has registered since. */
bool as_ws_close_code_valid(unsigned code) {
    static const struct {
        uint16_t from, to;
    } ranges[] = {{1000, 1003}, {1007, 1014}, {3000, 4999}};
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        if (code >= ranges[i].from && code <= ranges[i].to) {
            return true;
        }
    }
    return false;
}

/* --- what leaves ---------------------------------------------------------------------------- */

static size_t write_big_endian(char *out, size_t size, uint64_t n) {
    for (size_t i = size; i-- > 0; n >>= 8) {
        out[i] = (char)(n & 0xff);
    }
    return size;
}

size_t as_ws_frame_header(char out[AS_WS_FRAME_HEADER_MAX], as_ws_opcode opcode, bool compressed,
                          uint64_t n) {
    out[0] = (char)(FIN | (compressed ? RSV1 : 0) | opcode);
    if (n < LENGTH_16) {
        out[1] = (char)n;
        return 2;
    }
    bool is_short = n <= UINT16_MAX;
    out[1] = is_short ? LENGTH_16 : LENGTH_64;
    return 2 + write_big_endian(out + 2, is_short ? 2 : 8, n);
}

/* Below this a message and its TCP/IP headers are one small packet either way. */
enum { DEFLATED_FROM = 64 };

bool as_ws_deflates(const as_ws *ws, size_t n) {
    return ws->deflate.on && n >= DEFLATED_FROM;
}

as_err as_ws_deflate(as_ws *ws, as_slice data, as_slice *out) {
    return as__ws_deflate(ws->env, &ws->history, &ws->deflate, data, out);
}
