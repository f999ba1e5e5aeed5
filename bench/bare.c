/* What the kernel alone takes for a request: an epoll loop that reads whatever comes and sends a
 * constant answer to it, and knows nothing of the connection but its descriptor. No server: bytes
 * are not looked at, and an answer that does not fit into the socket is cut.
 *
 *     bare --port N [--host ADDRESS]
 *
 * Its growth with the number of connections is what no server can be without. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 2048
#define EVENTS 1024

/* As long as the floor's. */
static const char answer[] = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 13\r\n"
                             "server: asgiserver\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n"
                             "Hello, World!";

static void check(int result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

static int listen_on(const char *host, uint16_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    check(fd, "socket");
    check(inet_pton(AF_INET, host, &address.sin_addr) == 1 ? 0 : -1, "address");
    check(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), "setsockopt");
    check(bind(fd, (struct sockaddr *)&address, sizeof(address)), "bind");
    check(listen(fd, BACKLOG), "listen");
    return fd;
}

static void watch(int epoll, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    check(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
}

static void serve(int fd) {
    static char bytes[64 * 1024];
    ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
    if (n <= 0 || send(fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL) < 0) {
        (void)close(fd);
    }
}

int main(int argc, char **argv) {
    const char *host = "127.0.0.1";
    uint16_t port = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--host") == 0) {
            host = argv[i + 1];
        } else if (strcmp(argv[i], "--port") == 0) {
            port = (uint16_t)strtoul(argv[i + 1], NULL, 10);
        }
    }
    int listener = listen_on(host, port), epoll = epoll_create1(EPOLL_CLOEXEC);
    check(epoll, "epoll_create1");
    watch(epoll, listener);
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                serve(fd);
            } else if ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                watch(epoll, fd);
            }
        }
    }
}
