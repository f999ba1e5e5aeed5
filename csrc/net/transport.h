/* How bytes reach a client: one table of functions makes plain TCP, Unix sockets and TLS the same.
 *
 * The owner watches the socket for what its protocol wants, and for what the transport `wants`
 * besides; when it is ready for either, it calls `read`. */
#ifndef AS_NET_TRANSPORT_H
#define AS_NET_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"

typedef struct as_transport as_transport;

/* Each returns bytes moved (> 0), 0 for "not now" (for `read`: use `*eof`), or a negative as_err.
 * None raises SIGPIPE but `sendfile`, and all that TLS writes, which cannot help it: a process that
 * uses either ignores that signal. */
typedef struct as_transport_ops {
    /* Less than `n`: that was all there is now. */
    ssize_t (*read)(as_transport *t, char *buf, size_t n, int *eof);
    ssize_t (*writev)(as_transport *t, const struct iovec *vec, int nvec);
    /* From a file; 0 for "not now", AS_E_IO when the file is shorter than promised. */
    ssize_t (*sendfile)(as_transport *t, int fd, off_t off, size_t n);
    /* Our side is finished (FIN, close_notify), and nothing is read or written any more. Called
     * again while it `wants` to write. */
    void (*shutdown)(as_transport *t);
    /* Not `clean`: something is cut off, and the client is to see that. */
    void (*close)(as_transport *t, bool clean);
} as_transport_ops;

enum { AS_WANTS_READ = EPOLLIN, AS_WANTS_WRITE = EPOLLOUT };

struct as_transport {
    const as_transport_ops *ops;
    int fd;
    uint8_t wants;      /* of the socket: AS_WANTS_READ … */
    bool buffered;      /* `read` has something without the socket */
    bool handshaking;   /* nothing of the client's has been read yet */
    struct as_tls *tls; /* tls.c's own; NULL elsewhere */
};

/* Plain sockets: TCP and Unix. Takes over `fd`, which is non-blocking. */
void as_tcp_transport_init(as_transport *t, int fd);

#endif
