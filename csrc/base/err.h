/* Every way in which the inner rings can fail: one table that gives the code, the HTTP status that
 * answers it (0: no answer, the connection is only closed) and the words for the log.
 *
 * Functions return `as_err`: 0 for success, else a negative code of this table. */
#ifndef AS_BASE_ERR_H
#define AS_BASE_ERR_H

#define AS_ERRORS(X)                                                                                   \
    /* our side */                                                                                     \
    X(NOMEM, 503, "out of memory")                                                                     \
    X(CLOSED, 0, "the client has left")                                                                \
    X(RESET, 0, "connection reset by the client")                                                      \
    X(IO, 0, "input or output error")                                                                  \
    /* the request line */                                                                             \
    X(METHOD, 501, "unknown method")                                                                   \
    X(TARGET, 400, "invalid request target")                                                           \
    X(TARGET_LONG, 414, "request line too long")                                                       \
    X(REQUEST_LINE, 400, "invalid request line")                                                       \
    X(VERSION, 505, "HTTP version not supported")                                                      \
    /* field lines */                                                                                  \
    X(FIELD, 400, "invalid field line")                                                                \
    X(HEAD_LARGE, 431, "request head too large")                                                       \
    X(FIELDS_MANY, 431, "too many field lines")                                                        \
    X(FIELD_LARGE, 431, "field line too long")                                                         \
    X(HOST_MISSING, 400, "no Host field")                                                              \
    X(HOST_MANY, 400, "more than one Host field")                                                      \
    X(HOST, 400, "invalid Host field")                                                                 \
    X(EXPECT, 417, "unknown expectation")                                                              \
    X(SCHEME, 400, "fields of a proxy contradict each other about the scheme")                         \
    /* framing */                                                                                      \
    X(LENGTH, 400, "invalid Content-Length")                                                           \
    X(LENGTH_AND_CODING, 400, "Content-Length with Transfer-Encoding")                                 \
    X(CODING, 400, "invalid Transfer-Encoding")                                                        \
    X(CODING_UNKNOWN, 501, "transfer coding not implemented")                                          \
    X(CHUNK, 400, "invalid chunk")                                                                     \
    X(TRAILER, 400, "invalid trailer section")                                                         \
    X(BODY_LARGE, 413, "request body too large")                                                       \
    X(TRUNCATED, 400, "connection ended inside a request")                                             \
    /* in front of the first request */                                                                \
    X(PROXY_PEER, 0, "not trusted to send a header of the PROXY protocol")                             \
    X(PROXY_MISSING, 0, "no header of the PROXY protocol")                                             \
    X(PROXY_VERSION, 0, "header of a version of the PROXY protocol that is not expected")              \
    X(PROXY_HEADER, 0, "invalid header of the PROXY protocol")                                         \
    X(PROXY_LARGE, 0, "header of the PROXY protocol too large")                                        \
    X(PROXY_CHECKSUM, 0, "wrong checksum in a header of the PROXY protocol")                           \
    X(PROXY_TRUNCATED, 0, "connection ended, or was silent, inside a header of the PROXY protocol")    \
    /* WebSocket: the handshake, then frames */                                                        \
    X(WS_METHOD, 405, "a WebSocket handshake is a GET")                                                \
    X(WS_VERSION, 426, "version of WebSocket not supported")                                           \
    X(WS_HANDSHAKE, 400, "invalid WebSocket handshake")                                                \
    X(WS_PROTOCOL, 0, "invalid WebSocket frame")                                                       \
    X(WS_UTF8, 0, "WebSocket text is not UTF-8")                                                       \
    X(WS_LARGE, 0, "WebSocket message too large")                                                      \
    X(WS_FIELD, 500, "this field of the handshake is the server's to send")                            \
    /* TLS */                                                                                          \
    X(TLS_SETTINGS, 0, "unusable TLS settings")                                                        \
    X(TLS_PLAIN, 400, "plain HTTP request sent to a TLS port")                                         \
    X(TLS_NONE, 0, "what came is no TLS handshake")                                                    \
    X(TLS_HANDSHAKE, 0, "TLS handshake failed")                                                        \
    X(TLS_RECORD, 0, "broken TLS record")                                                              \
    X(TLS_FLOOD, 0, "too many TLS records without data")                                               \
    X(TLS_CROWD, 0, "more TLS handshakes at once than limit_tls_handshakes")                           \
    /* time and load */                                                                                \
    X(TIMEOUT_HANDSHAKE, 0, "TLS handshake not complete in time")                                      \
    X(TIMEOUT_HEAD, 408, "request head not complete in time")                                          \
    X(TIMEOUT_BODY, 408, "request body stalled, or too slow")                                          \
    X(TIMEOUT_WRITE, 0, "client stopped reading the response, or is too slow")                         \
    X(OVERLOADED, 503, "too many requests in flight")                                                  \
    X(SHUTDOWN, 503, "server is shutting down")                                                        \
    X(SPOOL_FULL, 503, "no room for the request body beside others")                                   \
    X(SPOOL_LARGE, 413, "request body too large to be kept")                                           \
    /* what an application may do wrong with a response */                                             \
    X(APP, 500, "the application failed")                                                              \
    X(RESPONSE_STATE, 500, "call not allowed in this state of the response")                           \
    X(RESPONSE_STATUS, 500, "status is not a number from 200 to 999")                                  \
    X(RESPONSE_NAME, 500, "field name is not a token")                                                 \
    X(RESPONSE_VALUE, 500, "field value has CR, LF or NUL, or space at an end")                        \
    X(RESPONSE_LENGTH, 500, "invalid or repeated Content-Length")                                      \
    X(RESPONSE_LONG, 500, "more body than Content-Length")                                             \
    X(RESPONSE_SHORT, 500, "less body than Content-Length")

enum as_err_index {
    AS_ERR_INDEX_OK,
#define X(name, status, text) AS_ERR_INDEX_##name,
    AS_ERRORS(X)
#undef X
};

typedef enum as_err {
    AS_OK = 0,
#define X(name, status, text) AS_E_##name = -AS_ERR_INDEX_##name,
    AS_ERRORS(X)
#undef X
} as_err;

/* The HTTP status that answers `err`; 0 where none does. */
unsigned as_err_status(as_err err);
/* A short English text, never NULL. */
const char *as_err_text(as_err err);

#endif
