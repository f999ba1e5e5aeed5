/* Certificates for the tests of TLS, made when they are needed. */
#ifndef AS_TESTS_PAIR_H
#define AS_TESTS_PAIR_H

#undef NDEBUG
#include <assert.h>
#include <string.h>

#include <openssl/pem.h>
#include <openssl/x509v3.h>

typedef struct pair {
    X509 *certificate;
    EVP_PKEY *key;
} pair;

static void add_extension(X509 *one, int nid, const char *value) {
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, one, one, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert(extension != NULL && X509_add_ext(one, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

/* For the names in `san`, OpenSSL's way; signed by `by`, or by itself. Seconds from now. */
static pair make_pair(const char *cn, const char *san, const pair *by, long from, long to) {
    static long serial = 100;
    pair p = {X509_new(), EVP_EC_gen("P-256")};
    assert(p.certificate != NULL && p.key != NULL);
    X509_NAME *name = X509_get_subject_name(p.certificate);
    assert(X509_set_version(p.certificate, 2) == 1);
    assert(ASN1_INTEGER_set(X509_get_serialNumber(p.certificate), serial++) == 1);
    assert(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1,
                                      0) == 1);
    assert(X509_gmtime_adj(X509_getm_notBefore(p.certificate), from) != NULL);
    assert(X509_gmtime_adj(X509_getm_notAfter(p.certificate), to) != NULL);
    assert(X509_set_issuer_name(p.certificate,
                                by != NULL ? X509_get_subject_name(by->certificate) : name) == 1);
    assert(X509_set_pubkey(p.certificate, p.key) == 1);
    if (san != NULL) {
        add_extension(p.certificate, NID_subject_alt_name, san);
    }
    if (by == NULL) {
        add_extension(p.certificate, NID_basic_constraints, "critical,CA:TRUE");
    }
    assert(X509_sign(p.certificate, by != NULL ? by->key : p.key, EVP_sha256()) > 0);
    return p;
}

static void write_pair(const pair *p, const char *certfile, const char *keyfile,
                       const char *password) {
    BIO *out = BIO_new_file(certfile, "w");
    assert(out != NULL && PEM_write_bio_X509(out, p->certificate) == 1);
    if (strcmp(certfile, keyfile) != 0) {
        BIO_free(out);
        out = BIO_new_file(keyfile, "w");
    }
    const EVP_CIPHER *cipher = password != NULL ? EVP_aes_128_cbc() : NULL;
    assert(out != NULL && PEM_write_bio_PKCS8PrivateKey(
                              out, p->key, cipher, password,
                              password != NULL ? (int)strlen(password) : 0, NULL, NULL) == 1);
    BIO_free(out);
}

static void free_pair(pair *p) {
    X509_free(p->certificate);
    EVP_PKEY_free(p->key);
}

#endif
