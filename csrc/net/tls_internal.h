/* The files of TLS as they see one another: tls_context.c (certificates and rules), tls_files.c
 * (reading them), tls.c (the transport), tls_info.c (what is told of a connection). */
#ifndef AS_NET_TLS_INTERNAL_H
#define AS_NET_TLS_INTERNAL_H

#include <openssl/ssl.h>

#include "net/tls.h"
#include "net/tls_context.h"

/* --- tls_files.c ------------------------------------------------------------------------------ */

/* A certificate with its key, as they are in files. */
typedef struct as_tls_pair {
    X509 *leaf;
    STACK_OF(X509) * chain; /* NULL: none */
    EVP_PKEY *key;
} as_tls_pair;

/* All of these: AS_E_TLS_SETTINGS with `why`, or AS_E_NOMEM. `out` is emptied by
 * as__tls_pair_fini in any case. */
as_err as__tls_pair_read(const char *certfile, const char *keyfile, as_slice password,
                         as_tls_pair *out, char why[AS_TLS_WHY]);
void as__tls_pair_fini(as_tls_pair *pair);
/* Certificates of a file into `store`, their names into `names`, and both into `digest`. */
as_err as__tls_read_authorities(const char *path, X509_STORE *store, STACK_OF(X509_NAME) * names,
                                EVP_MD_CTX *digest, char why[AS_TLS_WHY]);
/* "path: reason", the reason from OpenSSL's queue of errors, which is empty then. */
as_err as__tls_explain(char why[AS_TLS_WHY], const char *path, const char *what);
/* What a certificate is good for, and until when. */
as_err as__tls_describe_certificate(X509 *leaf, as_tls_certificate *out);
void as__tls_certificate_fini(as_tls_certificate *certificate);
/* Of what a certificate shows: text that the caller frees; NULL: no memory. */
char *as__tls_pem(X509 *certificate);

/* --- tls_context.c ---------------------------------------------------------------------------- */

SSL_CTX *as__tls_context_default(const as_tls_context *context);
/* The certificate of a connection. */
const as_tls_certificate *as__tls_certificate_of(const SSL *ssl);

/* --- tls.c ------------------------------------------------------------------------------------ */

/* A TLS connection. What is told of it may outlive it: `refs` are the transport's one, and those of
 * as_tls_ref. */
struct as_tls {
    SSL *ssl; /* NULL: closed */
    as_tls_context *context;
    as_tls_info *info;   /* NULL: nobody asked */
    char *scratch;       /* AS_TLS_RECORD bytes, of the loop */
    const char *failure; /* OpenSSL's reason; NULL: none */
    unsigned refs;
    as_err broken; /* why nothing can be read or written any more */
    uint8_t spare; /* records without data that may still come */
    bool begun;    /* the first byte was looked at */
    bool closing;  /* our close_notify waits until the socket takes it */
    bool finished; /* it was sent, or waits */
};

/* --- tls_info.c ------------------------------------------------------------------------------- */

as_tls_info *as__tls_info_new(const SSL *ssl); /* NULL: no memory */
void as__tls_info_free(as_tls_info *info);

#endif
