/* TLS as a transport, by OpenSSL, and what is told of such a connection.
 *
 * The handshake is part of `read`. Until it is over, `write` and `sendfile` take nothing. */
#ifndef AS_NET_TLS_H
#define AS_NET_TLS_H

#include "http/exchange.h"
#include "net/tls_context.h"
#include "net/transport.h"

#define AS_TLS_RECORD ((size_t)16384) /* bytes of plain text in one record at most (RFC 8446, 5.1) */

typedef struct as_tls as_tls;

/* Valid as long as the as_tls. Text is NULL where there is none. */
typedef struct as_tls_info {
    uint16_t version, cipher;             /* as on the wire: 0x0304, 0x1301 */
    const char *version_name;             /* "TLSv1.3" */
    const char *cipher_name;              /* "TLS_AES_128_GCM_SHA256" */
    const char *server_cert;              /* PEM */
    char *alpn;                           /* "http/1.1" */
    char *server_name;                    /* that the client asked for */
    char **client_chain;                  /* PEM, the client's own first; it is believed */
    size_t nclient_chain;                 /* 0: it showed no certificate */
    char *client_subject, *client_issuer; /* RFC 4514 */
    char *client_serial;                  /* hexadecimal */
    char *client_start, *client_end;      /* "Feb  3 04:05:06 2031 GMT" */
} as_tls_info;

/* Takes over `fd` when it succeeds. `scratch` is AS_TLS_RECORD bytes that live as long, and that
 * connections of one loop share. AS_E_NOMEM. */
as_err as_tls_transport_init(as_transport *t, int fd, as_tls_context *context, char *scratch);
as_tls *as_tls_of(const as_transport *t);
/* The transport of the same socket without TLS, before a byte was taken. */
void as_tls_abandon(as_transport *t);
/* The client has said something. */
bool as_tls_begun(const as_tls *tls);
/* What OpenSSL says about the last error; empty: nothing. Static text. */
as_slice as_tls_failure(const as_tls *tls);

/* Made when first asked for, on the loop's thread once the handshake is over; the same then on any
 * thread. NULL: no memory. */
const as_tls_info *as_tls_describe(as_tls *tls);
/* On the loop's thread. */
as_tls *as_tls_ref(as_tls *tls);
void as_tls_unref(as_tls *tls); /* NULL: nothing */

#endif
