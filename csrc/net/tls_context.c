/* SSL_CTX, one for each certificate, under one table of names. */
#include "net/tls_context.h"

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/rand.h>

#include "net/tls_internal.h"

/* Mozilla's "intermediate" without finite-field Diffie-Hellman, which no client of today needs. The
 * suites of TLS 1.3 are OpenSSL's own. */
#define CIPHERS                                                                                        \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"                                       \
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"                                       \
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
#define GROUPS "X25519:P-256:P-384"

#define NAME_MAX_LEN ((size_t)253) /* RFC 1035, 2.3.4, written with dots */
#define WARNINGS_MAX ((size_t)64 * 1024)

/* A name and whose it is. */
typedef struct host {
    const char *name; /* the certificate's */
    size_t certificate;
} host;

struct as_tls_context {
    _Atomic unsigned refs;
    as_tls_settings settings; /* all of it is ours */
    as_tls_certificate *certificates;
    size_t ncertificates;
    host *hosts; /* sorted by name */
    size_t nhosts;
    char *warnings;
    uint64_t stamp;
    unsigned char ticket_key[AS_TLS_TICKET_KEY];
    unsigned char session_context[SSL_MAX_SID_CTX_LENGTH];
};

/* --- settings --------------------------------------------------------------------------------- */

/* NULL stays NULL. */
static bool copy_text(const char **out, const char *text) {
    *out = text != NULL ? strdup(text) : NULL;
    return text == NULL || *out != NULL;
}

static bool copy_slice(as_slice *out, as_slice from) {
    char *copy = from.p != NULL ? malloc(from.n + 1) : NULL;
    if (copy != NULL && from.n > 0) {
        memcpy(copy, from.p, from.n);
    }
    *out = (as_slice){copy, copy != NULL ? from.n : 0};
    return from.p == NULL || copy != NULL;
}

static as_err copy_settings(as_tls_settings *out, const as_tls_settings *from) {
    *out = (as_tls_settings){
        .verify = from->verify,
        .min_version = from->min_version,
        .reload_interval = from->reload_interval,
    };
    return copy_text(&out->certfile, from->certfile) && copy_text(&out->keyfile, from->keyfile) &&
                   copy_text(&out->ca_certs, from->ca_certs) &&
                   copy_text(&out->ciphers, from->ciphers) &&
                   copy_text(&out->sni_dir, from->sni_dir) &&
                   copy_slice(&out->password, from->password) && copy_slice(&out->alpn, from->alpn)
               ? AS_OK
               : AS_E_NOMEM;
}

static void free_settings(as_tls_settings *s) {
    if (s->password.p != NULL) {
        OPENSSL_cleanse((char *)s->password.p, s->password.n);
    }
    const char *texts[] = {s->certfile, s->keyfile,    s->ca_certs, s->ciphers,
                           s->sni_dir,  s->password.p, s->alpn.p};
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        free((char *)texts[i]);
    }
}

static as_err wrong(char why[AS_TLS_WHY], const char *text) {
    (void)snprintf(why, AS_TLS_WHY, "%s", text);
    return AS_E_TLS_SETTINGS;
}

static as_err check_settings(const as_tls_settings *s, char why[AS_TLS_WHY]) {
    if (s->certfile == NULL || *s->certfile == '\0') {
        return wrong(why, "no certificate file is given");
    }
    if (s->min_version != AS_TLS_1_2 && s->min_version != AS_TLS_1_3) {
        char text[80];
        (void)snprintf(text, sizeof(text), "min_version must be 0x0303 (TLS 1.2) or 0x0304: 0x%04x",
                       s->min_version);
        return wrong(why, text);
    }
    if (s->verify != AS_TLS_VERIFY_NONE && s->ca_certs == NULL) {
        return wrong(why, "to ask clients for certificates, ca_certs must say who signs them");
    }
    return AS_OK;
}

/* --- what the files look like ----------------------------------------------------------------- */

static void mix(uint64_t *stamp, const void *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        *stamp = (*stamp ^ ((const unsigned char *)bytes)[i]) * UINT64_C(0x100000001b3);
    }
}

/* Of what a path leads to: behind symbolic links, by which files are usually exchanged. */
static void mix_path(uint64_t *stamp, const char *path) {
    struct stat st;
    if (path == NULL) {
        return;
    }
    if (stat(path, &st) != 0) {
        st = (struct stat){.st_size = -errno};
    }
    uint64_t facts[] = {st.st_dev, st.st_ino, (uint64_t)st.st_size, (uint64_t)st.st_mtim.tv_sec,
                        (uint64_t)st.st_mtim.tv_nsec};
    mix(stamp, path, strlen(path));
    mix(stamp, facts, sizeof(facts));
}

static bool ends_with(const char *name, const char *suffix) {
    size_t n = strlen(name), m = strlen(suffix);
    return n > m && strcmp(name + n - m, suffix) == 0;
}

static bool is_certificate_name(const char *name) {
    return ends_with(name, ".crt") || ends_with(name, ".pem") || ends_with(name, ".cer");
}

static int is_pair_file(const struct dirent *entry) {
    return entry->d_name[0] != '.' &&
           (is_certificate_name(entry->d_name) || ends_with(entry->d_name, ".key"));
}

static void free_entries(struct dirent **entries, int n) {
    for (int i = 0; i < n; i++) {
        free(entries[i]);
    }
    free(entries);
}

static char *join(const char *folder, const char *name) {
    size_t n = strlen(folder) + strlen(name) + 2;
    char *path = malloc(n);
    if (path != NULL) {
        (void)snprintf(path, n, "%s/%s", folder, name);
    }
    return path;
}

static void mix_folder(uint64_t *stamp, const char *folder) {
    struct dirent **entries = NULL;
    int n = folder != NULL ? scandir(folder, &entries, is_pair_file, alphasort) : 0;
    for (int i = 0; i < n; i++) {
        char *path = join(folder, entries[i]->d_name);
        mix_path(stamp, path);
        free(path);
    }
    free_entries(entries, n);
}

static uint64_t take_stamp(const as_tls_settings *s) {
    uint64_t stamp = UINT64_C(0xcbf29ce484222325);
    mix_path(&stamp, s->certfile);
    mix_path(&stamp, s->keyfile);
    mix_path(&stamp, s->ca_certs);
    mix_folder(&stamp, s->sni_dir);
    return stamp;
}

bool as_tls_context_changed(as_tls_context *c) {
    uint64_t stamp = take_stamp(&c->settings);
    bool changed = stamp != c->stamp;
    c->stamp = stamp;
    return changed;
}

/* --- callbacks of a handshake ----------------------------------------------------------------- */

static int compare_hosts(const void *a, const void *b) {
    const host *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order != 0                        ? order
           : x->certificate < y->certificate ? -1
                                             : x->certificate > y->certificate;
}

/* The first of equal names. */
static const host *find_host(const as_tls_context *c, const char *name) {
    size_t low = 0, high = c->nhosts;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(c->hosts[middle].name, name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < c->nhosts && strcmp(c->hosts[low].name, name) == 0 ? &c->hosts[low] : NULL;
}

/* RFC 6125, 6.4.3: an asterisk stands for the first label. */
static const host *match_host(const as_tls_context *c, const char *asked) {
    char name[NAME_MAX_LEN + 2];
    size_t n = strlen(asked);
    if (n > 0 && asked[n - 1] == '.') {
        n--;
    }
    if (n == 0 || n > NAME_MAX_LEN) {
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        name[i] = as_lower(asked[i]);
    }
    name[n] = '\0';
    const host *found = find_host(c, name);
    char *dot = strchr(name, '.');
    if (found == NULL && dot != NULL && dot > name) {
        dot[-1] = '*';
        found = find_host(c, dot - 1);
    }
    return found;
}

/* Who asks for a name that we have no certificate of gets the default one, and decides itself. */
static int on_server_name(SSL *ssl, int *alert, void *arg) {
    const as_tls_context *c = arg;
    (void)alert;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    const host *found = name != NULL ? match_host(c, name) : NULL;
    if (found != NULL && found->certificate != 0) {
        (void)SSL_set_SSL_CTX(ssl, c->certificates[found->certificate].ctx);
    }
    return SSL_TLSEXT_ERR_OK;
}

/* RFC 7301, 3.2. */
static int on_protocols(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                        const unsigned char *in, unsigned in_len, void *arg) {
    const as_slice *ours = &((const as_tls_context *)arg)->settings.alpn;
    unsigned char *chosen;
    (void)ssl;
    if (SSL_select_next_proto(&chosen, out_len, (const unsigned char *)ours->p, (unsigned)ours->n,
                              in, in_len) != OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* --- SSL_CTX ---------------------------------------------------------------------------------- */

/* RFC 8446's suites have a list of their own in OpenSSL, and names that begin so. */
static bool is_tls13_suite(const char *name) {
    return strncmp(name, "TLS_", 4) == 0;
}

static void append_name(char *list, const char *name) {
    if (*list != '\0') {
        strcat(list, ":");
    }
    strcat(list, name);
}

/* "!aNULL", "-RC4", "+DHE", "@SECLEVEL=1": they mean nothing alone. */
static bool is_directive(const char *name) {
    return strchr("!-+@", *name) != NULL;
}

/* A list with one usable name passes OpenSSL, however many are misspelt: each is tried alone. */
static as_err check_cipher(SSL_CTX *ctx, const char *name, char why[AS_TLS_WHY]) {
    int known = is_directive(name)     ? 1
                : is_tls13_suite(name) ? SSL_CTX_set_ciphersuites(ctx, name)
                                       : SSL_CTX_set_cipher_list(ctx, name);
    if (known != 1) {
        (void)snprintf(why, AS_TLS_WHY, "unknown cipher: %.100s", name);
        ERR_clear_error();
        return AS_E_TLS_SETTINGS;
    }
    return AS_OK;
}

/* Splits `list` at its separators into the two that OpenSSL wants. */
static as_err split_ciphers(SSL_CTX *ctx, char *list, char *older, char *newer,
                            char why[AS_TLS_WHY]) {
    char *rest = list, *name;
    while ((name = strsep(&rest, ":, ")) != NULL) {
        as_err err = *name != '\0' ? check_cipher(ctx, name, why) : AS_OK;
        if (err != AS_OK) {
            return err;
        }
        if (*name != '\0') {
            append_name(is_tls13_suite(name) ? newer : older, name);
        }
    }
    return AS_OK;
}

static as_err set_given_ciphers(SSL_CTX *ctx, const char *given, char why[AS_TLS_WHY]) {
    size_t n = strlen(given) + 2;
    char *texts = calloc(3, n);
    if (texts == NULL) {
        return AS_E_NOMEM;
    }
    char *list = texts, *older = texts + n, *newer = texts + 2 * n;
    memcpy(list, given, n - 2);
    as_err err = split_ciphers(ctx, list, older, newer, why);
    if (err == AS_OK && (SSL_CTX_set_cipher_list(ctx, *older != '\0' ? older : CIPHERS) != 1 ||
                         (*newer != '\0' && SSL_CTX_set_ciphersuites(ctx, newer) != 1))) {
        err = as__tls_explain(why, "ciphers", given);
    }
    /* Who names ciphers has an order in mind; still a client without AES instructions is let off.
     */
    SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    free(texts);
    return err;
}

static as_err set_rules(const as_tls_context *c, SSL_CTX *ctx, char why[AS_TLS_WHY]) {
    const as_tls_settings *s = &c->settings;
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 /* HTTP knows what is cut short by its own framing. */
                                 SSL_OP_IGNORE_UNEXPECTED_EOF);
    /* The system's configuration may have it on (docs/decisions/tls-transport.md). */
    SSL_CTX_clear_options(ctx, SSL_OP_ENABLE_KTLS);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ctx, 1); /* a record's head and body by one call */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); /* tickets suffice */
    if (SSL_CTX_set_min_proto_version(ctx, (int)s->min_version) != 1 ||
        SSL_CTX_set1_groups_list(ctx, GROUPS) != 1 ||
        SSL_CTX_set_session_id_context(ctx, c->session_context, sizeof(c->session_context)) != 1 ||
        SSL_CTX_set_tlsext_ticket_keys(ctx, (void *)c->ticket_key, sizeof(c->ticket_key)) != 1) {
        return as__tls_explain(why, s->certfile, "OpenSSL");
    }
    SSL_CTX_set_tlsext_servername_callback(ctx, on_server_name);
    SSL_CTX_set_tlsext_servername_arg(ctx, (void *)c);
    if (s->alpn.n > 0) {
        SSL_CTX_set_alpn_select_cb(ctx, on_protocols, (void *)c);
    }
    if (s->ciphers != NULL) {
        return set_given_ciphers(ctx, s->ciphers, why);
    }
    return SSL_CTX_set_cipher_list(ctx, CIPHERS) == 1
               ? AS_OK
               : as__tls_explain(why, s->certfile, "ciphers");
}

static as_err use_authorities(const as_tls_context *c, SSL_CTX *ctx, X509_STORE *store,
                              const STACK_OF(X509_NAME) * names) {
    STACK_OF(X509_NAME) *own = SSL_dup_CA_list(names);
    if (own == NULL) {
        return AS_E_NOMEM;
    }
    SSL_CTX_set1_cert_store(ctx, store);
    SSL_CTX_set_client_CA_list(ctx, own);
    SSL_CTX_set_verify(ctx,
                       c->settings.verify == AS_TLS_VERIFY_REQUIRED
                           ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT
                           : SSL_VERIFY_PEER,
                       NULL);
    return AS_OK;
}

/* Who may sign clients' certificates, while a context is made. */
typedef struct authorities {
    X509_STORE *store;
    STACK_OF(X509_NAME) * names;
} authorities;

static as_err use_pair(SSL_CTX *ctx, const as_tls_pair *pair, const char *path,
                       char why[AS_TLS_WHY]) {
    return SSL_CTX_use_cert_and_key(ctx, pair->leaf, pair->key, pair->chain, 1) == 1
               ? AS_OK
               : as__tls_explain(why, path, "unusable certificate");
}

/* A new row of certificates. */
static as_err add_certificate(as_tls_context *c, const authorities *who, const char *certfile,
                              const char *keyfile, char why[AS_TLS_WHY]) {
    as_tls_pair pair;
    as_tls_certificate row = {0};
    as_err err = as__tls_pair_read(certfile, keyfile, c->settings.password, &pair, why);
    if (err == AS_OK) {
        err = as__tls_describe_certificate(pair.leaf, &row);
    }
    row.path = err == AS_OK ? strdup(certfile) : NULL;
    row.ctx = err == AS_OK ? SSL_CTX_new(TLS_server_method()) : NULL;
    if (err == AS_OK && (row.path == NULL || row.ctx == NULL)) {
        err = AS_E_NOMEM;
    }
    if (err == AS_OK) {
        err = set_rules(c, row.ctx, why);
    }
    if (err == AS_OK) {
        err = use_pair(row.ctx, &pair, certfile, why);
    }
    if (err == AS_OK && c->settings.verify != AS_TLS_VERIFY_NONE) {
        err = use_authorities(c, row.ctx, who->store, who->names);
    }
    as_tls_certificate *rows = NULL;
    if (err == AS_OK) {
        rows = realloc(c->certificates, (c->ncertificates + 1) * sizeof(*rows));
        err = rows != NULL ? AS_OK : AS_E_NOMEM;
    }
    if (err == AS_OK) {
        c->certificates = rows;
        rows[c->ncertificates++] = row;
    } else {
        as__tls_certificate_fini(&row);
    }
    as__tls_pair_fini(&pair);
    return err;
}

/* --- the folder of more certificates ---------------------------------------------------------- */

static as_err add_warning(as_tls_context *c, const char *line) {
    size_t before = c->warnings != NULL ? strlen(c->warnings) : 0, n = strlen(line);
    if (before + n > WARNINGS_MAX) {
        return AS_OK;
    }
    char *text = realloc(c->warnings, before + n + 2);
    if (text == NULL) {
        return AS_E_NOMEM;
    }
    c->warnings = text;
    (void)snprintf(text + before, n + 2, "%s%s", before > 0 ? "\n" : "", line);
    return AS_OK;
}

/* NAME.key beside NAME.crt; NULL where there is none, or no memory for its name. */
static char *find_key(const char *certfile) {
    size_t n = strlen(certfile) - 4;
    char *path = malloc(n + 5);
    if (path != NULL) {
        (void)snprintf(path, n + 5, "%.*s.key", (int)n, certfile);
        if (access(path, F_OK) != 0) {
            free(path);
            path = NULL;
        }
    }
    return path;
}

/* What is wrong with one name is no reason to turn away the visitors of the others. */
static as_err add_pair(as_tls_context *c, const authorities *who, const char *name) {
    char why[AS_TLS_WHY];
    char *certfile = join(c->settings.sni_dir, name);
    char *keyfile = certfile != NULL ? find_key(certfile) : NULL;
    as_err err = certfile != NULL ? add_certificate(c, who, certfile, keyfile, why) : AS_E_NOMEM;
    if (err == AS_E_TLS_SETTINGS) {
        err = add_warning(c, why);
    }
    free(keyfile);
    free(certfile);
    return err;
}

static as_err add_folder(as_tls_context *c, const authorities *who, char why[AS_TLS_WHY]) {
    const char *folder = c->settings.sni_dir;
    struct dirent **entries = NULL;
    int n = folder != NULL ? scandir(folder, &entries, is_pair_file, alphasort) : 0;
    if (n < 0) {
        (void)snprintf(why, AS_TLS_WHY, "%s: %s", folder, strerror(errno));
        return AS_E_TLS_SETTINGS;
    }
    size_t before = c->ncertificates;
    as_err err = AS_OK;
    for (int i = 0; err == AS_OK && i < n; i++) {
        if (is_certificate_name(entries[i]->d_name)) {
            err = add_pair(c, who, entries[i]->d_name);
        }
    }
    free_entries(entries, n);
    if (err == AS_OK && folder != NULL && c->ncertificates == before) {
        const char *first = c->warnings != NULL ? c->warnings : "no certificates in it";
        (void)snprintf(why, AS_TLS_WHY, "%s: no usable pair of certificate and key (%.*s)", folder,
                       (int)strcspn(first, "\n"), first);
        err = AS_E_TLS_SETTINGS;
    }
    return err;
}

static as_err make_table(as_tls_context *c) {
    size_t n = 0;
    for (size_t i = 0; i < c->ncertificates; i++) {
        n += c->certificates[i].nnames;
    }
    c->hosts = calloc(n + 1, sizeof(*c->hosts));
    if (c->hosts == NULL) {
        return AS_E_NOMEM;
    }
    for (size_t i = 0; i < c->ncertificates; i++) {
        for (size_t j = 0; j < c->certificates[i].nnames; j++) {
            c->hosts[c->nhosts++] = (host){c->certificates[i].names[j], i};
        }
    }
    qsort(c->hosts, c->nhosts, sizeof(*c->hosts), compare_hosts);
    return AS_OK;
}

/* --- making ----------------------------------------------------------------------------------- */

/* A session is taken up again only where clients are judged alike: what the digest is made of. */
static as_err read_authorities(as_tls_context *c, authorities *who, char why[AS_TLS_WHY]) {
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    uint32_t verify = c->settings.verify;
    who->store = X509_STORE_new();
    who->names = sk_X509_NAME_new_null();
    as_err err = AS_E_NOMEM;
    if (digest != NULL && who->store != NULL && who->names != NULL &&
        EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1 &&
        EVP_DigestUpdate(digest, &verify, sizeof(verify)) == 1) {
        err = c->settings.ca_certs == NULL
                  ? AS_OK
                  : as__tls_read_authorities(c->settings.ca_certs, who->store, who->names, digest,
                                             why);
    }
    if (err == AS_OK && EVP_DigestFinal_ex(digest, c->session_context, NULL) != 1) {
        err = AS_E_NOMEM;
    }
    EVP_MD_CTX_free(digest);
    return err;
}

static as_err set_ticket_key(as_tls_context *c, const unsigned char *key) {
    if (key != NULL) {
        memcpy(c->ticket_key, key, sizeof(c->ticket_key));
        return AS_OK;
    }
    return RAND_bytes(c->ticket_key, sizeof(c->ticket_key)) == 1 ? AS_OK : AS_E_NOMEM;
}

static as_err fill(as_tls_context *c, const as_tls_settings *settings, char why[AS_TLS_WHY]) {
    authorities who = {NULL, NULL};
    as_err err = check_settings(settings, why);
    if (err == AS_OK) {
        err = copy_settings(&c->settings, settings);
    }
    if (err == AS_OK) {
        err = set_ticket_key(c, settings->ticket_key);
    }
    if (err == AS_OK) {
        c->stamp = take_stamp(&c->settings); /* before reading: a change in between is seen later */
        err = read_authorities(c, &who, why);
    }
    if (err == AS_OK) {
        err = add_certificate(c, &who, c->settings.certfile, c->settings.keyfile, why);
    }
    if (err == AS_OK) {
        err = add_folder(c, &who, why);
    }
    if (err == AS_OK) {
        err = make_table(c);
    }
    for (size_t i = 0; err == AS_OK && i < c->ncertificates; i++) {
        (void)SSL_CTX_set_app_data(c->certificates[i].ctx, &c->certificates[i]);
    }
    X509_STORE_free(who.store);
    sk_X509_NAME_pop_free(who.names, X509_NAME_free);
    return err;
}

as_err as_tls_context_new(const as_tls_settings *settings, as_tls_context **out,
                          char why[AS_TLS_WHY]) {
    as_tls_context *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return AS_E_NOMEM;
    }
    c->refs = 1;
    ERR_clear_error();
    as_err err = fill(c, settings, why);
    ERR_clear_error();
    if (err != AS_OK) {
        as_tls_context_unref(c);
        return err;
    }
    *out = c;
    return AS_OK;
}

as_err as_tls_context_again(const as_tls_context *c, as_tls_context **out, char why[AS_TLS_WHY]) {
    as_tls_settings settings = c->settings;
    settings.ticket_key = c->ticket_key;
    return as_tls_context_new(&settings, out, why);
}

as_tls_context *as_tls_context_ref(as_tls_context *c) {
    atomic_fetch_add(&c->refs, 1);
    return c;
}

void as_tls_context_unref(as_tls_context *c) {
    if (c == NULL || atomic_fetch_sub(&c->refs, 1) > 1) {
        return;
    }
    for (size_t i = 0; i < c->ncertificates; i++) {
        as__tls_certificate_fini(&c->certificates[i]);
    }
    free(c->certificates);
    free(c->hosts);
    free(c->warnings);
    free_settings(&c->settings);
    OPENSSL_cleanse(c->ticket_key, sizeof(c->ticket_key));
    free(c);
}

const char *as_tls_library(void) {
    return OpenSSL_version(OPENSSL_VERSION_STRING);
}

/* --- looking ---------------------------------------------------------------------------------- */

uint32_t as_tls_context_interval(const as_tls_context *c) {
    return c->settings.reload_interval;
}

const as_tls_certificate *as_tls_context_certificates(const as_tls_context *c, size_t *n) {
    *n = c->ncertificates;
    return c->certificates;
}

const char *as_tls_context_warnings(const as_tls_context *c) {
    return c->warnings != NULL ? c->warnings : "";
}

SSL_CTX *as__tls_context_default(const as_tls_context *c) {
    return c->certificates[0].ctx;
}

const as_tls_certificate *as__tls_certificate_of(const SSL *ssl) {
    return SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
}
