/* A listening socket: accepts connections, and stops for a while when there is no room for more. */
#ifndef AS_NET_LISTENER_H
#define AS_NET_LISTENER_H

#include <sys/socket.h>
#include <sys/un.h>

#include "net/loop_internal.h"

/* Bytes of a numeric address with its zone, or of a Unix socket's path, and a NUL. */
#define AS_ADDRESS_MAX sizeof(((as_conn_info *)0)->client)
#define AS_SERVER_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) + 1)

/* Owner: the loop; lives until the loop is freed, because connections point to `server`. */
typedef struct as_listener {
    uv_poll_t poll;
    as_link link;
    as_loop *loop;
    int fd; /* the caller's */
    bool closed;
    bool is_unix;
    as_tls_context *tls; /* of new connections; NULL: plain */
    bool wildcard;       /* the address that a client reached is the connection's, not ours */
    uint16_t port;
    char server[AS_SERVER_MAX];
} as_listener;

as_err as__listener_open(as_loop *loop, int fd, as_tls_context *tls);
/* Accepts those who wait in the queues, and closes the sockets, whose numbers stay taken. Then the
 * same as the next but one. */
void as__listeners_drain(as_loop *loop);
/* as_loop_balance. */
as_err as__listeners_balance(as_loop *loop, void *memory, size_t size);
/* No more connections; the memory stays. */
void as__listeners_close(as_loop *loop);
/* New connections to TLS sockets take this context. */
void as__listeners_set_tls(as_loop *loop, as_tls_context *tls);
/* as_loop.tls_watch: contexts whose files have changed are made again. */
void as__listeners_check_tls(as_loop *loop);
/* Accepts no more for half a second: `error` is what there is not enough for. */
void as__listeners_pause(as_loop *loop, int error);
/* Accepts again after a pause. */
void as__listeners_resume(as_loop *loop);
/* As as__conn_forked_all. */
void as__listeners_forked(as_loop *loop, int null);
/* Frees what as__listeners_close left; the uv loop has forgotten the handles. */
void as__listeners_free(as_loop *loop);

/* "192.0.2.1", "2001:db8::1", "fe80::1%eth0"; IPv4 in IPv6 as IPv4 (RFC 4291, 2.5.5.2). Empty for
 * what is no internet address. `out` has AS_ADDRESS_MAX bytes. */
void as__format_address(const struct sockaddr *address, char *out, uint16_t *port);

#endif
