/* Certificates and keys from files. What is wrong with one is told in a line for the user, not in
 * OpenSSL's words alone. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "net/tls_internal.h"

#define FILE_MAX ((size_t)16 * 1024 * 1024) /* bytes; nobody has such a file by intention */

static as_err no(char why[AS_TLS_WHY], const char *path, const char *reason) {
    (void)snprintf(why, AS_TLS_WHY, "%s: %s", path, reason);
    ERR_clear_error();
    return AS_E_TLS_SETTINGS;
}

as_err as__tls_explain(char why[AS_TLS_WHY], const char *path, const char *what) {
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    char text[256];
    (void)snprintf(text, sizeof(text), "%s: %s", what, reason != NULL ? reason : "unknown reason");
    return no(why, path, text);
}

/* --- reading ---------------------------------------------------------------------------------- */

/* All of a file, whose memory is the caller's to wipe and free. */
static as_err read_file(const char *path, char **data, size_t *n, char why[AS_TLS_WHY]) {
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return no(why, path, strerror(errno));
    }
    as_err err = AS_OK;
    size_t cap = 0, got;
    *data = NULL;
    *n = 0;
    do {
        cap += 64 * 1024;
        char *more = realloc(*data, cap);
        if (more == NULL) {
            err = AS_E_NOMEM;
            break;
        }
        *data = more;
        errno = 0;
        got = fread(*data + *n, 1, cap - *n, file);
        *n += got;
    } while (*n == cap && cap < FILE_MAX);
    if (err == AS_OK && ferror(file)) {
        err = no(why, path, strerror(errno));
    } else if (err == AS_OK && *n == cap) {
        err = no(why, path, "too large");
    }
    (void)fclose(file);
    if (err != AS_OK) {
        free(*data);
        *data = NULL;
    }
    return err;
}

/* The same as a BIO; `data` is to be given to close_file. */
static as_err open_file(const char *path, BIO **bio, char **data, char why[AS_TLS_WHY]) {
    size_t n;
    as_err err = read_file(path, data, &n, why);
    if (err != AS_OK) {
        return err;
    }
    *bio = BIO_new_mem_buf(*data, (int)n);
    if (*bio == NULL) {
        free(*data);
        return AS_E_NOMEM;
    }
    return AS_OK;
}

static void close_file(BIO *bio, char *data) {
    char *bytes;
    long n = BIO_reset(bio) >= 0 ? BIO_get_mem_data(bio, &bytes) : 0;
    OPENSSL_cleanse(data, n > 0 ? (size_t)n : 0);
    BIO_free(bio);
    free(data);
}

/* --- certificates ----------------------------------------------------------------------------- */

/* The certificates of a file are at their end, and nothing else went wrong. */
static bool is_end(void) {
    unsigned long error = ERR_peek_last_error();
    return ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

static as_err read_chain(BIO *bio, const char *path, as_tls_pair *out, char why[AS_TLS_WHY]) {
    X509 *one;
    out->leaf = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    if (out->leaf == NULL) {
        return is_end() ? no(why, path, "no certificate in PEM form in it")
                        : as__tls_explain(why, path, "unusable certificate");
    }
    while ((one = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
        if ((out->chain == NULL && (out->chain = sk_X509_new_null()) == NULL) ||
            sk_X509_push(out->chain, one) == 0) {
            X509_free(one);
            return AS_E_NOMEM;
        }
    }
    if (!is_end()) {
        return as__tls_explain(why, path, "unusable certificate behind the first");
    }
    ERR_clear_error();
    return AS_OK;
}

/* ISO 8601, in UTC. */
static void format_time(const ASN1_TIME *time, char out[24]) {
    struct tm tm;
    if (ASN1_TIME_to_tm(time, &tm) != 1 || strftime(out, 24, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) {
        out[0] = '\0';
    }
}

static as_err check_time(const X509 *leaf, const char *path, char why[AS_TLS_WHY]) {
    char time[24], text[96];
    const ASN1_TIME *start = X509_get0_notBefore(leaf), *end = X509_get0_notAfter(leaf);
    if (X509_cmp_current_time(end) < 0) {
        format_time(end, time);
        (void)snprintf(text, sizeof(text), "the certificate has expired at %s", time);
        return no(why, path, text);
    }
    if (X509_cmp_current_time(start) > 0) {
        format_time(start, time);
        (void)snprintf(text, sizeof(text), "the certificate is not valid before %s", time);
        return no(why, path, text);
    }
    return AS_OK;
}

/* --- keys ------------------------------------------------------------------------------------- */

typedef struct asking {
    as_slice password;
    bool asked;
} asking;

/* OpenSSL's own one would ask on the terminal. */
static int give_password(char *buf, int size, int writing, void *arg) {
    asking *ask = arg;
    (void)writing;
    ask->asked = true;
    if (ask->password.p == NULL || ask->password.n > (size_t)size) {
        return -1;
    }
    memcpy(buf, ask->password.p, ask->password.n);
    return (int)ask->password.n;
}

static as_err read_key(const char *path, as_slice password, EVP_PKEY **out, char why[AS_TLS_WHY]) {
    BIO *bio;
    char *data;
    as_err err = open_file(path, &bio, &data, why);
    if (err != AS_OK) {
        return err;
    }
    asking ask = {password, false};
    *out = PEM_read_bio_PrivateKey(bio, NULL, give_password, &ask);
    close_file(bio, data);
    if (*out == NULL) {
        return no(why, path,
                  !ask.asked           ? "no usable private key in PEM form in it"
                  : password.p == NULL ? "the private key is encrypted, and no password is given"
                                       : "wrong password for the private key");
    }
    ERR_clear_error();
    return AS_OK;
}

/* --- pairs ------------------------------------------------------------------------------------ */

as_err as__tls_pair_read(const char *certfile, const char *keyfile, as_slice password,
                         as_tls_pair *out, char why[AS_TLS_WHY]) {
    BIO *bio;
    char *data;
    *out = (as_tls_pair){NULL, NULL, NULL};
    ERR_clear_error();
    as_err err = open_file(certfile, &bio, &data, why);
    if (err != AS_OK) {
        return err;
    }
    err = read_chain(bio, certfile, out, why);
    close_file(bio, data);
    const char *path = keyfile != NULL ? keyfile : certfile;
    if (err == AS_OK) {
        err = read_key(path, password, &out->key, why);
    }
    if (err == AS_OK && X509_check_private_key(out->leaf, out->key) != 1) {
        char text[320];
        (void)snprintf(text, sizeof(text),
                       "the private key does not belong to the certificate in %s", certfile);
        err = no(why, path, text);
    }
    return err != AS_OK ? err : check_time(out->leaf, certfile, why);
}

void as__tls_pair_fini(as_tls_pair *pair) {
    X509_free(pair->leaf);
    sk_X509_pop_free(pair->chain, X509_free);
    EVP_PKEY_free(pair->key);
    *pair = (as_tls_pair){NULL, NULL, NULL};
}

/* --- authorities ------------------------------------------------------------------------------ */

static as_err add_authority(X509 *one, X509_STORE *store, STACK_OF(X509_NAME) * names,
                            EVP_MD_CTX *digest) {
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    X509_NAME *name = X509_NAME_dup(X509_get_subject_name(one));
    if (name == NULL || sk_X509_NAME_push(names, name) == 0) {
        X509_NAME_free(name);
        return AS_E_NOMEM;
    }
    return X509_STORE_add_cert(store, one) == 1 && X509_digest(one, EVP_sha256(), hash, &n) == 1 &&
                   EVP_DigestUpdate(digest, hash, n) == 1
               ? AS_OK
               : AS_E_NOMEM;
}

as_err as__tls_read_authorities(const char *path, X509_STORE *store, STACK_OF(X509_NAME) * names,
                                EVP_MD_CTX *digest, char why[AS_TLS_WHY]) {
    BIO *bio;
    char *data;
    X509 *one;
    unsigned found = 0;
    ERR_clear_error();
    as_err err = open_file(path, &bio, &data, why);
    if (err != AS_OK) {
        return err;
    }
    while (err == AS_OK && (one = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL)) != NULL) {
        err = add_authority(one, store, names, digest);
        X509_free(one);
        found++;
    }
    if (err == AS_OK && !is_end()) {
        err = as__tls_explain(why, path, "unusable certificate");
    } else if (err == AS_OK && found == 0) {
        err = no(why, path, "no certificate in PEM form in it");
    }
    ERR_clear_error();
    close_file(bio, data);
    return err;
}

/* --- what a certificate shows ----------------------------------------------------------------- */

static char *take_text(BIO *bio) {
    char *bytes;
    long n = BIO_get_mem_data(bio, &bytes);
    char *text = n >= 0 ? malloc((size_t)n + 1) : NULL;
    if (text != NULL) {
        memcpy(text, bytes, (size_t)n);
        text[n] = '\0';
    }
    return text;
}

char *as__tls_pem(X509 *certificate) {
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = bio != NULL && PEM_write_bio_X509(bio, certificate) == 1 ? take_text(bio) : NULL;
    BIO_free(bio);
    return text;
}

/* A name with a NUL in it is a fraud, and is left out. */
static as_err add_name(as_tls_certificate *out, const char *p, size_t n) {
    if (n == 0 || n > 253 || memchr(p, '\0', n) != NULL) {
        return AS_OK;
    }
    char **names = realloc(out->names, (out->nnames + 1) * sizeof(*names));
    char *name = malloc(n + 1);
    if (names != NULL) {
        out->names = names;
    }
    if (names == NULL || name == NULL) {
        free(name);
        return AS_E_NOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        name[i] = as_lower(p[i]);
    }
    name[n] = '\0';
    names[out->nnames++] = name;
    return AS_OK;
}

static as_err add_address(as_tls_certificate *out, const unsigned char *p, int n) {
    char text[64];
    if (n == 4) {
        (void)snprintf(text, sizeof(text), "%u.%u.%u.%u", p[0], p[1], p[2], p[3]);
    } else if (n == 16) {
        size_t at = 0;
        for (int i = 0; i < 16; i += 2) {
            at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%x", i > 0 ? ":" : "",
                                   (unsigned)p[i] << 8 | p[i + 1]);
        }
    } else {
        return AS_OK;
    }
    return add_name(out, text, strlen(text));
}

static as_err add_alternative(as_tls_certificate *out, const GENERAL_NAME *name) {
    int type;
    const ASN1_STRING *value = GENERAL_NAME_get0_value(name, &type);
    if (type == GEN_DNS) {
        return add_name(out, (const char *)ASN1_STRING_get0_data(value),
                        (size_t)ASN1_STRING_length(value));
    }
    return type == GEN_IPADD
               ? add_address(out, ASN1_STRING_get0_data(value), ASN1_STRING_length(value))
               : AS_OK;
}

/* RFC 6125, 6.4.4: the common name counts only where there are no others. */
static as_err add_common_name(X509 *leaf, as_tls_certificate *out) {
    char text[256];
    int n =
        X509_NAME_get_text_by_NID(X509_get_subject_name(leaf), NID_commonName, text, sizeof(text));
    return n > 0 ? add_name(out, text, (size_t)n) : AS_OK;
}

as_err as__tls_describe_certificate(X509 *leaf, as_tls_certificate *out) {
    as_err err = AS_OK;
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; err == AS_OK && i < sk_GENERAL_NAME_num(names); i++) {
        err = add_alternative(out, sk_GENERAL_NAME_value(names, i));
    }
    GENERAL_NAMES_free(names);
    if (err == AS_OK && out->nnames == 0) {
        err = add_common_name(leaf, out);
    }
    format_time(X509_get0_notAfter(leaf), out->not_after);
    out->pem = as__tls_pem(leaf);
    ERR_clear_error();
    return err == AS_OK && out->pem == NULL ? AS_E_NOMEM : err;
}

void as__tls_certificate_fini(as_tls_certificate *certificate) {
    for (size_t i = 0; i < certificate->nnames; i++) {
        free(certificate->names[i]);
    }
    free(certificate->names);
    free(certificate->path);
    free(certificate->pem);
    SSL_CTX_free(certificate->ctx);
}
