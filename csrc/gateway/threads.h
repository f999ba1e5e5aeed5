/* Serving with threads: the loop has a thread of its own, that never takes the GIL; a pool of
 * Python threads runs the application (wsgi_threads.c); and the thread that called Server.run()
 * does what is left for Python: signals, the log, the callbacks of the server.
 *
 * What the loop's thread has to say is queued for that one here. */
#ifndef AS_GATEWAY_THREADS_H
#define AS_GATEWAY_THREADS_H

#include "gateway/gateway.h"
#include "net/bridge.h"

struct as_wsgi;

typedef enum as_news_kind {
    AS_NEWS_NOTICE,  /* a text for the log, "warning" */
    AS_NEWS_ERROR,   /* a text for the log, "error" */
    AS_NEWS_REFUSED, /* as_log_refusal */
    AS_NEWS_HIDDEN,  /* as_log_hidden_refusals */
    AS_NEWS_LINES,   /* of the access log, for its callable */
    AS_NEWS_DRAINED, /* as_loop_config.drained */
    AS_NEWS_MARKED,  /* as_loop_config.marked */
} as_news_kind;

typedef struct as_news as_news;

/* as_server.threads, as long as the server. */
typedef struct as_threads {
    as_server *server; /* borrowed */
    as_bridge *bridge;

    pthread_mutex_t lock; /* over all up to `fds` */
    as_news *first, **last;
    bool poked; /* the thread of run() will look */
    bool ended; /* the loop's thread has */
    int fds[2]; /* a pipe: ends the wait of run(); also for signal.set_wakeup_fd */

    /* With the GIL. */
    pthread_t loop_thread;
    unsigned working;        /* threads of the pool that have begun */
    struct as_wsgi *workers; /* those of them that are set up */
    PyObject *objects;       /* list of their threading.Thread; NULL outside of run() */
    bool started;            /* loop_thread is to be joined */
    bool cut;                /* what runs will not be waited for much longer */
    uint64_t deadline;       /* of that: milliseconds; 0: none yet */
} as_threads;

/* NULL with an exception. */
as_threads *as_threads_new(as_server *server);
/* The loop and the threads are gone. */
void as_threads_free(as_threads *threads);
/* Closes what can be, once the loop is freed. */
void as_threads_close(as_threads *threads);

/* Server.run(); NULL with an exception. */
PyObject *as_threads_run(as_threads *threads);

/* In a forked child. */
void as_threads_forked(as_threads *threads);

/* From any thread, without the GIL: ends the wait of run(). */
void as_threads_poke(as_threads *threads);
/* From the loop's thread. */
void as_threads_tell(as_threads *threads, as_news_kind kind, const char *text);
void as_threads_tell_refused(as_threads *threads, const as_conn_info *info, as_err why,
                             as_slice detail, uint64_t offset);

/* wsgi_threads.c: what each thread of the pool runs; NULL with an exception. */
PyObject *as_threads_work(as_threads *threads);

#endif
