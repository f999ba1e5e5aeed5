/* The opening handshake of WebSocket, through the whole of HTTP/1: what is agreed on is what was
 * offered and what this server can do, the answer is made of valid fields, and cutting the request
 * changes nothing.
 *
 * The first byte chooses whether deflating is wanted; the rest are field lines. */
#include "connection.h"
#include "http/ws_handshake.h"
#include "reference.h"

typedef struct world {
    connection c;
    bool wanted;
    unsigned requests, handshakes;
    as_buf log;
} world;

/* --- what was agreed on ---------------------------------------------------------------------- */

/* The server's answer is one that a client that offered everything may get. */
static void check_extension(const as_ws_deflate_params *agreed) {
    char text[AS_WS_EXTENSION_MAX];
    size_t n = as_ws_extensions_write(agreed, text);
    MUST(n <= sizeof(text) && (n > 0) == agreed->on);
    if (!agreed->on) {
        return;
    }
    MUST(agreed->server_bits >= 9 && agreed->server_bits <= 15);
    MUST(agreed->client_bits >= 8 && agreed->client_bits <= 15);
    static const char start[] = "GET / HTTP/1.1", key[] = "dGhlIHNhbXBsZSBub25jZQ==";
    char bytes[300];
    as_field fields[3] = {
        {.name_id = AS_NAME_SEC_WEBSOCKET_EXTENSIONS, .value_off = 20},
        {.name_id = AS_NAME_SEC_WEBSOCKET_KEY, .value_off = 200, .value_len = 24},
        {.name_id = AS_NAME_SEC_WEBSOCKET_VERSION, .value_off = 230, .value_len = 2}};
    memcpy(bytes, start, sizeof(start));
    memcpy(bytes + 20, text, n);
    memcpy(bytes + 200, key, sizeof(key));
    memcpy(bytes + 230, "13", 2);
    fields[0].value_len = (uint32_t)n;
    as_head head = {.base = bytes, .method = {0, 3}, .nfields = 3, .fields = fields, .minor = 1};
    as_ws_handshake again;
    MUST(as_ws_handshake_read(&head, true, &again) == AS_OK);
    MUST(memcmp(again.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 28) == 0); /* RFC 6455, 1.3 */
    MUST(again.deflate.on && again.deflate.server_no_takeover == agreed->server_no_takeover &&
         again.deflate.client_no_takeover == agreed->client_no_takeover);
    MUST(agreed->server_bits == 15 || again.deflate.server_bits == agreed->server_bits);
    MUST(agreed->client_bits == 15 || again.deflate.client_bits == agreed->client_bits);
}

typedef struct wanted_params {
    bool server_no_takeover, client_no_takeover;
    unsigned server_bits, client_bits; /* 0: not offered */
} wanted_params;

static as_slice trimmed_until(as_slice *rest, char c) {
    const char *end = memchr(rest->p, c, rest->n);
    as_slice part = {rest->p, end != NULL ? (size_t)(end - rest->p) : rest->n};
    size_t n = part.n + (end != NULL);
    *rest = (as_slice){rest->p + n, rest->n - n};
    return as_trim(part);
}

/* 8 to 15, once. */
static bool want_bits(as_slice value, unsigned *bits) {
    bool is_one = value.n == 1 && (value.p[0] == '8' || value.p[0] == '9');
    bool is_two = value.n == 2 && value.p[0] == '1' && value.p[1] >= '0' && value.p[1] <= '5';
    bool first = *bits == 0;
    *bits = is_one ? (unsigned)(value.p[0] - '0') : is_two ? 10 + (unsigned)(value.p[1] - '0') : 0;
    return first && (is_one || is_two);
}

static bool want(bool *flag) {
    bool first = !*flag;
    *flag = true;
    return first;
}

/* RFC 7692, 7.1; false: it is another extension, or has to be declined. */
static bool read_wanted(as_slice offer, wanted_params *w) {
    *w = (wanted_params){0};
    bool fine = as_slice_ieq(trimmed_until(&offer, ';'), AS_SLICE("permessage-deflate"));
    while (fine && offer.n > 0) {
        as_slice value = trimmed_until(&offer, ';');
        bool valued = memchr(value.p, '=', value.n) != NULL;
        as_slice name = trimmed_until(&value, '=');
        if (as_slice_ieq(name, AS_SLICE("server_no_context_takeover"))) {
            fine = !valued && want(&w->server_no_takeover);
        } else if (as_slice_ieq(name, AS_SLICE("client_no_context_takeover"))) {
            fine = !valued && want(&w->client_no_takeover);
        } else if (as_slice_ieq(name, AS_SLICE("client_max_window_bits"))) {
            fine = want_bits(valued ? value : AS_SLICE("15"), &w->client_bits);
        } else {
            fine = as_slice_ieq(name, AS_SLICE("server_max_window_bits")) &&
                   want_bits(value, &w->server_bits);
        }
    }
    return fine && w->server_bits != 8; /* zlib deflates with no such window */
}

static bool is_answer_to(const as_ws_deflate_params *agreed, const wanted_params *w) {
    return agreed->server_no_takeover == w->server_no_takeover &&
           agreed->client_no_takeover == w->client_no_takeover &&
           agreed->server_bits <= (w->server_bits > 0 ? w->server_bits : 15) &&
           agreed->client_bits <= (w->client_bits > 0 ? w->client_bits : 15) &&
           (w->client_bits > 0 || agreed->client_bits == 15); /* 7.1.2.2 */
}

/* What is agreed on answers the first offer that can be taken, and if there is one, it is taken. In
 * quotes there may be what separates: that is left to others. */
static void check_offers(const as_head *head, const as_ws_deflate_params *agreed) {
    bool taken = false;
    for (uint32_t i = 0; i < head->nfields; i++) {
        as_slice rest = as_field_value(head, &head->fields[i]);
        if (head->fields[i].name_id != AS_NAME_SEC_WEBSOCKET_EXTENSIONS) {
            continue;
        }
        if (memchr(rest.p, '"', rest.n) != NULL) {
            return;
        }
        while (!taken && rest.n > 0) {
            wanted_params w;
            taken = read_wanted(trimmed_until(&rest, ','), &w);
            MUST(!taken || (agreed->on && is_answer_to(agreed, &w)));
        }
    }
    MUST(taken == agreed->on);
}

static void check_accept(const char *accept) {
    for (size_t i = 0; i < 27; i++) {
        char c = accept[i];
        MUST((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
             c == '+' || c == '/');
    }
    MUST(accept[27] == '=');
}

static void list_protocols(world *w, const as_head *head) {
    uint64_t at = 0;
    as_slice protocol;
    while (as_ws_next_protocol(head, &at, &protocol)) {
        MUST(as_is_token(protocol));
        put_slice(&w->log, protocol);
        put_text(&w->log, "\n");
    }
}

static void upgrade(as_exchange *ex, const as_ws_handshake *shake) {
    char text[AS_WS_EXTENSION_MAX];
    as_slice pairs[6] = {AS_SLICE("upgrade"),
                         AS_SLICE("websocket"),
                         AS_SLICE("sec-websocket-accept"),
                         {shake->accept, 28}};
    size_t n = as_ws_extensions_write(&shake->deflate, text);
    pairs[4] = AS_SLICE("sec-websocket-extensions");
    pairs[5] = (as_slice){text, n};
    MUST(as_exchange_upgrade(ex, pairs, n > 0 ? 6 : 4) == AS_OK);
    MUST(as_exchange_end(ex) == AS_OK);
}

static void on_request(void *ctx, as_exchange *ex, as_slice body) {
    world *w = ctx;
    as_ws_handshake shake;
    (void)body;
    if (w->requests++ > 0 || !as_ws_is_asked_for(ex->head)) {
        as_exchange_release(ex);
        return;
    }
    as_err err = as_ws_handshake_read(ex->head, w->wanted, &shake);
    put_number(&w->log, err);
    if (err == AS_OK) {
        w->handshakes++;
        MUST(w->wanted || !shake.deflate.on);
        check_accept(shake.accept);
        check_extension(&shake.deflate);
        if (w->wanted) {
            check_offers(ex->head, &shake.deflate);
        }
        put(&w->log, shake.accept, 28);
        put_number(&w->log, shake.deflate.on);
        put_number(&w->log, shake.deflate.server_bits * 100 + shake.deflate.client_bits);
        list_protocols(w, ex->head);
        upgrade(ex, &shake);
    } else {
        MUST(err == AS_E_WS_METHOD || err == AS_E_WS_VERSION || err == AS_E_WS_HANDSHAKE);
        MUST(as_exchange_refuse(ex, err) == AS_OK);
    }
    as_exchange_release(ex);
}

/* --- runs ----------------------------------------------------------------------------------- */

static void check_output(const world *w) {
    reference_response response;
    as_slice out = logged(&w->c.out);
    if (out.n > 0) {
        MUST(reference_read_response(out, false, false, &response) == READ_ALL);
        MUST(response.size == out.n);
        MUST(response.status == (w->handshakes > 0 ? 101 : response.status));
        MUST(w->handshakes > 0 || response.status >= 400);
        reference_response_fini(&response);
    }
}

static world *run(bool wanted, as_slice request, uint32_t cut) {
    static const as_handlers handlers = {.on_request = on_request};
    world *w = calloc(1, sizeof(*w));
    MUST(w != NULL);
    connection_init(&w->c, &handlers);
    w->wanted = wanted;
    connection_feed(&w->c, request, cut, false);
    check_output(w);
    return w;
}

static void end(world *w) {
    connection_fini(&w->c);
    as_buf_fini(&w->log, NULL);
    free(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) {
        return 0;
    }
    static const char *const firsts[] = {
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate; ",
        "",
    };
    as_buf request = {0};
    put_text(&request, firsts[data[0] >> 1 & 3]);
    put(&request, data + 1, size - 1);
    put_text(&request, "\r\n\r\n");
    bool wanted = (data[0] & 1) == 0;
    world *whole = run(wanted, logged(&request), WHOLE),
          *cut = run(wanted, logged(&request), BYTES);
    must_agree("handshakes, whole and cut,", &whole->log, &cut->log);
    end(whole);
    end(cut);
    as_buf_fini(&request, NULL);
    return 0;
}
