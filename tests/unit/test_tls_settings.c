/* What TLS is told, and what a client sees of it: names, sessions, certificates of both sides, also
 * new ones while it runs, and settings that cannot be. */
#include "tls_sides.h"

#include <signal.h>
#include <sys/stat.h>

/* --- names and protocols ---------------------------------------------------------------------- */

static bool asks(server *s, const char *name, const char *gets) {
    client c = connect_to(s, TLS1_3_VERSION);
    if (name != NULL) {
        assert(SSL_set_tlsext_host_name(c.ssl, name) == 1);
    }
    UNTIL(s, established(&c));
    bool good = X509_check_host(certificate_of(&c), gets, 0, 0, NULL) == 1;
    say(&c, GET);
    UNTIL(s, count_of(&c, "hello") == 1);
    assert(strcmp(s->told_name, name != NULL ? name : "") == 0);
    BIO *text = BIO_new_mem_buf(s->told.server_cert, -1);
    X509 *told = PEM_read_bio_X509(text, NULL, NULL, NULL);
    assert(told != NULL && X509_cmp(told, certificate_of(&c)) == 0);
    X509_free(told);
    BIO_free(text);
    hang_up(&c);
    return good;
}

static void make_sni_folder(const char *sni) {
    assert(mkdir(sni, 0700) == 0);
    char path[160], key[160];
    pair a = make_pair("a", "DNS:a.test,DNS:*.a.test", NULL, -DAY, DAY);
    (void)snprintf(path, sizeof(path), "%s/a.crt", sni);
    (void)snprintf(key, sizeof(key), "%s/a.key", sni);
    write_pair(&a, path, key, NULL);
    free_pair(&a);
    pair b = make_pair("b.test", NULL, NULL, -DAY, DAY); /* by its common name */
    (void)snprintf(path, sizeof(path), "%s/b.pem", sni);
    write_pair(&b, path, path, NULL);
    free_pair(&b);
    (void)snprintf(path, sizeof(path), "%s/c.cer", sni);
    write_text(path, "nonsense\n");
    pair d = make_pair("d", "DNS:d.test,DNS:a.test", NULL, -DAY, DAY); /* others come first */
    (void)snprintf(path, sizeof(path), "%s/d.pem", sni);
    write_pair(&d, path, path, NULL);
    free_pair(&d);
    (void)snprintf(path, sizeof(path), "%s/README", sni);
    write_text(path, "not looked at\n");
}

static void test_server_names(void) {
    char sni[128];
    (void)snprintf(sni, sizeof(sni), "%s", path_of("sni", ""));
    make_sni_folder(sni);
    server s;
    prepare(&s, ANSWER);
    s.settings.sni_dir = sni;
    start(&s);
    size_t n;
    const as_tls_certificate *rows = as_tls_context_certificates(s.context, &n);
    assert(n == 4 && strcmp(rows[0].names[0], "main.test") == 0 && rows[1].nnames == 2);
    const char *warnings = as_tls_context_warnings(s.context);
    assert(strstr(warnings, "c.cer: no certificate") != NULL && strchr(warnings, '\n') == NULL);
    assert(asks(&s, NULL, "main.test") && asks(&s, "main.test", "main.test"));
    assert(asks(&s, "unknown.test", "main.test"));
    assert(asks(&s, "a.test", "a.test") && asks(&s, "A.TEST", "a.test"));
    assert(asks(&s, "www.a.test", "www.a.test") && asks(&s, "Www.A.test", "a.test"));
    assert(asks(&s, "x.www.a.test", "main.test")); /* an asterisk is one label */
    assert(asks(&s, "b.test", "b.test"));
    assert(asks(&s, "d.test", "d.test") && !asks(&s, "a.test", "d.test"));
    assert(asks(&s, "b.test.", "b.test")); /* RFC 6066, 3: not said so, and meant the same */
    stop(&s);
}

/* Names of `kind`, which are none: what OpenSSL makes of a text it would not write. */
static void add_odd_names(X509 *certificate) {
    static const struct {
        int type;
        const char *bytes;
        int n;
    } rows[] = {{GEN_DNS, "bank.test\0.evil.test", 20},
                {GEN_DNS, "", 0},
                {GEN_IPADD, "\x7f\0\0", 3},
                {GEN_IPADD, "\x7f\0\0\x05", 4},
                {GEN_IPADD, "\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\xab\xcd", 16},
                {GEN_EMAIL, "a@b.test", 8}};
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        GENERAL_NAME *name = GENERAL_NAME_new();
        ASN1_STRING *value =
            rows[i].type == GEN_IPADD ? ASN1_OCTET_STRING_new() : ASN1_IA5STRING_new();
        assert(ASN1_STRING_set(value, rows[i].bytes, rows[i].n) == 1);
        GENERAL_NAME_set0_value(name, rows[i].type, value);
        assert(sk_GENERAL_NAME_push(names, name) > 0);
    }
    assert(X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) == 1);
    GENERAL_NAMES_free(names);
}

/* A name with a NUL in it is a fraud; addresses are told, and those that are none are not. */
static void test_names_of_a_certificate(void) {
    pair p = make_pair("odd", NULL, NULL, -DAY, DAY);
    add_odd_names(p.certificate);
    assert(X509_sign(p.certificate, p.key, EVP_sha256()) > 0);
    write_pair(&p, path_of("odd", ".crt"), path_of("odd", ".key"), NULL);
    free_pair(&p);
    as_tls_settings s = usual_settings();
    s.certfile = path_of("odd", ".crt");
    s.keyfile = path_of("odd", ".key");
    as_tls_context *context = make_context(&s);
    size_t n;
    const as_tls_certificate *rows = as_tls_context_certificates(context, &n);
    assert(n == 1 && rows[0].nnames == 2 && strcmp(rows[0].names[0], "127.0.0.5") == 0);
    assert(strcmp(rows[0].names[1], "fe80:0:0:0:0:0:0:abcd") == 0);
    as_tls_context_unref(context);
}

/* Those that signed it follow in its file, and are sent with it. */
static void test_chain(void) {
    pair root = make_pair("root", NULL, NULL, -DAY, DAY);
    pair middle = make_pair("middle", NULL, &root, -DAY, DAY);
    pair leaf = make_pair("leaf", "DNS:leaf.test", &middle, -DAY, DAY);
    const char *certfile = path_of("chain", ".crt");
    write_pair(&leaf, certfile, path_of("chain", ".key"), NULL);
    BIO *more = BIO_new_file(certfile, "a");
    assert(more != NULL && PEM_write_bio_X509(more, middle.certificate) == 1);
    assert(PEM_write_bio_X509(more, root.certificate) == 1);
    BIO_free(more);
    server s;
    prepare(&s, ANSWER);
    s.settings.certfile = certfile;
    s.settings.keyfile = path_of("chain", ".key");
    start(&s);
    client c = served(&s, TLS1_3_VERSION);
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(c.ssl);
    assert(sk_X509_num(chain) == 3);
    assert(X509_cmp(sk_X509_value(chain, 0), leaf.certificate) == 0);
    assert(X509_cmp(sk_X509_value(chain, 1), middle.certificate) == 0);
    assert(X509_cmp(sk_X509_value(chain, 2), root.certificate) == 0);
    hang_up(&c);
    stop(&s);
    free_pair(&root);
    free_pair(&middle);
    free_pair(&leaf);
}

static void test_alpn(void) {
    static const struct {
        const char *offered;
        const char *chosen; /* NULL: refused */
    } cases[] = {{"\x08http/1.1", "http/1.1"},
                 {"\x02h2\x08http/1.1", "http/1.1"},
                 {"", ""},
                 {"\x02h2", NULL}};
    server s;
    prepare(&s, ANSWER);
    start(&s);
    for (unsigned i = 0; i < 4; i++) {
        client c = connect_to(&s, i % 2 ? TLS1_2_VERSION : TLS1_3_VERSION);
        const char *offered = cases[i].offered;
        assert(SSL_set_alpn_protos(c.ssl, (const unsigned char *)offered,
                                   (unsigned)strlen(offered)) == 0);
        const unsigned char *chosen;
        unsigned n;
        if (cases[i].chosen != NULL) {
            UNTIL(&s, established(&c));
            SSL_get0_alpn_selected(c.ssl, &chosen, &n);
            assert(n == strlen(cases[i].chosen));
            assert(n == 0 || memcmp(chosen, cases[i].chosen, n) == 0);
        } else {
            UNTIL(&s, ended(&c));
            assert(ERR_GET_REASON(c.failure) == SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL);
        }
        hang_up(&c);
    }
    stop(&s);
}

/* --- sessions --------------------------------------------------------------------------------- */

/* Another connection with the session of `c`; true: it was taken up. */
static bool resumes(server *s, client *c) {
    SSL_SESSION *session = SSL_get1_session(c->ssl);
    assert(session != NULL && SSL_SESSION_has_ticket(session));
    client again = connect_to(s, SSL_version(c->ssl));
    assert(SSL_set_session(again.ssl, session) == 1);
    UNTIL(s, established(&again));
    say(&again, GET);
    UNTIL(s, count_of(&again, "hello") == 1);
    bool resumed = SSL_session_reused(again.ssl) == 1;
    SSL_SESSION_free(session);
    hang_up(&again);
    return resumed;
}

static void test_sessions(void) {
    unsigned char key[AS_TLS_TICKET_KEY] = "a key that two workers share";
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        server one, two, stranger;
        prepare(&one, ANSWER);
        prepare(&two, ANSWER);
        prepare(&stranger, ANSWER);
        one.settings.ticket_key = two.settings.ticket_key = key;
        start(&one);
        start(&two);
        start(&stranger);
        client c = served(&one, version);
        assert(!SSL_session_reused(c.ssl));
        assert(resumes(&one, &c));
        assert(resumes(&two, &c));
        assert(!resumes(&stranger, &c));
        hang_up(&c);
        stop(&one);
        stop(&two);
        stop(&stranger);
    }
}

/* --- clients' certificates -------------------------------------------------------------------- */

static void show_certificate(client *c, const pair *p) {
    assert(SSL_use_certificate(c->ssl, p->certificate) == 1);
    assert(SSL_use_PrivateKey(c->ssl, p->key) == 1);
}

static void test_client_certificates(void) {
    pair ca = make_pair("authority", NULL, NULL, -DAY, DAY);
    pair good = make_pair("ren\xc3\xa9, the client", NULL, &ca, -DAY, DAY);
    pair stranger = make_pair("stranger", NULL, NULL, -DAY, DAY);
    write_pair(&ca, path_of("ca", ".crt"), path_of("ca", ".key"), NULL);
    char ca_file[128];
    (void)snprintf(ca_file, sizeof(ca_file), "%s", path_of("ca", ".crt"));
    for (int verify = AS_TLS_VERIFY_OPTIONAL; verify <= AS_TLS_VERIFY_REQUIRED; verify++) {
        server s;
        prepare(&s, ANSWER);
        s.settings.ca_certs = ca_file;
        s.settings.verify = (as_tls_verify)verify;
        start(&s);
        client c = connect_to(&s, TLS1_3_VERSION);
        show_certificate(&c, &good);
        UNTIL(&s, established(&c));
        say(&c, GET);
        UNTIL(&s, count_of(&c, "hello") == 1);
        assert(s.told.nclient_chain == 1);
        assert(strcmp(s.told_subject, "CN=ren\\C3\\A9\\, the client") == 0);
        assert(resumes(&s, &c) && strcmp(s.told_subject, "CN=ren\\C3\\A9\\, the client") == 0);
        hang_up(&c);
        client bad = connect_to(&s, TLS1_2_VERSION);
        show_certificate(&bad, &stranger);
        UNTIL(&s, ended(&bad));
        assert(!bad.done && s.refused_why == AS_E_TLS_HANDSHAKE);
        assert(strcmp(s.refused_detail, "self-signed certificate") == 0);
        hang_up(&bad);
        client none = connect_to(&s, TLS1_2_VERSION);
        UNTIL(&s, ended(&none) || none.done);
        assert(none.done == (verify == AS_TLS_VERIFY_OPTIONAL));
        hang_up(&none);
        stop(&s);
    }
    free_pair(&ca);
    free_pair(&good);
    free_pair(&stranger);
}

/* A client of TLS 1.3 has sent its request before it hears that it is not let in. Bytes that nobody
 * reads would make the end of the connection a reset, which destroys the alert. */
static void test_alert_arrives(void) {
    pair ca = make_pair("authority", NULL, NULL, -DAY, DAY);
    write_pair(&ca, path_of("ca", ".crt"), path_of("ca", ".key"), NULL);
    free_pair(&ca);
    server s;
    prepare(&s, ANSWER);
    s.settings.ca_certs = path_of("ca", ".crt");
    s.settings.verify = AS_TLS_VERIFY_REQUIRED;
    start(&s);
    for (int i = 0; i < 20; i++) {
        client c = connect_to(&s, TLS1_3_VERSION);
        UNTIL(&s, (receive_in(&c), SSL_do_handshake(c.ssl)) == 1 || (send_out(&c), false));
        c.done = true;
        size_t n;
        char *body = calloc(1, 100000);
        assert(SSL_write_ex(c.ssl, GET, strlen(GET), &n) == 1);
        assert(SSL_write_ex(c.ssl, body, 100000, &n) == 1);
        free(body);
        UNTIL(&s, ended(&c));
        assert(c.eof && !c.reset);
        assert(ERR_GET_REASON(c.failure) == SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED);
        hang_up(&c);
    }
    assert(s.requests == 0 && s.refused == 20);
    stop(&s);
}

/* --- other certificates while it runs --------------------------------------------------------- */

static bool shows(server *s, const char *name) {
    client c = connect_to(s, TLS1_3_VERSION);
    UNTIL(s, established(&c));
    bool good = X509_check_host(certificate_of(&c), name, 0, 0, NULL) == 1;
    hang_up(&c);
    return good;
}

static void test_files_change(void) {
    make_files("live", "DNS:old.test");
    char certfile[128], keyfile[128];
    (void)snprintf(certfile, sizeof(certfile), "%s", path_of("live", ".crt"));
    (void)snprintf(keyfile, sizeof(keyfile), "%s", path_of("live", ".key"));
    server s;
    prepare(&s, ANSWER);
    s.settings.certfile = certfile;
    s.settings.keyfile = keyfile;
    s.settings.reload_interval = 100;
    start(&s);
    client c = served(&s, TLS1_3_VERSION);
    assert(shows(&s, "old.test") && s.notices[0] == '\0');
    write_text(keyfile, "half a file\n");
    UNTIL(&s, strstr(s.notices, "error: TLS: cannot reload, the old certificates stay: ") != NULL);
    assert(strstr(s.notices, "live.key: no usable private key") != NULL);
    assert(shows(&s, "old.test"));
    int64_t from = now_ms();
    UNTIL(&s, now_ms() - from > 1200); /* several looks: it is said once */
    const char *told = strstr(s.notices, "cannot reload");
    assert(strstr(told + 1, "cannot reload") == NULL);
    make_files("live", "DNS:new.test");
    UNTIL(&s, strstr(s.notices, "\nTLS: reloaded ") != NULL);
    assert(shows(&s, "new.test"));
    say(&c, GET); /* goes on with what it has */
    UNTIL(&s, count_of(&c, "hello") == 2);
    assert(resumes(&s, &c)); /* the key of the tickets stays */
    hang_up(&c);
    stop(&s);
}

/* Of a folder it is told how many there are, and which cannot be used. */
static void test_files_of_a_folder_change(void) {
    char sni[128];
    (void)snprintf(sni, sizeof(sni), "%s", path_of("folder", ""));
    make_sni_folder(sni);
    server s;
    prepare(&s, ANSWER);
    s.settings.sni_dir = sni;
    s.settings.reload_interval = 100;
    start(&s);
    assert(asks(&s, "b.test", "b.test"));
    pair b = make_pair("new.test", NULL, NULL, -DAY, DAY);
    char path[160];
    (void)snprintf(path, sizeof(path), "%s/b.pem", sni);
    write_pair(&b, path, path, NULL);
    free_pair(&b);
    UNTIL(&s, strstr(s.notices, ", and 3 more\n") != NULL);
    assert(strstr(s.notices, "\nTLS: left out: ") != NULL);
    assert(strstr(s.notices, "c.cer: no certificate") != NULL);
    assert(asks(&s, "new.test", "new.test") && asks(&s, "b.test", "main.test"));
    stop(&s);
}

static void test_another_context(void) {
    server s;
    prepare(&s, ANSWER);
    start(&s);
    client c = served(&s, TLS1_2_VERSION);
    assert(shows(&s, "main.test"));
    char certfile[128], keyfile[128];
    (void)snprintf(certfile, sizeof(certfile), "%s", path_of("other", ".crt"));
    (void)snprintf(keyfile, sizeof(keyfile), "%s", path_of("other", ".key"));
    as_tls_settings settings = usual_settings();
    settings.certfile = certfile;
    settings.keyfile = keyfile;
    as_tls_context *other = make_context(&settings);
    as_loop_set_tls(s.loop, other);
    as_tls_context_unref(other);
    assert(shows(&s, "other.test"));
    say(&c, GET);
    UNTIL(&s, count_of(&c, "hello") == 2);
    hang_up(&c);
    stop(&s);
}

/* --- settings that cannot be ------------------------------------------------------------------ */

static void refuses(as_tls_settings settings, const char *reason) {
    as_tls_context *context = NULL;
    char why[AS_TLS_WHY] = "";
    assert(as_tls_context_new(&settings, &context, why) == AS_E_TLS_SETTINGS && context == NULL);
    if (strstr(why, reason) == NULL || strchr(why, '\n') != NULL) {
        (void)fprintf(stderr, "got \"%s\", expected \"%s\"\n", why, reason);
        abort();
    }
    assert(ERR_peek_error() == 0);
}

static void test_files_that_cannot_be_used(void) {
    pair late = make_pair("late", NULL, NULL, -2 * DAY, -DAY);
    pair early = make_pair("early", NULL, NULL, DAY, 2 * DAY);
    pair secret = make_pair("secret", NULL, NULL, -DAY, DAY);
    write_pair(&late, path_of("late", ".crt"), path_of("late", ".key"), NULL);
    write_pair(&early, path_of("early", ".crt"), path_of("early", ".key"), NULL);
    write_pair(&secret, path_of("secret", ".crt"), path_of("secret", ".key"), "open sesame");
    free_pair(&late);
    free_pair(&early);
    free_pair(&secret);
    write_text(path_of("empty", ".pem"), "");
    write_text(path_of("large", ".pem"), "");
    assert(truncate(path_of("large", ".pem"), 16 * 1024 * 1024) == 0);
    as_tls_settings usual = usual_settings(), s = usual;
    s.certfile = NULL;
    refuses(s, "no certificate file is given");
    s.certfile = "";
    refuses(s, "no certificate file is given");
    s.certfile = path_of("missing", ".crt");
    refuses(s, "missing.crt: No such file");
    s.certfile = folder;
    refuses(s, ": Is a directory");
    s.certfile = path_of("empty", ".pem");
    refuses(s, "empty.pem: no certificate in PEM form");
    s.certfile = path_of("large", ".pem");
    refuses(s, "large.pem: too large");
    s.certfile = path_of("main", ".key");
    refuses(s, "main.key: no certificate in PEM form");
    s = usual;
    s.keyfile = NULL;
    refuses(s, "main.crt: no usable private key in PEM form");
    s.keyfile = path_of("missing", ".key");
    refuses(s, "missing.key: No such file");
    s.keyfile = path_of("other", ".key");
    refuses(s, "other.key: the private key does not belong to the certificate in ");
    s.certfile = path_of("late", ".crt");
    s.keyfile = path_of("late", ".key");
    refuses(s, "late.crt: the certificate has expired at 20");
    s.certfile = path_of("early", ".crt");
    s.keyfile = path_of("early", ".key");
    refuses(s, "early.crt: the certificate is not valid before 20");
    s.certfile = path_of("secret", ".crt");
    s.keyfile = path_of("secret", ".key");
    refuses(s, "secret.key: the private key is encrypted, and no password is given");
    s.password = AS_SLICE("open barley");
    refuses(s, "secret.key: wrong password");
    s.password = AS_SLICE("open sesame");
    as_tls_context_unref(make_context(&s));
}

/* A folder full of what is no certificate says so, and not for ever. */
static void test_many_warnings(void) {
    char sni[128], path[400];
    (void)snprintf(sni, sizeof(sni), "%s", path_of("many", ""));
    make_sni_folder(sni);
    for (int i = 0; i < 500; i++) {
        (void)snprintf(path, sizeof(path), "%s/%0180d.pem", sni, i);
        write_text(path, "nonsense\n");
    }
    as_tls_settings s = usual_settings();
    s.sni_dir = sni;
    as_tls_context *context = make_context(&s);
    size_t n = strlen(as_tls_context_warnings(context));
    assert(n > 50000 && n <= 65536);
    as_tls_context_unref(context);
}

static void test_rules_that_cannot_be(void) {
    as_tls_settings usual = usual_settings(), s = usual;
    s.ciphers = "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-NONSENSE";
    refuses(s, "unknown cipher: ECDHE-NONSENSE");
    s.ciphers = "TLS_NONSENSE";
    refuses(s, "unknown cipher: TLS_NONSENSE");
    s.ciphers = "AES128-SHA:!AES128-SHA"; /* each is one */
    refuses(s, "ciphers: ");
    s.ciphers = "HIGH:!aNULL:@SECLEVEL=1:TLS_CHACHA20_POLY1305_SHA256";
    as_tls_context_unref(make_context(&s));
    s = usual;
    s.min_version = 0x0301;
    refuses(s, "min_version must be 0x0303 (TLS 1.2) or 0x0304: 0x0301");
    s = usual;
    s.verify = AS_TLS_VERIFY_REQUIRED;
    refuses(s, "ca_certs must say who signs them");
    s.ca_certs = path_of("main", ".key");
    refuses(s, "main.key: no certificate in PEM form");
    s.ca_certs = path_of("missing", ".pem");
    refuses(s, "missing.pem: No such file");
    write_text(path_of("broken", ".pem"),
               "-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n");
    s.ca_certs = path_of("broken", ".pem");
    refuses(s, "broken.pem: unusable certificate: ");
    s = usual;
    s.sni_dir = path_of("missing", "");
    refuses(s, "missing: No such file");
    char bare[128];
    (void)snprintf(bare, sizeof(bare), "%s", path_of("bare", ""));
    assert(mkdir(bare, 0700) == 0);
    s.sni_dir = bare;
    refuses(s, "bare: no usable pair of certificate and key");
}

static void test_ciphers(void) {
    server s;
    prepare(&s, ANSWER);
    s.settings.ciphers = "ECDHE-ECDSA-CHACHA20-POLY1305:TLS_CHACHA20_POLY1305_SHA256";
    start(&s);
    client c = served(&s, TLS1_2_VERSION), d = served(&s, TLS1_3_VERSION);
    assert(strcmp(SSL_get_cipher(c.ssl), "ECDHE-ECDSA-CHACHA20-POLY1305") == 0);
    assert(strcmp(SSL_get_cipher(d.ssl), "TLS_CHACHA20_POLY1305_SHA256") == 0);
    assert(s.told.cipher == 0x1303);
    hang_up(&c);
    hang_up(&d);
    stop(&s);
}

int main(void) {
    (void)alarm(240);
    (void)signal(SIGPIPE, SIG_IGN);
    make_folder();
    RUN(test_server_names);
    RUN(test_names_of_a_certificate);
    RUN(test_chain);
    RUN(test_alpn);
    RUN(test_sessions);
    RUN(test_client_certificates);
    RUN(test_alert_arrives);
    RUN(test_files_change);
    RUN(test_files_of_a_folder_change);
    RUN(test_another_context);
    RUN(test_files_that_cannot_be_used);
    RUN(test_many_warnings);
    RUN(test_rules_that_cannot_be);
    RUN(test_ciphers);
    remove_tree(folder);
    return 0;
}
