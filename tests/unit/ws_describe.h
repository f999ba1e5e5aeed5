/* Events of WebSocket as text, for comparing: "text Hello|ping |close 1000 bye|!1002". Bytes that
 * are not printable are \xx; long payloads are their length and a checksum. */
#ifndef AS_TESTS_WS_DESCRIBE_H
#define AS_TESTS_WS_DESCRIBE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/websocket.h"

enum { WS_SHOWN_MAX = 40 };

typedef struct ws_log {
    char text[4096];
    size_t n;
} ws_log;

static void ws_log_add(ws_log *log, const char *text) {
    size_t n = strlen(text), room = sizeof(log->text) - 1 - log->n;
    n = n < room ? n : room;
    memcpy(log->text + log->n, text, n);
    log->n += n;
    log->text[log->n] = '\0';
}

/* Fletcher's, of 16 bits. */
static unsigned ws_checksum(as_slice data) {
    unsigned a = 0, b = 0;
    for (size_t i = 0; i < data.n; i++) {
        a = (a + (unsigned char)data.p[i]) % 255;
        b = (b + a) % 255;
    }
    return b << 8 | a;
}

static void ws_log_data(ws_log *log, as_slice data) {
    char text[32];
    if (data.n > WS_SHOWN_MAX) {
        (void)snprintf(text, sizeof(text), "%zu %04x", data.n, ws_checksum(data));
        ws_log_add(log, text);
        return;
    }
    for (size_t i = 0; i < data.n; i++) {
        unsigned char c = (unsigned char)data.p[i];
        (void)snprintf(text, sizeof(text), c >= ' ' && c < 0x7f ? "%c" : "\\%02x", c);
        ws_log_add(log, text);
    }
}

static void ws_log_event(ws_log *log, const as_ws_event *event) {
    static const char *const names[] = {"nothing", "text ", "binary ", "ping ", "pong ", "close "};
    char code[32];
    ws_log_add(log, log->n > 0 ? "|" : "");
    ws_log_add(log, names[event->kind]);
    if (event->kind == AS_WS_GOT_CLOSE) {
        (void)snprintf(code, sizeof(code), "%u ", event->code);
        ws_log_add(log, code);
    }
    ws_log_data(log, event->data);
}

static void ws_log_error(ws_log *log, as_err err) {
    char text[32];
    (void)snprintf(text, sizeof(text), "%s!%u", log->n > 0 ? "|" : "", as_ws_close_code(err));
    ws_log_add(log, text);
}

/* Gives a part in memory of its own, which is gone afterwards, so that a sanitizer sees a read
 * behind it or later. */
static as_err ws_feed(as_ws *ws, as_slice part, ws_log *log) {
    char *exact = malloc(part.n > 0 ? part.n : 1);
    memcpy(exact, part.p, part.n);
    as_ws_input in = {exact, part.n};
    as_ws_event event;
    as_err err;
    while ((err = as_ws_next(ws, &in, &event)) == AS_OK && event.kind != AS_WS_NOTHING) {
        ws_log_event(log, &event);
    }
    if (err != AS_OK) {
        ws_log_error(log, err);
    } else if (in.n > 0) {
        ws_log_add(log, "|bytes are left");
    }
    free(exact);
    return err;
}

#endif
