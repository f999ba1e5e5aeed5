/* The health path: answered by the server itself, whatever the application is doing. */
#include "http/h1_internal.h"

bool as__h1_is_health(const as_h1_env *env, const as_head *head) {
    return env->health_path.n > 0 &&
           (head->is_head || as_slice_eq(as_head_slice(head, head->method), AS_SLICE("GET"))) &&
           as_slice_eq(as_head_slice(head, head->path), env->health_path);
}

as_err as__h1_answer_health(as_exchange *ex, bool healthy) {
    as_slice text = healthy ? AS_SLICE("OK\n") : AS_SLICE("stopping\n");
    as_err err = as_exchange_head_begin(ex, healthy ? 200 : 503, AS_SLICE(""));
    if (err == AS_OK) {
        err = as_exchange_head_field(ex, AS_SLICE("content-type"), AS_SLICE("text/plain"));
    }
    if (err == AS_OK) {
        err = as_exchange_head_field(ex, AS_SLICE("cache-control"), AS_SLICE("no-store"));
    }
    return err == AS_OK ? as_exchange_body(ex, (as_bytes){.p = text.p, .n = text.n}, false) : err;
}
