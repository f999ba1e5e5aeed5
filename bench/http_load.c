/* Load for HTTP/1.1 servers: connections that send one request over and over, on one thread.
 *
 *     http_load --port N --request FILE --expect BYTES [--host ADDRESS] [--connections N]
 *               [--idle N] [--depth N] [--rate N] [--seconds S]
 *
 * Without --rate each connection sends `depth` requests in one write, and the next ones when all
 * are answered. With --rate, requests are due at fixed times, whatever the server does, and a
 * request's time runs from when it was due: a server that stalls is charged for all that would have
 * come meanwhile. --idle connections more are asked once and stay.
 *
 * Opens the connections, has each of them answered once, prints "ready", and waits for a line on
 * standard input. Sends until the time is over, waits for what is still under way, prints one line
 * of JSON (times in microseconds), and ends when standard input does: until then the connections
 * are open. An answer that is not a 200 with a body of --expect bytes, or is missing, ends the
 * program with status 1. A connection that the server closes between answers is opened again. */
#include "client.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    IN_MAX = 1 << 18,    /* bytes: read at once */
    REST_MAX = 1 << 12,  /* bytes: a head, or a chunk's line, that has not ended yet */
    PATIENCE_MS = 30000, /* without any answer */
};

typedef struct options {
    const char *host, *request;
    unsigned port, connections, idle, depth, rate;
    uint64_t expect;
    double seconds;
} options;

/* What comes next of an answer. */
typedef enum step { HEAD, BODY, UNTIL_EOF, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER } step;

typedef struct answer {
    size_t head_n;
    step step;
    uint64_t length;
    bool closes;
} answer;

typedef struct conn {
    wire wire; /* fd -1: closed, to be opened for the next request */
    bool idle, fresh, queued;
    step step;
    bool closes;         /* by the answer's own word */
    uint64_t left, body; /* bytes: to come, of the body or the chunk; of the body so far */
    unsigned batch, pending;
    size_t out_at, out_n; /* of the load's requests */
    uint64_t started;
    char rest[REST_MAX];
    size_t rest_n;
    struct conn *next; /* in the queue of those that are free */
} conn;

typedef enum phase { WARMING, CLOSED_LOOP, OPEN_LOOP, ENDING } phase;

typedef struct load {
    options o;
    int epoll;
    phase phase;
    char *requests; /* [depth] of them, one after the other */
    size_t request_n;
    conn *conns, *first_free, **last_free;
    char *in;                  /* the rest of a connection, then what was read */
    char known_text[REST_MAX]; /* the last head, which the next one mostly is, too */
    answer known;
    uint64_t under_way, opened, idle_lost;
    uint64_t began, planned, next_due; /* with a rate: requests to send, and sent */
    times times;
} load;

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/* --- connections ------------------------------------------------------------------------------ */

static void open_conn(load *l, conn *c) {
    wire_connect(&c->wire, l->o.host, l->o.port);
    c->step = HEAD;
    c->rest_n = 0;
    c->closes = false;
    c->fresh = true;
    l->opened += l->phase != WARMING;
    wire_watch(&c->wire, l->epoll);
}

static void flush(load *l, conn *c) {
    if (!wire_send(&c->wire, l->epoll, l->requests, &c->out_at, c->out_n)) {
        c->out_at = c->out_n; /* reading says so, after what the server may have sent */
    }
}

static void ask(load *l, conn *c) {
    if (c->wire.fd < 0) {
        open_conn(l, c);
    }
    c->pending = c->batch;
    c->out_at = 0;
    c->out_n = l->request_n * c->batch;
    flush(l, c);
}

static void begin_batch(load *l, conn *c, unsigned batch, uint64_t started) {
    c->batch = batch;
    c->started = started;
    l->under_way += batch;
    ask(l, c);
}

/* All that was asked on it is answered. */
static void now_free(load *l, conn *c) {
    if (l->phase == CLOSED_LOOP && !c->idle) {
        begin_batch(l, c, l->o.depth, now_ns());
    } else if (l->phase == OPEN_LOOP && !c->idle && !c->queued) {
        c->queued = true;
        c->next = NULL;
        *l->last_free = c;
        l->last_free = &c->next;
    }
}

/* --- answers ---------------------------------------------------------------------------------- */

static void end_answer(load *l, conn *c) {
    if (c->body != l->o.expect) {
        fail("a body of %llu bytes, not %llu", (unsigned long long)c->body,
             (unsigned long long)l->o.expect);
    }
    c->step = HEAD;
    c->fresh = false;
    c->pending--;
    l->under_way--;
    if (l->phase != WARMING) {
        times_add(&l->times, now_ns() - c->started);
    }
    if (c->closes && c->pending > 0) {
        fail("the server closes with %u requests unanswered", c->pending);
    }
    if (c->pending == 0 && !c->closes) {
        now_free(l, c);
    }
}

static const char *value_of(const char *line, const char *name) {
    size_t n = strlen(name);
    if (strncasecmp(line, name, n) != 0) {
        return NULL;
    }
    return line + n + strspn(line + n, " \t");
}

/* `p` ends with an empty line, so that nothing here reads further. */
static void read_head(answer *a, const char *p) {
    if (strncmp(p, "HTTP/1.", 7) != 0 || strncmp(p + 8, " 200", 4) != 0) {
        fail("an answer that is not a 200: %.*s", (int)strcspn(p, "\r\n"), p);
    }
    a->step = UNTIL_EOF;
    a->length = 0;
    a->closes = p[7] == '0';
    const char *end = p + a->head_n - 2, *value;
    for (const char *line = strchr(p, '\n') + 1; line < end; line = strchr(line, '\n') + 1) {
        if ((value = value_of(line, "content-length:")) != NULL && a->step != CHUNK_SIZE) {
            a->step = BODY;
            a->length = strtoull(value, NULL, 10);
        } else if ((value = value_of(line, "transfer-encoding:")) != NULL) {
            a->step = value_of(value, "chunked") != NULL ? CHUNK_SIZE : UNTIL_EOF;
        } else if ((value = value_of(line, "connection:")) != NULL) {
            a->closes = value_of(value, "close") != NULL ||
                        (a->closes && value_of(value, "keep-alive") == NULL);
        }
    }
    a->closes = a->closes || a->step == UNTIL_EOF;
}

static size_t take_head(load *l, conn *c, const char *p, size_t n) {
    if (c->pending == 0) {
        fail("an answer that nobody asked for");
    }
    answer *a = &l->known;
    if (a->head_n == 0 || n < a->head_n || memcmp(p, l->known_text, a->head_n) != 0) {
        const char *end = memmem(p, n, "\r\n\r\n", 4);
        if (end == NULL) {
            return 0;
        }
        a->head_n = (size_t)(end + 4 - p);
        if (a->head_n > REST_MAX) {
            fail("a head of %zu bytes", a->head_n);
        }
        memcpy(l->known_text, p, a->head_n);
        read_head(a, l->known_text);
    }
    c->step = a->step;
    c->left = a->length;
    c->body = 0;
    c->closes = a->closes;
    if (c->step == BODY && c->left == 0) {
        end_answer(l, c);
    }
    return a->head_n;
}

/* Of the body, or of a chunk. */
static size_t take_data(load *l, conn *c, size_t n) {
    if (c->step == UNTIL_EOF) {
        c->body += n;
        return n;
    }
    n = least(n, c->left);
    c->left -= n;
    c->body += n;
    if (c->left == 0 && c->step == BODY) {
        end_answer(l, c);
    } else if (c->left == 0) {
        c->step = CHUNK_END;
    }
    return n;
}

/* The lines around chunks. */
static size_t take_line(load *l, conn *c, const char *p, size_t n) {
    const char *end = memchr(p, '\n', n);
    if (end == NULL) {
        return 0;
    }
    size_t line_n = (size_t)(end + 1 - p);
    bool empty = line_n == 2 && p[0] == '\r';
    if (c->step == CHUNK_SIZE) {
        if (!isxdigit((unsigned char)p[0])) {
            fail("a chunk without a size");
        }
        c->left = strtoull(p, NULL, 16);
        c->step = c->left > 0 ? CHUNK_DATA : TRAILER;
    } else if (c->step == CHUNK_END) {
        if (!empty) {
            fail("a chunk that is longer than its size");
        }
        c->step = CHUNK_SIZE;
    } else if (empty) {
        end_answer(l, c);
    }
    return line_n;
}

/* How many bytes it used; 0: more are needed. */
static size_t take(load *l, conn *c, const char *p, size_t n) {
    switch (c->step) {
    case HEAD:
        return take_head(l, c, p, n);
    case BODY:
    case UNTIL_EOF:
    case CHUNK_DATA:
        return take_data(l, c, n);
    default:
        return take_line(l, c, p, n);
    }
}

static void on_eof(load *l, conn *c) {
    (void)close(c->wire.fd);
    c->wire.fd = -1;
    c->wire.watched = false;
    if (c->step == UNTIL_EOF) {
        end_answer(l, c);
    }
    l->idle_lost += c->idle;
    if (c->pending == 0) {
        now_free(l, c);
        return;
    }
    /* A request may cross with the server's closing of a kept connection; on a new one it may not.
     */
    if (c->fresh || c->pending < c->batch || c->step != HEAD || c->rest_n > 0) {
        fail("the server closed with %u requests unanswered", c->pending);
    }
    ask(l, c);
}

static void receive(load *l, conn *c) {
    memcpy(l->in, c->rest, c->rest_n);
    ssize_t got = recv(c->wire.fd, l->in + c->rest_n, IN_MAX, 0);
    if (got < 0 && errno == EAGAIN) {
        return;
    }
    if (got <= 0) {
        on_eof(l, c);
        return;
    }
    size_t n = c->rest_n + (size_t)got, at = 0;
    c->rest_n = 0;
    for (size_t used; at < n && (used = take(l, c, l->in + at, n - at)) > 0;) {
        at += used;
    }
    if (n - at > REST_MAX) {
        fail("a head, or a chunk's line, that does not end");
    }
    c->rest_n = n - at;
    memcpy(c->rest, l->in + at, c->rest_n);
}

/* --- the run ---------------------------------------------------------------------------------- */

static void on_room(void *l, void *c) {
    flush(l, c);
}

static void on_bytes(void *l, void *c) {
    receive(l, c);
}

static void serve_events(load *l, int timeout_ms) {
    int n = serve_wires(l->epoll, timeout_ms, on_room, on_bytes, l);
    if (n == 0 && timeout_ms == PATIENCE_MS) {
        fail("%llu requests are not answered", (unsigned long long)l->under_way);
    }
}

static void drain(load *l) {
    while (l->under_way > 0) {
        serve_events(l, PATIENCE_MS);
    }
}

static void warm_up(load *l) {
    for (unsigned i = 0; i < l->o.connections + l->o.idle; i++) {
        l->conns[i].wire.fd = -1;
        l->conns[i].idle = i >= l->o.connections;
        begin_batch(l, &l->conns[i], 1, 0);
        serve_events(l, 0);
    }
    drain(l);
}

static void run_closed(load *l, uint64_t end) {
    l->phase = CLOSED_LOOP;
    for (unsigned i = 0; i < l->o.connections; i++) {
        now_free(l, &l->conns[i]);
    }
    for (uint64_t now; (now = now_ns()) < end;) {
        serve_events(l, (int)((end - now) / 1000000) + 1);
    }
}

static uint64_t due_ns(const load *l) {
    return l->began + (uint64_t)((double)l->next_due * 1e9 / l->o.rate);
}

static void send_due(load *l) {
    uint64_t due, now = now_ns();
    while (l->next_due < l->planned && l->first_free != NULL && (due = due_ns(l)) <= now) {
        conn *c = l->first_free;
        l->first_free = c->next;
        c->queued = false;
        if (c->next == NULL) {
            l->last_free = &l->first_free;
        }
        l->next_due++;
        begin_batch(l, c, 1, due);
    }
}

/* Looks all the time: a timer would add its own delays to the server's. */
static void run_open(load *l, uint64_t end) {
    l->phase = OPEN_LOOP;
    l->planned = (uint64_t)(l->o.rate * l->o.seconds);
    for (unsigned i = 0; i < l->o.connections; i++) {
        now_free(l, &l->conns[i]);
    }
    while (l->next_due < l->planned) {
        send_due(l);
        serve_events(l, 0);
        if (now_ns() > end + PATIENCE_MS * UINT64_C(1000000)) {
            fail("the server does not keep up with the rate");
        }
    }
}

static void run(load *l) {
    l->began = now_ns();
    uint64_t end = l->began + (uint64_t)(l->o.seconds * 1e9);
    if (l->o.rate > 0) {
        run_open(l, end);
    } else {
        run_closed(l, end);
    }
    l->phase = ENDING;
    drain(l);
    double seconds = (double)(now_ns() - l->began) / 1e9;
    (void)printf("{\"answers\": %llu, \"seconds\": %.6f, \"p50_us\": %.2f, \"p99_us\": %.2f, "
                 "\"p999_us\": %.2f, \"opened\": %llu, \"idle_lost\": %llu}\n",
                 (unsigned long long)l->times.count, seconds, times_percentile(&l->times, 0.5),
                 times_percentile(&l->times, 0.99), times_percentile(&l->times, 0.999),
                 (unsigned long long)l->opened, (unsigned long long)l->idle_lost);
    (void)fflush(stdout);
}

static void read_request(load *l) {
    FILE *file = fopen(l->o.request, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        fail("%s: %s", l->o.request, strerror(errno));
    }
    l->request_n = (size_t)ftell(file);
    l->requests = allocate(l->request_n * l->o.depth + 1);
    if (l->request_n == 0 || fseek(file, 0, SEEK_SET) != 0 ||
        fread(l->requests, 1, l->request_n, file) != l->request_n) {
        fail("%s cannot be read", l->o.request);
    }
    (void)fclose(file);
    for (unsigned i = 1; i < l->o.depth; i++) {
        memcpy(l->requests + i * l->request_n, l->requests, l->request_n);
    }
}

static void usage(void) {
    (void)fprintf(stderr, "usage: http_load --port N --request FILE --expect BYTES "
                          "[--host ADDRESS] [--connections N] [--idle N] [--depth N] [--rate N] "
                          "[--seconds S]\n");
    exit(2);
}

static double number(const char *text, double min, double max) {
    char *end;
    double value = strtod(text, &end);
    if (*text < '0' || *text > '9' || *end != '\0' || value < min || value > max) {
        usage();
    }
    return value;
}

static void read_options(options *o, int argc, char **argv) {
    for (int i = 1; i < argc; i += 2) {
        const char *option = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(option, "--host") == 0) {
            o->host = value;
        } else if (strcmp(option, "--request") == 0) {
            o->request = value;
        } else if (strcmp(option, "--port") == 0) {
            o->port = (unsigned)number(value, 1, UINT16_MAX);
        } else if (strcmp(option, "--connections") == 0) {
            o->connections = (unsigned)number(value, 1, 100000);
        } else if (strcmp(option, "--idle") == 0) {
            o->idle = (unsigned)number(value, 0, 100000);
        } else if (strcmp(option, "--depth") == 0) {
            o->depth = (unsigned)number(value, 1, 1000);
        } else if (strcmp(option, "--rate") == 0) {
            o->rate = (unsigned)number(value, 1, 1e7);
        } else if (strcmp(option, "--expect") == 0) {
            o->expect = (uint64_t)number(value, 0, 1e12);
        } else if (strcmp(option, "--seconds") == 0) {
            o->seconds = number(value, 0.01, 3600);
        } else {
            usage();
        }
    }
    if (o->port == 0 || o->request == NULL) {
        usage();
    }
}

int main(int argc, char **argv) {
    load l = {.o = {.host = "127.0.0.1", .connections = 64, .depth = 1, .seconds = 3}};
    read_options(&l.o, argc, argv);
    read_request(&l);
    l.last_free = &l.first_free;
    l.conns = allocate(((size_t)l.o.connections + l.o.idle) * sizeof(conn));
    l.in = allocate(REST_MAX + IN_MAX);
    l.epoll = open_epoll();
    warm_up(&l);
    (void)puts("ready");
    (void)fflush(stdout);
    if (getchar() != EOF) {
        run(&l);
        while (getchar() != EOF) {
        }
    }
    (void)close(l.epoll);
    free(l.conns);
    free(l.requests);
    free(l.in);
    return 0;
}
