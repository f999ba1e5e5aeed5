/* Heads that repeat: what a loop keeps of them changes nothing that is seen. */
#include "http1_rows.h"

/* What comes of bytes on a new connection of the loop. */
static void see(world *w, const char *raw, size_t n, text *seen) {
    world_reconnect(w);
    text_clear(&w->request);
    text_clear(&w->all);
    text_clear(&w->out);
    text_clear(&w->refused);
    feed(w, raw, n);
    text_add(seen, text_of(&w->all), w->all.n);
    text_add(seen, text_of(&w->out), w->out.n);
    text_add(seen, text_of(&w->refused), w->refused.n);
    text_addf(seen, "%d %d", phase(w), as_h1_wants_linger(&w->h1));
}

/* As often as it takes to be kept, if it may be. */
static void warm(world *w, const char *raw, size_t n) {
    text seen = {NULL, 0};
    for (int i = 0; i < 3; i++) {
        see(w, raw, n, &seen);
        text_clear(&seen);
    }
}

static bool is_kept(const world *w, const char *raw, size_t n) {
    return as_head_cache_find(w->env.heads, raw, n) != NULL;
}

/* The same bytes say the same on a loop that has seen `before` and on one that has seen nothing. */
static void check_warm(world *w, const char *raw, size_t n) {
    text one = {NULL, 0}, other = {NULL, 0};
    world *cold = world_new();
    see(cold, raw, n, &one);
    see(w, raw, n, &other);
    same("on a warm loop", &other, text_of(&one));
    text_clear(&one);
    text_clear(&other);
    world_free(cold);
}

static void check_again(const char *name, const char *raw) {
    current = name;
    text twice = {NULL, 0};
    text_addf(&twice, GOOD);
    text_add(&twice, raw, strlen(raw));
    text_add(&twice, raw, strlen(raw));
    world *w = world_new();
    warm(w, raw, strlen(raw));
    check_warm(w, raw, strlen(raw));
    check_warm(w, text_of(&twice), twice.n);
    check_warm(w, text_of(&twice), twice.n);
    text_clear(&twice);
    world_free(w);
}

static void test_tables_again(void) {
    for (size_t i = 0; i < ROWS(good_rows); i++) {
        check_again(good_rows[i].name, good_rows[i].raw);
    }
    for (size_t i = 0; i < ROWS(bad_rows); i++) {
        check_again(bad_rows[i].raw, bad_rows[i].raw);
    }
}

/* Each byte of a head that is kept counts, and so does where it ends. */
static void test_one_byte_differs(void) {
    static const char raw[] =
        "GET /path HTTP/1.1\r\n" H "User-Agent: test/1.0 (of heads)\r\nAccept: */*\r\n"
        "Connection: keep-alive\r\nCache-Control: max-age=0\r\n\r\n";
    static const char others[] = "\r\n :Xx0/\t";
    size_t n = sizeof(raw) - 1;
    char changed[sizeof(raw) + 1];
    current = "one byte differs";
    world *w = world_new();
    warm(w, raw, n);
    CHECK(is_kept(w, raw, n));
    for (size_t at = 0; at < n; at++) {
        CHECK(!is_kept(w, raw, at));
        check_warm(w, raw, at);
        for (size_t i = 0; i < sizeof(others) - 1; i++) {
            memcpy(changed, raw, sizeof(raw));
            changed[at] = others[i];
            CHECK(changed[at] == raw[at] || !is_kept(w, changed, n));
            check_warm(w, changed, n);
        }
        memcpy(changed, raw, at);
        changed[at] = 'z';
        memcpy(changed + at + 1, raw + at, n - at);
        CHECK(!is_kept(w, changed, n + 1));
        check_warm(w, changed, n + 1);
    }
    CHECK(is_kept(w, raw, n));
    world_free(w);
}

typedef struct kept_row {
    const char *raw;
    bool is_kept;
} kept_row;

#define TEN(s) s s s s s s s s s s
static const kept_row kept_rows[] = {
    {"GET / HTTP/1.1\r\n" H "\r\n", true},
    {"HEAD / HTTP/1.1\r\n" H "\r\n", true},
    {"DELETE /a/b HTTP/1.1\r\n" H "\r\n", true},
    {"GET / HTTP/1.0\r\n" H "\r\n", true},
    {"GET http://b/ HTTP/1.1\r\n" H "\r\n", true},
    {"GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n", true},
    {"GET / HTTP/1.1\r\n" H TEN("Accept: a\r\n") TEN("Via: b\r\n") TEN("DNT: 1\r\n") "\r\n", true},
    {"GET / HTTP/1.1\r\n" H TEN("Accept: a\r\n") TEN("Via: b\r\n")
         TEN("DNT: 1\r\n") "DNT: 1\r\n"
                           "DNT: 1\r\n\r\n",
     false},
    {"GET / HTTP/1.1\r\n" H "User-Agent: " TEN(TEN("123456789012345678901")) "\r\n\r\n", false},
    {"GET / HTTP/1.0\r\n\r\n", false},
    {"GET /?token=1 HTTP/1.1\r\n" H "\r\n", false},
    {"GET / HTTP/1.1\r\n" H "Cookie: a=b\r\n\r\n", false},
    {"GET / HTTP/1.1\r\n" H "Authorization: Bearer a\r\n\r\n", false},
    {"GET / HTTP/1.1\r\n" H "X-Api-Key: a\r\n\r\n", false},
    {"GET / HTTP/1.1\r\n" H "X-Forwarded-Host: a\r\n\r\n", false},
    {"GET / HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", false},
    {"GET / HTTP/1.1\r\n" H "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", false},
};

static void test_which_heads_are_kept(void) {
    for (size_t i = 0; i < ROWS(kept_rows); i++) {
        const kept_row *r = &kept_rows[i];
        size_t n = strlen(r->raw);
        text seen = {NULL, 0};
        current = r->raw;
        world *w = world_new();
        see(w, r->raw, n, &seen);
        CHECK(!is_kept(w, r->raw, n)); /* it may be the only one of its kind */
        see(w, r->raw, n, &seen);
        CHECK(is_kept(w, r->raw, n) == r->is_kept);
        text_clear(&seen);
        world_free(w);
    }
}

/* More than there is room for: those that are kept are few, and each is the right one. */
static void test_many_heads(void) {
    current = "many heads";
    world *w = world_new();
    char raw[100];
    unsigned kept = 0;
    for (unsigned i = 0; i < 600; i++) {
        int n = snprintf(raw, sizeof(raw), "GET /%u HTTP/1.1\r\n" H "\r\n", i % 300);
        warm(w, raw, (size_t)n);
        check_warm(w, raw, (size_t)n);
    }
    for (unsigned i = 0; i < 300; i++) {
        int n = snprintf(raw, sizeof(raw), "GET /%u HTTP/1.1\r\n" H "\r\n", i);
        kept += is_kept(w, raw, (size_t)n);
    }
    CHECK(kept > 0 && kept <= AS_HEAD_CACHE_SETS * AS_HEAD_CACHE_WAYS);
    world_free(w);
}

/* Whether a refusal has a body is this request's matter, parsed or not. */
static void test_kept_heads_refused(void) {
    static const char head[] = "HEAD / HTTP/1.1\r\n" H "\r\n",
                      get[] = "GET / HTTP/1.1\r\n" H "\r\n";
    current = "kept heads refused";
    world *w = world_new();
    w->limits.limit_concurrency = 1;
    warm(w, head, sizeof(head) - 1);
    warm(w, get, sizeof(get) - 1);
    w->env.requests++; /* another connection's */
    for (int i = 0; i < 2; i++) {
        text seen = {NULL, 0};
        see(w, head, sizeof(head) - 1, &seen);
        CHECK(strstr(text_of(&w->out), " 503 ") != NULL);
        CHECK(memcmp(w->out.p + w->out.n - 4, "\r\n\r\n", 4) == 0);
        see(w, get, sizeof(get) - 1, &seen);
        CHECK(strstr(text_of(&w->out), " 503 ") != NULL);
        CHECK(memcmp(w->out.p + w->out.n - 4, "\r\n\r\n", 4) != 0);
        text_clear(&seen);
    }
    w->env.requests--;
    world_free(w);
}

static void notify_nobody(as_h1 *h1) {
    (void)h1;
}

/* What a proxy tells is written into the head of its request. */
static void test_kept_heads_and_proxies(void) {
    static const as_scheme_field ssl = {{"X-FORWARDED-SSL", 15}, {"on", 2}};
    static const as_forwarding forwarding = {.fields = true, .schemes = &ssl, .nschemes = 1};
    static const char raw[] = "GET / HTTP/1.1\r\n" H "\r\n";
    current = "kept heads and proxies";
    world *w = world_new();
    warm(w, raw, sizeof(raw) - 1);
    w->env.forwarding = &forwarding;
    w->script = &keeping;
    for (int trusted = 0; trusted < 2; trusted++) {
        w->info.trusted = trusted;
        world_reconnect(w);
        feeds(w, raw);
        const as_head *kept = as_head_cache_find(w->env.heads, raw, sizeof(raw) - 1);
        CHECK((w->ex->head == kept) == !trusted);
        answer(w->ex);
        w->ex = NULL;
    }
    world_free(w);
}

/* A request that goes on has its head, whatever the cache does meanwhile, and whoever shares it. */
static void test_kept_heads_that_are_held(void) {
    static const char raw[] = "GET /held HTTP/1.1\r\n" H "\r\n";
    current = "kept heads that are held";
    world *w = world_new();
    warm(w, raw, sizeof(raw) - 1);
    as_exchange *held[2];
    as_h1 h1[2];
    w->script = &keeping;
    w->env.notify = notify_nobody;
    for (size_t i = 0; i < 2; i++) {
        char bytes[sizeof(raw)];
        memcpy(bytes, raw, sizeof(raw));
        as_h1_init(&h1[i], &w->env, &w->info);
        as_h1_feed(&h1[i], bytes, sizeof(raw) - 1);
        memset(bytes, 'x', sizeof(bytes));
        held[i] = w->ex;
        w->ex = NULL;
    }
    CHECK(held[0] != held[1] && held[0]->head == held[1]->head);
    w->script = NULL;
    for (unsigned i = 0; i < 300; i++) {
        char other[100];
        int n = snprintf(other, sizeof(other), "GET /held%u HTTP/1.1\r\n" H "\r\n", i);
        warm(w, other, (size_t)n);
        n = snprintf(other, sizeof(other), "GET /held HTTP/1.1\r\nHost: a%u\r\n\r\n", i);
        warm(w, other, (size_t)n);
    }
    CHECK(!is_kept(w, raw, sizeof(raw) - 1)); /* others took its place */
    for (size_t i = 0; i < 2; i++) {
        text_clear(&w->request);
        describe(w, held[i]);
        same("head", &w->request, "GET /held 1.1\nHost=[a]\n");
        answer(held[i]);
        as_h1_fini(&h1[i], AS_E_CLOSED);
    }
    world_free(w);
}

int main(void) {
    test_tables_again();
    test_one_byte_differs();
    test_which_heads_are_kept();
    test_many_heads();
    test_kept_heads_refused();
    test_kept_heads_and_proxies();
    test_kept_heads_that_are_held();
    return failures == 0 ? 0 : 1;
}
