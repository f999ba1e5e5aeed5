/* The field names that the server knows: one table. Requests carry the row's number, so that
 * gateways index their own tables (Python strings, environ keys) by it and never compare names. */
#ifndef AS_HTTP_NAMES_H
#define AS_HTTP_NAMES_H

#include <stdint.h>

#include "base/slice.h"

/* X(ENUM, "lower-case-name") */
#define AS_NAMES(X)                                                                                    \
    X(HOST, "host")                                                                                    \
    X(USER_AGENT, "user-agent")                                                                        \
    X(ACCEPT, "accept")                                                                                \
    X(ACCEPT_ENCODING, "accept-encoding")                                                              \
    X(ACCEPT_LANGUAGE, "accept-language")                                                              \
    X(ACCEPT_CHARSET, "accept-charset")                                                                \
    X(CONNECTION, "connection")                                                                        \
    X(CONTENT_LENGTH, "content-length")                                                                \
    X(CONTENT_TYPE, "content-type")                                                                    \
    X(CONTENT_ENCODING, "content-encoding")                                                            \
    X(CONTENT_DISPOSITION, "content-disposition")                                                      \
    X(TRANSFER_ENCODING, "transfer-encoding")                                                          \
    X(TRAILER, "trailer")                                                                              \
    X(TE, "te")                                                                                        \
    X(UPGRADE, "upgrade")                                                                              \
    X(UPGRADE_INSECURE_REQUESTS, "upgrade-insecure-requests")                                          \
    X(KEEP_ALIVE, "keep-alive")                                                                        \
    X(EXPECT, "expect")                                                                                \
    X(COOKIE, "cookie")                                                                                \
    X(AUTHORIZATION, "authorization")                                                                  \
    X(PROXY, "proxy")                                                                                  \
    X(PROXY_AUTHORIZATION, "proxy-authorization")                                                      \
    X(PROXY_CONNECTION, "proxy-connection")                                                            \
    X(CACHE_CONTROL, "cache-control")                                                                  \
    X(PRAGMA, "pragma")                                                                                \
    X(REFERER, "referer")                                                                              \
    X(ORIGIN, "origin")                                                                                \
    X(DNT, "dnt")                                                                                      \
    X(RANGE, "range")                                                                                  \
    X(IF_MATCH, "if-match")                                                                            \
    X(IF_NONE_MATCH, "if-none-match")                                                                  \
    X(IF_MODIFIED_SINCE, "if-modified-since")                                                          \
    X(IF_UNMODIFIED_SINCE, "if-unmodified-since")                                                      \
    X(IF_RANGE, "if-range")                                                                            \
    X(SEC_CH_UA, "sec-ch-ua")                                                                          \
    X(SEC_CH_UA_MOBILE, "sec-ch-ua-mobile")                                                            \
    X(SEC_CH_UA_PLATFORM, "sec-ch-ua-platform")                                                        \
    X(SEC_FETCH_SITE, "sec-fetch-site")                                                                \
    X(SEC_FETCH_MODE, "sec-fetch-mode")                                                                \
    X(SEC_FETCH_USER, "sec-fetch-user")                                                                \
    X(SEC_FETCH_DEST, "sec-fetch-dest")                                                                \
    X(SEC_WEBSOCKET_KEY, "sec-websocket-key")                                                          \
    X(SEC_WEBSOCKET_VERSION, "sec-websocket-version")                                                  \
    X(SEC_WEBSOCKET_PROTOCOL, "sec-websocket-protocol")                                                \
    X(SEC_WEBSOCKET_EXTENSIONS, "sec-websocket-extensions")                                            \
    X(PRIORITY, "priority")                                                                            \
    X(FORWARDED, "forwarded")                                                                          \
    X(X_FORWARDED_FOR, "x-forwarded-for")                                                              \
    X(X_FORWARDED_PROTO, "x-forwarded-proto")                                                          \
    X(X_FORWARDED_HOST, "x-forwarded-host")                                                            \
    X(X_FORWARDED_PORT, "x-forwarded-port")                                                            \
    X(X_FORWARDED_PREFIX, "x-forwarded-prefix")                                                        \
    X(X_REAL_IP, "x-real-ip")                                                                          \
    X(X_REQUEST_ID, "x-request-id")                                                                    \
    X(X_REQUESTED_WITH, "x-requested-with")                                                            \
    X(X_CSRF_TOKEN, "x-csrf-token")                                                                    \
    X(TRACEPARENT, "traceparent")                                                                      \
    X(TRACESTATE, "tracestate")                                                                        \
    X(VIA, "via")                                                                                      \
    X(DATE, "date")                                                                                    \
    X(SERVER, "server")

/* Fields whose values are kept for the next request. Left out: what differs with every request, and
 * what should not stay in memory longer than needed (Cookie, Authorization). */
#define AS_REPEATED_NAMES(X)                                                                           \
    X(HOST) X(USER_AGENT) X(ACCEPT) X(ACCEPT_ENCODING) X(ACCEPT_LANGUAGE) X(ACCEPT_CHARSET)             \
    X(CONNECTION) X(CONTENT_TYPE) X(CACHE_CONTROL) X(PRAGMA) X(ORIGIN) X(DNT)                           \
    X(UPGRADE_INSECURE_REQUESTS) X(SEC_CH_UA) X(SEC_CH_UA_MOBILE) X(SEC_CH_UA_PLATFORM)                 \
    X(SEC_FETCH_SITE) X(SEC_FETCH_MODE) X(SEC_FETCH_USER) X(SEC_FETCH_DEST) X(PRIORITY)                 \
    X(X_FORWARDED_PROTO) X(X_FORWARDED_HOST) X(X_FORWARDED_PORT) X(X_REQUESTED_WITH) X(VIA)

typedef enum as_name_id {
    AS_NAME_OTHER,
#define X(id, text) AS_NAME_##id,
    AS_NAMES(X)
#undef X
        AS_NAME_COUNT
} as_name_id;

/* The row of a field name in any case; AS_NAME_OTHER when it has none. */
as_name_id as_name_find(const char *p, size_t n);
/* The lower-case name of a row; an empty slice for AS_NAME_OTHER. */
as_slice as_name_text(as_name_id id);

#endif
