/* A connection's bytes: read and fed to the protocol; written, at once or with those of others at
 * the end of the turn; read and dropped. What cannot go on cuts it. */
#include <errno.h>
#include <sys/socket.h>

#include "net/conn_internal.h"

/* --- reading ---------------------------------------------------------------------------------- */

void as__conn_read(as_conn *conn) {
    as_loop *loop = as__loop_of(conn);
    size_t size = as__share_read_size(&conn->share, &loop->turn);
    if (conn->proxy != NULL && !as__conn_read_proxy_header(conn)) {
        return;
    }
    as__loop_tick_date(loop);
    for (unsigned round = 1;; round++) {
        int eof = 0;
        ssize_t n = conn->transport.ops->read(&conn->transport, loop->read_buf, size, &eof);
        if (n < 0) {
            as__conn_read_failed(conn, (as_err)n);
            return;
        }
        if (eof) {
            as_h1_eof(&conn->h1);
            return;
        }
        if (n == 0) {
            return;
        }
        uint64_t requests = loop->env.requests_total;
        as_h1_feed(&conn->h1, loop->read_buf, (size_t)n);
        conn->got += (uint32_t)n;
        conn->progress |= AS_GOT_BYTES;
        if (loop->env.requests_total != requests) {
            conn->progress |= AS_GOT_REQUEST;
        }
        if ((size_t)n < size || conn->cut != AS_OK || conn->h1.yielded ||
            !as_h1_wants_read(&conn->h1) ||
            !as__share_may_read_on(&conn->share, &loop->turn, &loop->env, round)) {
            return;
        }
    }
}

/* What came on a socket whose transport has nothing to say any more. Of TCP the kernel copies
 * nothing then (tcp(7)). */
static ssize_t drop(const as_conn *conn) {
    ssize_t n;
    do {
        n = recv(conn->transport.fd, as__loop_of(conn)->read_buf, AS_READ_BUFFER, MSG_TRUNC);
    } while (n < 0 && errno == EINTR);
    return n;
}

void as__conn_drop(as_conn *conn) {
    as_transport *t = &conn->transport;
    if (t->wants != 0) {
        t->ops->shutdown(t);
    }
    for (unsigned round = 0; t->wants == 0 && round < AS_READ_ROUNDS; round++) {
        ssize_t n = drop(conn);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return;
        }
        if (n <= 0 || (size_t)n >= conn->linger_left) {
            conn->cut = AS_E_CLOSED;
            return;
        }
        conn->linger_left -= (uint32_t)n;
        conn->progress |= AS_GOT_BYTES;
    }
}

/* --- writing ---------------------------------------------------------------------------------- */

/* Leaves what is beyond `max` bytes out. */
static void shorten(as_out *out, uint64_t max) {
    uint64_t kept = 0;
    if (out->n <= max) {
        return;
    }
    for (int i = 0; i < out->nvec; i++) {
        if (out->vec[i].iov_len >= max - kept) {
            out->vec[i].iov_len = (size_t)(max - kept);
            out->nvec = i + 1;
        }
        kept += out->vec[i].iov_len;
    }
    out->n = max;
}

/* The front of `out` to the kernel, once; `full`: the kernel takes no more now. */
static as_err write_once(as_conn *conn, as_out *out, bool *full) {
    as_transport *t = &conn->transport;
    ssize_t n;
    shorten(out, as__share_write_size(&conn->share));
    if (out->nvec > 0) {
        n = t->ops->writev(t, out->vec, out->nvec);
        *full = n >= 0 && (uint64_t)n < out->n;
    } else {
        n = t->ops->sendfile(t, out->fd, out->off, out->n);
        *full = n == 0;
    }
    if (n < 0) {
        return (as_err)n;
    }
    if (n > 0) {
        conn->wrote += (uint32_t)n;
        conn->progress |= AS_WROTE;
        as__share_wrote(&conn->share, (uint64_t)n);
        as_outq_taken(&conn->h1.out, (uint64_t)n);
    }
    return AS_OK;
}

void as__conn_write(as_conn *conn) {
    as__conn_take_back(conn);
    if (conn->flushing || conn->cut != AS_OK || conn->h1.out.size == 0) {
        return;
    }
    conn->flushing = true; /* as_outq_taken may run Python, which may write */
    bool full = false;
    as_out out;
    while (!full && conn->cut == AS_OK && conn->share.room > 0 &&
           as_outq_peek(&conn->h1.out, &out)) {
        conn->cut = write_once(conn, &out, &full);
    }
    conn->flushing = false;
}

as_err as__conn_flush(as_h1 *h1) {
    as_conn *conn = as__conn_of(h1);
    if (conn->closed) {
        return AS_E_CLOSED;
    }
    as__conn_write(conn);
    if (conn->cut != AS_OK) {
        as__conn_enqueue(conn);
        return AS_E_CLOSED;
    }
    return AS_OK;
}

/* --- writing later ---------------------------------------------------------------------------- */

void as__conn_take_back(as_conn *conn) {
    as_buf buf;
    size_t off;
    if (conn->late == 0) {
        return;
    }
    ssize_t n = as__late_take(as__loop_of(conn)->late, conn->late, &buf, &off);
    conn->late = 0;
    if (n > 0) {
        conn->progress |= AS_WROTE;
        conn->wrote += (uint32_t)n;
        off += (size_t)n;
    }
    as_err err = as_outq_attach(&conn->h1.out, buf, off);
    err = n < 0 ? (as_err)n : err;
    if (conn->cut == AS_OK) {
        conn->cut = err;
    }
}

/* TLS has its own buffers. */
bool as__conn_put_late(as_conn *conn) {
    as_buf buf;
    size_t off;
    if (conn->transport.tls != NULL || conn->cut != AS_OK || conn->flushing || conn->late != 0 ||
        !as_outq_detach(&conn->h1.out, &buf, &off)) {
        return false;
    }
    conn->late = (uint8_t)as__late_put(as__loop_of(conn)->late, &conn->transport, &buf, off, conn);
    if (conn->late == 0) {
        (void)as_outq_attach(&conn->h1.out, buf, off); /* the queue is empty: no memory is needed */
    }
    return conn->late != 0;
}

as_err as__conn_lend(as_h1 *h1) {
    as_conn *conn = as__conn_of(h1);
    if (conn->closed || !as__conn_put_late(conn)) {
        return as__conn_flush(h1);
    }
    if (!as__late_guard(as__loop_of(conn)->late)) {
        return as__conn_flush(h1); /* without a thread nobody else would write */
    }
    return AS_OK;
}

void as__conn_reclaim(as_h1 *h1) {
    as_conn *conn = as__conn_of(h1);
    as__conn_take_back(conn);
    if (conn->cut != AS_OK && !conn->closed) {
        as__conn_enqueue(conn);
    }
}
