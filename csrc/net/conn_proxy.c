/* A header of the PROXY protocol, which comes before everything else: it is taken from the socket,
 * and the connection is another's then. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/conn_internal.h"

void as__conn_forget_proxy_header(as_conn *conn) {
    if (conn->proxy != NULL) {
        as_buf_fini(conn->proxy, NULL);
        free(conn->proxy);
        conn->proxy = NULL;
    }
}

/* From here on the connection is that of the client behind the proxy, who is believed about others
 * only if he is a proxy himself. */
static void introduce(as_conn *conn, const as_proxy_header *header) {
    const as_forwarding *forwarding = as__loop_of(conn)->config.forwarding;
    as_conn_info *info = &conn->info;
    if (header->kind == AS_PROXY_LOCAL) {
        return;
    }
    if (header->kind == AS_PROXY_UNKNOWN) {
        info->trusted = false;
        return;
    }
    info->is_unix = header->kind == AS_PROXY_UNIX;
    info->trusted = forwarding != NULL && as_trust_has(&forwarding->trust, &header->source);
    as_address_format(&header->source, info->client);
    info->client_port = header->source_port;
    info->server_port = header->destination_port;
    info->server = conn->server;
    if (info->is_unix) {
        memcpy(conn->server, header->path, sizeof(header->path));
    } else {
        as_address_format(&header->destination, conn->server);
    }
}

/* `fresh` is what was not looked at before. Sets `own` to how many of these bytes are the header's,
 * and `complete` when that is all of it; else they are kept. */
static as_err parse_proxy_header(as_conn *conn, as_slice fresh, as_proxy_header *out, size_t *own,
                                 bool *complete) {
    as_buf *bytes = conn->proxy;
    size_t before = bytes->len, size;
    as_slice all = fresh;
    if (before > 0) {
        if (as_buf_append(bytes, NULL, fresh.p, fresh.n) != AS_OK) {
            return AS_E_NOMEM;
        }
        all = (as_slice){bytes->data, bytes->len};
    }
    as_err err = as_proxy_parse(as__loop_of(conn)->config.proxy_protocol, all, out, &size);
    *complete = size > 0;
    *own = size > 0 ? size - before : fresh.n;
    if (err == AS_OK && size == 0 && before == 0) {
        err = as_buf_append(bytes, NULL, fresh.p, fresh.n);
    }
    return err;
}

/* The header is looked at while the kernel still has it, and only its own bytes are taken: whoever
 * reads next finds his first byte first. */
bool as__conn_read_proxy_header(as_conn *conn) {
    char *buf = as__loop_of(conn)->read_buf;
    int fd = conn->transport.fd;
    ssize_t n = recv(fd, buf, AS_PROXY_V2_MAX, MSG_PEEK);
    if (n == 0 && conn->proxy->len > 0) {
        as__conn_refuse(conn, AS_E_PROXY_TRUNCATED);
    } else if (n == 0) {
        conn->cut = AS_E_CLOSED;
    } else if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        conn->cut = AS_E_RESET;
    } else if (n > 0 && !conn->may_introduce) {
        as__conn_refuse(conn, AS_E_PROXY_PEER);
    }
    if (n <= 0 || conn->cut != AS_OK) {
        return false;
    }
    as_proxy_header header;
    size_t own;
    bool complete;
    as_err err = parse_proxy_header(conn, (as_slice){buf, (size_t)n}, &header, &own, &complete);
    if (err != AS_OK || recv(fd, buf, own, 0) != (ssize_t)own) {
        as__conn_refuse(conn, err != AS_OK ? err : AS_E_IO);
        return false;
    }
    if (complete) {
        introduce(conn, &header);
        as__conn_forget_proxy_header(conn);
    }
    return complete;
}
