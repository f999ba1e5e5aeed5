/* The transport of plain sockets, TCP and Unix alike. */
#include <errno.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/transport.h"

/* What a failed call means: 0 for "not now". */
static ssize_t failure(int error) {
    switch (error) {
    case EAGAIN:
#if EWOULDBLOCK != EAGAIN
    case EWOULDBLOCK:
#endif
        return 0;
    case ECONNRESET:
    case EPIPE:
    case ETIMEDOUT:
    case ENOTCONN:
        return AS_E_RESET;
    case ENOMEM:
    case ENOBUFS:
        return AS_E_NOMEM;
    default:
        return AS_E_IO;
    }
}

static ssize_t tcp_read(as_transport *t, char *buf, size_t n, int *eof) {
    ssize_t got;
    do {
        got = recv(t->fd, buf, n, 0);
    } while (got < 0 && errno == EINTR);
    *eof = got == 0;
    return got < 0 ? failure(errno) : got;
}

/* MSG_NOSIGNAL: the process that embeds this may not ignore SIGPIPE. */
static ssize_t tcp_writev(as_transport *t, const struct iovec *vec, int nvec) {
    ssize_t sent;
    do {
        if (nvec == 1) {
            sent = send(t->fd, vec->iov_base, vec->iov_len, MSG_NOSIGNAL);
        } else {
            struct msghdr msg = {.msg_iov = (struct iovec *)vec, .msg_iovlen = (size_t)nvec};
            sent = sendmsg(t->fd, &msg, MSG_NOSIGNAL);
        }
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? failure(errno) : sent;
}

/* sendfile knows no MSG_NOSIGNAL: whoever sends files ignores SIGPIPE, as CPython does. */
static ssize_t tcp_sendfile(as_transport *t, int fd, off_t off, size_t n) {
    ssize_t sent;
    do {
        sent = sendfile(t->fd, fd, &off, n);
    } while (sent < 0 && errno == EINTR);
    if (sent == 0) {
        return AS_E_IO; /* the end of the file came before the promised length */
    }
    return sent < 0 ? failure(errno) : sent;
}

static void tcp_shutdown(as_transport *t) {
    (void)shutdown(t->fd, SHUT_WR);
}

static void tcp_close(as_transport *t, bool clean) {
    (void)clean; /* the owner has set what makes it a reset */
    if (t->fd >= 0) {
        (void)close(t->fd);
        t->fd = -1;
    }
}

static const as_transport_ops tcp_ops = {
    .read = tcp_read,
    .writev = tcp_writev,
    .sendfile = tcp_sendfile,
    .shutdown = tcp_shutdown,
    .close = tcp_close,
};

void as_tcp_transport_init(as_transport *t, int fd) {
    *t = (as_transport){.ops = &tcp_ops, .fd = fd};
}
