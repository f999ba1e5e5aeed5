/* Load for WebSocket echo servers: connections that send a message, check what comes back, and send
 * the next one, on one thread.
 *
 *     ws_load --port N [--host ADDRESS] [--connections N] [--size BYTES] [--depth N] [--seconds N]
 *
 * `--depth` messages are under way on each connection. A message is text: a number, which tells it
 * from all others of its connection, and padding. Prints one line of JSON: the messages that came
 * back, how long that took, and the median and the 99th percentile of a message's time, in
 * microseconds. An echo that is wrong, too early or missing ends the program with status 1. */
#include "client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    NUMBER = 12,              /* digits at the start of a message */
    HEADER_MAX = 14,          /* bytes: of a frame that a client sends */
    PATIENCE_NS = 2000000000, /* for the echoes that are under way in the end */
};

static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};

typedef struct options {
    const char *host;
    unsigned port, connections, size, depth, seconds;
} options;

typedef struct conn {
    wire wire;
    uint64_t sent, received; /* messages */
    uint64_t *started;       /* [depth]: when message n was sent, at n % depth */
    char *in;
    size_t in_n;
    char *out; /* frames that the kernel has not taken */
    size_t out_at, out_n;
} conn;

typedef struct load {
    options o;
    int epoll;
    size_t in_max, out_max;
    char *frame; /* a masked frame whose number is still to be written */
    size_t frame_n, header_n;
    char *text; /* the same message, as it comes back */
    conn *conns;
    uint64_t under_way;
    times times;
    bool ends;
} load;

/* --- messages --------------------------------------------------------------------------------- */

static void write_number(char *p, uint64_t number) {
    for (int i = NUMBER - 1; i >= 0; i--) {
        p[i] = (char)('0' + number % 10);
        number /= 10;
    }
}

/* RFC 6455, 5.2: FIN and the opcode of text, then the length in one, three or nine bytes. */
static size_t write_header(unsigned char *p, unsigned size, bool masked) {
    unsigned bit = masked ? 0x80 : 0;
    p[0] = 0x81;
    if (size < 126) {
        p[1] = (unsigned char)(bit | size);
        return 2;
    }
    if (size < 1 << 16) {
        p[1] = (unsigned char)(bit | 126);
        p[2] = (unsigned char)(size >> 8);
        p[3] = (unsigned char)size;
        return 4;
    }
    p[1] = (unsigned char)(bit | 127);
    for (int i = 0; i < 8; i++) {
        p[2 + i] = (unsigned char)((uint64_t)size >> 8 * (7 - i));
    }
    return 10;
}

static void make_messages(load *l) {
    unsigned size = l->o.size;
    l->text = allocate(HEADER_MAX + size);
    size_t n = write_header((unsigned char *)l->text, size, false);
    memset(l->text + n, 'x', size);
    l->in_max = n + size;
    l->frame = allocate(HEADER_MAX + size);
    l->header_n = write_header((unsigned char *)l->frame, size, true) + sizeof(mask);
    memcpy(l->frame + l->header_n - sizeof(mask), mask, sizeof(mask));
    for (unsigned i = 0; i < size; i++) {
        l->frame[l->header_n + i] = (char)('x' ^ mask[i % 4]);
    }
    l->frame_n = l->header_n + size;
}

static void queue_message(load *l, conn *c) {
    if (c->out_n + l->frame_n > l->out_max) {
        fail("a server sent more than it was sent");
    }
    char *p = c->out + c->out_n;
    memcpy(p, l->frame, l->frame_n);
    write_number(p + l->header_n, c->sent);
    for (int i = 0; i < NUMBER; i++) {
        p[l->header_n + (size_t)i] ^= (char)mask[i % 4];
    }
    c->out_n += l->frame_n;
    c->started[c->sent % l->o.depth] = now_ns();
    c->sent++;
    l->under_way++;
}

/* --- connections ------------------------------------------------------------------------------ */

static void flush(load *l, conn *c) {
    if (!wire_send(&c->wire, l->epoll, c->out, &c->out_at, c->out_n)) {
        fail("send: %s", strerror(errno));
    }
    if (c->out_at == c->out_n) {
        c->out_at = c->out_n = 0;
    } else if (c->out_at > 0) {
        memmove(c->out, c->out + c->out_at, c->out_n - c->out_at);
        c->out_n -= c->out_at;
        c->out_at = 0;
    }
}

static void take_echo(load *l, conn *c, const char *echo) {
    if (c->received == c->sent) {
        fail("an echo of nothing");
    }
    size_t header_n = l->in_max - l->o.size;
    write_number(l->text + header_n, c->received);
    if (memcmp(echo, l->text, l->in_max) != 0) {
        fail("message %llu came back as another one", (unsigned long long)c->received);
    }
    uint64_t took = now_ns() - c->started[c->received % l->o.depth];
    c->received++;
    l->under_way--;
    if (!l->ends) {
        times_add(&l->times, took);
        queue_message(l, c);
    }
}

/* Control frames (pings) are passed over: no run is long enough for them to be missed. */
static size_t take_frame(load *l, conn *c, const char *p, size_t n) {
    if (n >= 2 && (p[0] & 0x08)) {
        size_t length = 2 + (size_t)(p[1] & 0x7f);
        if ((p[0] & 0x0f) == 8) {
            fail("the server closed");
        }
        return n >= length ? length : 0;
    }
    if (n < l->in_max) {
        return 0;
    }
    take_echo(l, c, p);
    return l->in_max;
}

static void receive(load *l, conn *c) {
    size_t room = l->in_max * l->o.depth + 256 - c->in_n;
    ssize_t got = recv(c->wire.fd, c->in + c->in_n, room, 0);
    if (got < 0 && errno == EAGAIN) {
        return;
    }
    if (got <= 0) {
        fail("a connection ended: %s", got < 0 ? strerror(errno) : "closed");
    }
    c->in_n += (size_t)got;
    size_t at = 0;
    for (size_t n; (n = take_frame(l, c, c->in + at, c->in_n - at)) > 0;) {
        at += n;
    }
    memmove(c->in, c->in + at, c->in_n - at);
    c->in_n -= at;
    flush(l, c);
}

static void open_conn(load *l, conn *c) {
    wire_connect(&c->wire, l->o.host, l->o.port);
    static const char request[] = "GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\n"
                                  "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    if (send(c->wire.fd, request, sizeof(request) - 1, MSG_NOSIGNAL) != sizeof(request) - 1) {
        fail("send: %s", strerror(errno));
    }
    char head[4096];
    size_t n = 0;
    while (n < 4 || memcmp(head + n - 4, "\r\n\r\n", 4) != 0) {
        if (n == sizeof(head) - 1 || recv(c->wire.fd, head + n, 1, 0) != 1) {
            fail("no answer to the handshake");
        }
        n++;
    }
    head[n] = '\0';
    if (strncmp(head, "HTTP/1.1 101 ", 13) != 0 ||
        strcasestr(head, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") == NULL) {
        fail("the handshake was answered by\n%s", head);
    }
    wire_watch(&c->wire, l->epoll);
    c->in = allocate(l->in_max * l->o.depth + 256);
    c->out = allocate(l->out_max);
    c->started = allocate(l->o.depth * sizeof(*c->started));
}

static void close_conn(conn *c) {
    /* A masked close frame with 1000. */
    const unsigned char frame[] = {0x88,    0x82,    mask[0],        mask[1],
                                   mask[2], mask[3], 0x03 ^ mask[0], 0xe8 ^ mask[1]};
    (void)send(c->wire.fd, frame, sizeof(frame), MSG_NOSIGNAL);
    (void)close(c->wire.fd);
    free(c->in);
    free(c->out);
    free(c->started);
}

/* --- the run ---------------------------------------------------------------------------------- */

static void on_room(void *l, void *c) {
    flush(l, c);
}

static void on_bytes(void *l, void *c) {
    receive(l, c);
}

static void run(load *l) {
    for (unsigned i = 0; i < l->o.connections; i++) {
        open_conn(l, &l->conns[i]);
    }
    uint64_t began = now_ns(), end = began + (uint64_t)l->o.seconds * 1000000000u;
    for (unsigned i = 0; i < l->o.connections; i++) {
        for (unsigned k = 0; k < l->o.depth; k++) {
            queue_message(l, &l->conns[i]);
        }
        flush(l, &l->conns[i]);
    }
    uint64_t now;
    while ((now = now_ns()) < end) {
        (void)serve_wires(l->epoll, (int)((end - now) / 1000000) + 1, on_room, on_bytes, l);
    }
    l->ends = true;
    while (l->under_way > 0) {
        if (now_ns() > now + PATIENCE_NS) {
            fail("%llu messages did not come back", (unsigned long long)l->under_way);
        }
        (void)serve_wires(l->epoll, 100, on_room, on_bytes, l);
    }
    for (unsigned i = 0; i < l->o.connections; i++) {
        close_conn(&l->conns[i]);
    }
    (void)printf("{\"messages\": %llu, \"seconds\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
                 (unsigned long long)l->times.count, (double)(now - began) / 1e9,
                 times_percentile(&l->times, 0.5), times_percentile(&l->times, 0.99));
}

static void usage(void) {
    (void)fprintf(stderr, "usage: ws_load --port N [--host ADDRESS] [--connections N] "
                          "[--size BYTES] [--depth N] [--seconds N]\n");
    exit(2);
}

static unsigned number(const char *text, unsigned min, unsigned max) {
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || value < min || value > max) {
        usage();
    }
    return (unsigned)value;
}

int main(int argc, char **argv) {
    load l = {.o = {"127.0.0.1", 0, 64, 64, 1, 3}};
    for (int i = 1; i < argc; i += 2) {
        const char *option = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(option, "--host") == 0) {
            l.o.host = value;
        } else if (strcmp(option, "--port") == 0) {
            l.o.port = number(value, 1, UINT16_MAX);
        } else if (strcmp(option, "--connections") == 0) {
            l.o.connections = number(value, 1, 100000);
        } else if (strcmp(option, "--size") == 0) {
            l.o.size = number(value, NUMBER, 1 << 24);
        } else if (strcmp(option, "--depth") == 0) {
            l.o.depth = number(value, 1, 1000);
        } else if (strcmp(option, "--seconds") == 0) {
            l.o.seconds = number(value, 1, 3600);
        } else {
            usage();
        }
    }
    if (l.o.port == 0) {
        usage();
    }
    make_messages(&l);
    l.out_max = l.frame_n * l.o.depth;
    l.conns = allocate(l.o.connections * sizeof(conn));
    l.epoll = open_epoll();
    run(&l);
    (void)close(l.epoll);
    free(l.frame);
    free(l.text);
    free(l.conns);
    return 0;
}
