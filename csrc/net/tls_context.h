/* What TLS connections of a server share: certificates, keys and rules, read from files.
 *
 * A context never changes. When its files do, another one is made from the same settings, and takes
 * its place for new connections; those that run keep theirs. Knows no sockets.
 *
 * Owner: shared (ref, unref), also between threads. */
#ifndef AS_NET_TLS_CONTEXT_H
#define AS_NET_TLS_CONTEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

typedef struct as_tls_context as_tls_context;

#define AS_TLS_TICKET_KEY ((size_t)80) /* bytes: name, secret of the MAC, secret of the cipher */
#define AS_TLS_WHY ((size_t)512)       /* bytes of a line that tells why there is no context */
#define AS_TLS_1_2 0x0303u
#define AS_TLS_1_3 0x0304u

typedef enum as_tls_verify {
    AS_TLS_VERIFY_NONE,     /* clients are not asked for a certificate */
    AS_TLS_VERIFY_OPTIONAL, /* one that they show must be good */
    AS_TLS_VERIFY_REQUIRED
} as_tls_verify;

/* All is copied. Files are PEM; what may be missing is NULL or empty. */
typedef struct as_tls_settings {
    const char *certfile; /* the certificate, then its chain */
    const char *keyfile;  /* NULL: the key is in `certfile` */
    as_slice password;    /* of encrypted keys; `p` NULL: none */
    const char *ca_certs; /* who may have signed clients' certificates */
    as_tls_verify verify;
    const char *ciphers;  /* as OpenSSL spells them; NULL: ECDHE with AEAD */
    unsigned min_version; /* AS_TLS_1_2 or AS_TLS_1_3 */
    const char *sni_dir;  /* more pairs: NAME.crt, .pem or .cer with NAME.key, or both in one */
    const unsigned char *ticket_key; /* what the workers of a server share; NULL: of its own */
    as_slice alpn; /* as on the wire: length, name …; the first is liked best; empty: no ALPN */
    uint32_t reload_interval; /* milliseconds between two looks at the files; 0: none */
} as_tls_settings;

/* Where a certificate that is in use comes from. */
typedef struct as_tls_certificate {
    char *path;
    char **names; /* it is good for these: host names, also "*.example.com", and addresses */
    size_t nnames;
    char not_after[24]; /* "2031-02-03T04:05:06Z" */
    char *pem;          /* without its chain */
    struct ssl_ctx_st *ctx;
} as_tls_certificate;

/* AS_E_TLS_SETTINGS, with `why` in one line that names the file, or AS_E_NOMEM. */
as_err as_tls_context_new(const as_tls_settings *settings, as_tls_context **out,
                          char why[AS_TLS_WHY]);
/* The same again from the files as they are now. */
as_err as_tls_context_again(const as_tls_context *context, as_tls_context **out,
                            char why[AS_TLS_WHY]);
as_tls_context *as_tls_context_ref(as_tls_context *context);
void as_tls_context_unref(as_tls_context *context); /* NULL: nothing */

/* "3.0.19": the library that runs. */
const char *as_tls_library(void);

/* The files, or the folder of more, differ from what was seen when it was made, or by the last call
 * of this: each change is told once. One thread calls it. */
bool as_tls_context_changed(as_tls_context *context);
uint32_t as_tls_context_interval(const as_tls_context *context);

/* The default certificate is the first. */
const as_tls_certificate *as_tls_context_certificates(const as_tls_context *context, size_t *n);
/* Pairs of the folder that cannot be used, a line for each; "" where there are none. */
const char *as_tls_context_warnings(const as_tls_context *context);

#endif
