/* One connection: its socket, its place in the loop, its timeouts, and the protocol that it feeds.
 *
 * Owner: the loop, through as_loop.conns. It is closed only from the loop's own turn, in places
 * with no handler on the stack, and freed at the end of that turn. Whoever finds it broken
 * elsewhere sets as_conn.cut, and as__conn_work closes it. */
#ifndef AS_NET_CONN_H
#define AS_NET_CONN_H

#include <sys/socket.h>

#include "http/http1.h"
#include "net/list.h"
#include "net/loop_internal.h"
#include "net/timeout.h"
#include "net/transport.h"

typedef struct as_conn as_conn;
struct as_listener;

/* Takes over `fd`, also when it fails. */
as_err as__conn_open(as_loop *loop, const struct as_listener *listener, int fd,
                     const struct sockaddr *peer);
/* Its socket is ready: EPOLLIN … May run handlers and close `conn`; where it is greedy, that is put
 * off to its place in as_loop.greedy. False: nothing was done. */
bool as__conn_event(as_conn *conn, uint32_t events);
/* Frees those that are closed: nobody on the stack has one in hand. */
void as__conn_free_gone(as_loop *loop);
/* Does what is due: resumes, writes, watches, closes. May run handlers. */
void as__conn_work(as_link *todo);
/* Its deadline has come. May run handlers, and close the connection. */
void as__conn_expire(as_timeout *timeout);
/* The connections whose answers wait in as_loop.late go on; or their bytes leave, and no more. */
void as__conn_work_late(as_loop *loop);
void as__conn_flush_late(as_loop *loop);
/* For all connections of the loop; the work itself is done from as_loop_poll. */
void as__conn_drain_all(as_loop *loop);
void as__conn_disconnect_all(as_loop *loop);
/* In a forked child: the sockets become `null`, the descriptor of something harmless. */
void as__conn_forked_all(as_loop *loop, int null);
/* Returns how many exchanges are cut by it. */
unsigned as__conn_cut_all(as_loop *loop);

/* as_h1_env's calls. */
void as__conn_notify(as_h1 *h1);
as_err as__conn_flush(as_h1 *h1);
as_err as__conn_lend(as_h1 *h1);
void as__conn_reclaim(as_h1 *h1);
void as__conn_flush_soon(as_h1 *h1);
void as__conn_set_alarm(as_h1 *h1, uint32_t ms);

#endif
