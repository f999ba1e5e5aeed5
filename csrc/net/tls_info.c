/* What is told of a TLS connection: copies, which need no OpenSSL any more once they are made. */
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/x509.h>

#include "net/tls_internal.h"

/* The text that `write` makes of a certificate; NULL: no memory. */
static char *text_of(X509 *one, int (*write)(BIO *bio, X509 *one)) {
    BIO *bio = BIO_new(BIO_s_mem());
    char *bytes, *text = NULL;
    if (bio != NULL && write(bio, one) >= 0) {
        long n = BIO_get_mem_data(bio, &bytes);
        text = malloc((size_t)n + 1);
        if (text != NULL) {
            memcpy(text, bytes, (size_t)n);
            text[n] = '\0';
        }
    }
    BIO_free(bio);
    return text;
}

/* RFC 4514, in ASCII: everything else is escaped, so that it means the same in every encoding. */
static int write_subject(BIO *bio, X509 *one) {
    return X509_NAME_print_ex(bio, X509_get_subject_name(one), 0, XN_FLAG_RFC2253);
}

static int write_issuer(BIO *bio, X509 *one) {
    return X509_NAME_print_ex(bio, X509_get_issuer_name(one), 0, XN_FLAG_RFC2253);
}

static int write_serial(BIO *bio, X509 *one) {
    return i2a_ASN1_INTEGER(bio, X509_get0_serialNumber(one));
}

static int write_start(BIO *bio, X509 *one) {
    return ASN1_TIME_print(bio, X509_get0_notBefore(one));
}

static int write_end(BIO *bio, X509 *one) {
    return ASN1_TIME_print(bio, X509_get0_notAfter(one));
}

static bool describe_client(as_tls_info *info, X509 *client) {
    info->client_subject = text_of(client, write_subject);
    info->client_issuer = text_of(client, write_issuer);
    info->client_serial = text_of(client, write_serial);
    info->client_start = text_of(client, write_start);
    info->client_end = text_of(client, write_end);
    return info->client_subject != NULL && info->client_issuer != NULL &&
           info->client_serial != NULL && info->client_start != NULL && info->client_end != NULL;
}

static bool add_client(as_tls_info *info, X509 *one) {
    char *pem = as__tls_pem(one);
    if (pem != NULL) {
        info->client_chain[info->nclient_chain++] = pem;
    }
    return pem != NULL;
}

/* On the server's side OpenSSL's chain begins behind the client's own certificate; a session that
 * was taken up again has no chain. */
static bool read_client(as_tls_info *info, const SSL *ssl) {
    X509 *client = SSL_get0_peer_certificate(ssl);
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl);
    int n = sk_X509_num(chain) > 0 ? sk_X509_num(chain) : 0;
    if (client == NULL || SSL_get_verify_result(ssl) != X509_V_OK) {
        return true; /* with one that is not believed there is no handshake */
    }
    info->client_chain = calloc((size_t)n + 1, sizeof(*info->client_chain));
    bool good = info->client_chain != NULL && add_client(info, client);
    for (int i = 0; good && i < n; i++) {
        good = add_client(info, sk_X509_value(chain, i));
    }
    return good && describe_client(info, client);
}

/* NULL stays NULL. */
static bool copy(char **out, const char *text, size_t n) {
    *out = text != NULL && n > 0 ? strndup(text, n) : NULL;
    return text == NULL || n == 0 || *out != NULL;
}

as_tls_info *as__tls_info_new(const SSL *ssl) {
    as_tls_info *info = calloc(1, sizeof(*info));
    if (info == NULL) {
        return NULL;
    }
    const SSL_CIPHER *cipher = SSL_get_current_cipher(ssl);
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    const unsigned char *alpn;
    unsigned alpn_len;
    SSL_get0_alpn_selected(ssl, &alpn, &alpn_len);
    info->version = (uint16_t)SSL_version(ssl);
    info->version_name = SSL_get_version(ssl);
    info->cipher = cipher != NULL ? SSL_CIPHER_get_protocol_id(cipher) : 0;
    info->cipher_name = SSL_CIPHER_get_name(cipher);
    info->server_cert = as__tls_certificate_of(ssl)->pem;
    if (!copy(&info->alpn, (const char *)alpn, alpn_len) ||
        !copy(&info->server_name, name, name != NULL ? strlen(name) : 0) ||
        !read_client(info, ssl)) {
        as__tls_info_free(info);
        info = NULL;
    }
    ERR_clear_error();
    return info;
}

void as__tls_info_free(as_tls_info *info) {
    if (info == NULL) {
        return;
    }
    for (size_t i = 0; i < info->nclient_chain; i++) {
        free(info->client_chain[i]);
    }
    char *texts[] = {info->alpn,          info->server_name,   info->client_subject,
                     info->client_issuer, info->client_serial, info->client_start,
                     info->client_end};
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        free(texts[i]);
    }
    free(info->client_chain);
    free(info);
}
