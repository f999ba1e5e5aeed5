/* What the files of the WebSocket codec share: websocket.c reads frames, ws_mask.c unmasks them,
 * ws_deflate.c has the extension. */
#ifndef AS_HTTP_WS_INTERNAL_H
#define AS_HTTP_WS_INTERNAL_H

#include "http/websocket.h"

/* RFC 6455, 5.3: XORs `n` bytes with the mask, and returns the mask for the bytes that follow. The
 * mask's first byte is the lowest in memory. */
uint32_t as__ws_unmask(char *p, size_t n, uint32_t mask);

/* Of one connection: what was said lately, on which the next message of a direction with takeover
 * may build. */
typedef struct as__ws_history {
    as_buf in, out;
} as__ws_history;

struct as_ws_env {
    as_buf_pool *pool;
    as_buf inflated, deflated; /* the last message that was */
    struct as__ws_zlib *zlib;  /* the contexts; NULL: not needed yet */
};

void as__ws_zlib_free(struct as__ws_zlib *zlib);
void as__ws_history_free(as__ws_history *history);

/* A whole message into the env's memory, at most `max` bytes. AS_E_WS_PROTOCOL, AS_E_WS_LARGE,
 * AS_E_NOMEM. `*history` is made when there is something to remember. */
as_err as__ws_inflate(as_ws_env *env, as__ws_history **history, const as_ws_deflate_params *params,
                      as_slice data, uint64_t max, as_slice *out);
as_err as__ws_deflate(as_ws_env *env, as__ws_history **history, const as_ws_deflate_params *params,
                      as_slice data, as_slice *out);

#endif
