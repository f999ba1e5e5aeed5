/* The transport over OpenSSL: records are read into OpenSSL's buffer and decrypted into the
 * caller's, and encrypted from the caller's memory, by a BIO of the socket itself
 * (docs/decisions/tls-transport.md).
 *
 * OpenSSL keeps its errors in a queue of the thread: it is emptied before every call whose result
 * is looked at, and behind those that fail. */
#include "net/tls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>

#include "net/tls_internal.h"

#define HANDSHAKE 0x16 /* the type of the record that begins a connection (RFC 8446, 5.1) */
#define SPARE_MOST 32  /* records without data behind one another; BoringSSL has as many */

as_tls *as_tls_of(const as_transport *t) {
    return t->tls;
}

static as_err break_with(as_tls *tls, as_err why) {
    tls->broken = why;
    return why;
}

/* --- errors ----------------------------------------------------------------------------------- */

static as_err of_errno(int error) {
    return error == ENOMEM || error == ENOBUFS ? AS_E_NOMEM : AS_E_RESET;
}

/* What the peer, or OpenSSL, has against it. */
static void note_failure(as_tls *tls) {
    unsigned long error = ERR_peek_error();
    long verify = SSL_get_verify_result(tls->ssl);
    const char *reason = ERR_reason_error_string(error);
    if (ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED && verify != X509_V_OK) {
        reason = X509_verify_cert_error_string(verify);
    }
    tls->failure = reason;
}

/* Of a call that failed: 0 for "not now", by what the transport `wants` then. */
static ssize_t judge(as_transport *t, int result, int error, int *eof) {
    as_tls *tls = t->tls;
    as_err why;
    if (tls->spare == 0) {
        ERR_clear_error();
        return break_with(tls, AS_E_TLS_FLOOD);
    }
    switch (SSL_get_error(tls->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        t->wants = t->handshaking ? AS_WANTS_READ : 0;
        return 0;
    case SSL_ERROR_WANT_WRITE:
        t->wants = AS_WANTS_WRITE;
        return 0;
    case SSL_ERROR_ZERO_RETURN:
        *eof = 1;
        return 0;
    case SSL_ERROR_SYSCALL:
        why = of_errno(error);
        break;
    default:
        note_failure(tls);
        why = t->handshaking ? AS_E_TLS_HANDSHAKE : AS_E_TLS_RECORD;
    }
    ERR_clear_error();
    return break_with(tls, why);
}

/* --- records without data --------------------------------------------------------------------- */

/* Requests to renegotiate (which are refused), for new keys, and what else is answered or dropped
 * by OpenSSL from within SSL_read, which goes on as long as the socket has more of them: a client
 * that does not stop would have the loop for itself. Each record takes one of those that may come,
 * and gives it back when it has brought data; so does each call, as a client that is never faster
 * than the loop harms nobody. When there are none left, SSL_read is to take what it has for the
 * end. */
static void on_message(int written, int version, int type, const void *data, size_t n, SSL *ssl,
                       void *arg) {
    as_tls *tls = arg;
    (void)version;
    (void)data;
    (void)n;
    if (written != 0 || type != SSL3_RT_HEADER || !SSL_is_init_finished(ssl) || tls->spare == 0) {
        return;
    }
    tls->spare--;
    if (tls->spare == 0) {
        SSL_set_shutdown(ssl, SSL_get_shutdown(ssl) | SSL_RECEIVED_SHUTDOWN);
    }
}

static void spare_one(as_tls *tls) {
    if (tls->spare > 0 && tls->spare < SPARE_MOST) {
        tls->spare++;
    }
}

/* --- our end ---------------------------------------------------------------------------------- */

/* RFC 8446, 6.1: whoever gets no close_notify takes what came for cut off. */
static bool owes_close_notify(const as_transport *t) {
    return !t->handshaking && t->tls->broken == AS_OK && !t->tls->finished;
}

/* False: not now. */
static bool send_close_notify(as_tls *tls) {
    ERR_clear_error();
    int result = SSL_shutdown(tls->ssl);
    bool later = result < 0 && SSL_get_error(tls->ssl, result) == SSL_ERROR_WANT_WRITE;
    ERR_clear_error();
    return !later;
}

/* The close_notify, and behind it our FIN; again while the socket is full. */
static void finish(as_transport *t) {
    as_tls *tls = t->tls;
    tls->closing = (tls->closing || owes_close_notify(t)) && !send_close_notify(tls);
    tls->finished = true;
    t->wants = tls->closing ? AS_WANTS_WRITE : 0;
    if (!tls->closing) {
        (void)shutdown(t->fd, SHUT_WR);
    }
}

/* --- reading ---------------------------------------------------------------------------------- */

/* A client that speaks HTTP here gets an answer in HTTP, which only who owns the connection can
 * give. 1: go on. */
static ssize_t look_at_first_byte(as_transport *t, int *eof) {
    as_tls *tls = t->tls;
    unsigned char byte;
    ssize_t n;
    do {
        n = recv(t->fd, &byte, 1, MSG_PEEK);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        return 0;
    }
    if (n <= 0) {
        *eof = n == 0;
        return n == 0 ? 0 : break_with(tls, of_errno(errno));
    }
    tls->begun = true;
    if (byte == HANDSHAKE) {
        return 1;
    }
    bool letter = (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z');
    return break_with(tls, letter ? AS_E_TLS_PLAIN : AS_E_TLS_NONE);
}

/* As far as it goes now; 1: it is over. */
static ssize_t shake_hands(as_transport *t, int *eof) {
    as_tls *tls = t->tls;
    if (!tls->begun) {
        ssize_t n = look_at_first_byte(t, eof);
        if (n != 1) {
            return n;
        }
    }
    ERR_clear_error();
    errno = 0;
    int result = SSL_do_handshake(tls->ssl);
    if (result != 1) {
        return judge(t, result, errno, eof);
    }
    t->handshaking = false;
    t->wants = 0;
    return 1;
}

/* Records until `buf` is full, or OpenSSL would have to ask the socket again: it is watched, and
 * tells if there is more. Behind a full record there usually is. An end that comes behind bytes is
 * told by the next call. */
static ssize_t read_records(as_transport *t, char *buf, size_t n, int *eof) {
    as_tls *tls = t->tls;
    size_t got = 0, one;
    t->wants = 0;
    t->buffered = false;
    do {
        ERR_clear_error();
        errno = 0;
        int result = SSL_read_ex(tls->ssl, buf + got, n - got, &one);
        if (result != 1) {
            ssize_t why = judge(t, result, errno, eof);
            if (got == 0) {
                return why;
            }
            t->buffered = *eof || why < 0;
            *eof = 0;
            return (ssize_t)got;
        }
        got += one;
        spare_one(tls);
    } while (got < n && (one == AS_TLS_RECORD || SSL_has_pending(tls->ssl)));
    t->buffered = got == n && SSL_has_pending(tls->ssl);
    return (ssize_t)got;
}

static ssize_t tls_read(as_transport *t, char *buf, size_t n, int *eof) {
    as_tls *tls = t->tls;
    *eof = 0;
    if (tls->broken != AS_OK) {
        return tls->broken;
    }
    if (t->handshaking) {
        ssize_t done = shake_hands(t, eof);
        if (done != 1 || !SSL_has_pending(tls->ssl)) {
            return done == 1 ? 0 : done;
        }
    }
    spare_one(tls);
    return read_records(t, buf, n, eof);
}

/* --- writing ---------------------------------------------------------------------------------- */

/* A record or more of `n` bytes; how many were taken. After "not now" OpenSSL has encrypted the
 * first of them: the next call must begin with the same bytes, and have no fewer. */
static ssize_t write_record(as_transport *t, const char *p, size_t n) {
    as_tls *tls = t->tls;
    size_t taken;
    int eof = 0;
    ERR_clear_error();
    errno = 0;
    int result = SSL_write_ex(tls->ssl, p, n, &taken);
    if (result == 1) {
        return (ssize_t)taken;
    }
    uint8_t wants = t->wants;
    ssize_t why = judge(t, result, errno, &eof);
    t->wants = wants; /* the owner has bytes to write, and watches for that by itself */
    return eof ? break_with(tls, AS_E_RESET) : why;
}

/* The bytes at `vec` from `skip` on, one record of them, in `out`. */
static size_t gather(const struct iovec *vec, int nvec, size_t skip, char *out) {
    size_t n = 0;
    for (int i = 0; i < nvec && n < AS_TLS_RECORD; i++, skip = 0) {
        size_t part = vec[i].iov_len - skip, room = AS_TLS_RECORD - n;
        part = part < room ? part : room;
        memcpy(out + n, (const char *)vec[i].iov_base + skip, part);
        n += part;
    }
    return n;
}

/* What would make a small record goes out together with its neighbours: each record costs 22 bytes
 * or more, a call of the kernel and the start of a cipher. */
static ssize_t tls_writev(as_transport *t, const struct iovec *vec, int nvec) {
    as_tls *tls = t->tls;
    size_t taken = 0, skip = 0;
    if (t->handshaking) {
        return 0;
    }
    if (tls->broken != AS_OK || tls->finished) {
        return tls->broken != AS_OK ? tls->broken : AS_E_CLOSED;
    }
    while (nvec > 0) {
        size_t n = vec->iov_len - skip;
        const char *p = (const char *)vec->iov_base + skip;
        if (nvec > 1 && n < AS_TLS_RECORD) {
            n = gather(vec, nvec, skip, tls->scratch);
            p = tls->scratch;
        }
        ssize_t got = write_record(t, p, n);
        if (got <= 0) {
            return taken > 0 ? (ssize_t)taken : got;
        }
        taken += (size_t)got;
        skip += (size_t)got;
        while (nvec > 0 && skip >= vec->iov_len) {
            skip -= vec->iov_len;
            vec++;
            nvec--;
        }
    }
    return (ssize_t)taken;
}

static ssize_t tls_sendfile(as_transport *t, int fd, off_t off, size_t n) {
    as_tls *tls = t->tls;
    if (t->handshaking) {
        return 0;
    }
    if (tls->broken != AS_OK || tls->finished) {
        return tls->broken != AS_OK ? tls->broken : AS_E_CLOSED;
    }
    ssize_t got;
    do {
        got = pread(fd, tls->scratch, n < AS_TLS_RECORD ? n : AS_TLS_RECORD, off);
    } while (got < 0 && errno == EINTR);
    if (got <= 0) {
        return AS_E_IO; /* it is shorter than promised, or cannot be read */
    }
    return write_record(t, tls->scratch, (size_t)got);
}

/* --- ending ----------------------------------------------------------------------------------- */

static void tls_shutdown(as_transport *t) {
    t->buffered = false; /* whatever it is, it comes too late */
    finish(t);
}

static void let_go(as_tls *tls) {
    SSL_free(tls->ssl);
    tls->ssl = NULL;
    as_tls_unref(tls);
}

static void tls_close(as_transport *t, bool clean) {
    if (t->fd < 0) {
        return;
    }
    if (clean && owes_close_notify(t)) {
        (void)send_close_notify(t->tls);
    }
    let_go(t->tls);
    t->tls = NULL;
    (void)close(t->fd);
    t->fd = -1;
}

void as_tls_abandon(as_transport *t) {
    as_tls *tls = t->tls;
    as_tcp_transport_init(t, t->fd);
    let_go(tls);
}

/* --- making ----------------------------------------------------------------------------------- */

static const as_transport_ops tls_ops = {
    .read = tls_read,
    .writev = tls_writev,
    .sendfile = tls_sendfile,
    .shutdown = tls_shutdown,
    .close = tls_close,
};

as_err as_tls_transport_init(as_transport *t, int fd, as_tls_context *context, char *scratch) {
    as_tls *tls = calloc(1, sizeof(*tls));
    SSL *ssl = tls != NULL ? SSL_new(as__tls_context_default(context)) : NULL;
    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        free(tls);
        ERR_clear_error();
        return AS_E_NOMEM;
    }
    SSL_set_accept_state(ssl);
    *tls = (as_tls){.ssl = ssl, .scratch = scratch, .refs = 1, .spare = SPARE_MOST};
    SSL_set_msg_callback(ssl, on_message);
    SSL_set_msg_callback_arg(ssl, tls);
    tls->context = as_tls_context_ref(context);
    *t = (as_transport){
        .ops = &tls_ops, .fd = fd, .wants = AS_WANTS_READ, .handshaking = true, .tls = tls};
    return AS_OK;
}

bool as_tls_begun(const as_tls *tls) {
    return tls->begun;
}

as_slice as_tls_failure(const as_tls *tls) {
    return tls->failure != NULL ? (as_slice){tls->failure, strlen(tls->failure)} : AS_SLICE("");
}

const as_tls_info *as_tls_describe(as_tls *tls) {
    if (tls->info == NULL && tls->ssl != NULL) {
        tls->info = as__tls_info_new(tls->ssl);
    }
    return tls->info;
}

as_tls *as_tls_ref(as_tls *tls) {
    tls->refs++;
    return tls;
}

void as_tls_unref(as_tls *tls) {
    if (tls != NULL && --tls->refs == 0) {
        as__tls_info_free(tls->info);
        as_tls_context_unref(tls->context);
        free(tls);
    }
}
