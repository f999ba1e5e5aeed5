/* Threads of the core's own: plain C that never runs Python. */
#ifndef AS_BASE_THREAD_H
#define AS_BASE_THREAD_H

#include <pthread.h>
#include <stddef.h>
#include <time.h>

/* With all signals blocked: they are for the threads that run Python. `stack`: bytes, 0: the
 * system's. 0 or an errno. */
int as_thread_start(pthread_t *thread, size_t stack, void *(*run)(void *arg), void *arg);

/* A condition that is waited for until as_moment_in. 0 or an errno. */
int as_cond_init(pthread_cond_t *cond);
struct timespec as_moment_in(unsigned ms);

#endif
