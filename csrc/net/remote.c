/* An exchange as a hand sees it. What it writes becomes records in `out`:
 *
 *   hand   gathers in `out`, and publishes: lock, hand over, wake
 *   loop   takes what is published, and repeats each record on the real exchange
 *
 * The rules of a response are checked on the hand's side, by its copy of the exchange's state. The
 * loop's side can fail for lack of memory, or because the connection is gone. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "http/exchange_rules.h"
#include "http/response.h"
#include "net/bridge_internal.h"
#include "net/tls.h"

#define KEPT_MAX 64u                   /* remotes that are kept for reuse */
#define MERGED_MAX ((size_t)64 * 1024) /* bytes of body in one record */

typedef enum record_kind {
    RECORD_HEAD,  /* status; the reason */
    RECORD_FIELD, /* name_len; the name, then the value */
    RECORD_BODY,  /* more; the bytes */
    RECORD_LOAN,  /* more; a pointer to an as_loan */
    RECORD_FILE,  /* more; a file_range */
    RECORD_COUNT, /* more; `n` bytes that are not sent, as in the answer to HEAD */
    RECORD_CUT,
} record_kind;

typedef struct record {
    uint8_t kind;
    bool more;
    bool close; /* the connection closes behind the response */
    uint16_t status;
    uint32_t name_len;
    size_t size; /* bytes behind this */
    uint64_t n;  /* bytes of body */
} record;

typedef struct file_range {
    int fd;
    off_t off;
    uint64_t n;
} file_range;

static const as_exchange_ops remote_ops;

static as_remote *remote_of(const as_exchange *ex) {
    return ex->proto;
}

/* --- making: the loop's thread ---------------------------------------------------------------- */

static as_remote *take_free(as_bridge *b) {
    as_remote *r = b->free;
    if (r == NULL) {
        return calloc(1, sizeof(*r));
    }
    b->free = (as_remote *)(void *)r->link.next;
    b->nfree--;
    as_buf out = r->out, published = r->published, replayed = r->replayed;
    *r = (as_remote){.out = out, .published = published, .replayed = replayed};
    return r;
}

/* What `ex.info` is. */
static as_conn_info *copy_info(as_remote *r, const as_conn_info *info) {
    const as_conn_info *connection = info->via != NULL ? info->via : info;
    r->info = *connection;
    r->info.gateway = NULL;
    if (connection->tls != NULL) {
        r->info.tls = as_tls_ref(connection->tls);
    }
    r->info.server = r->server;
    (void)snprintf(r->server, sizeof(r->server), "%s", connection->server);
    if (info->via == NULL) {
        return &r->info;
    }
    r->told = *info;
    r->told.via = &r->info;
    r->told.server = r->server;
    return &r->told;
}

/* What the hand may ask for, which only this thread can find out. */
static bool knows_tls(const as_conn_info *info) {
    as_tls *tls = info->via != NULL ? info->via->tls : info->tls;
    return tls == NULL || as_tls_describe(tls) != NULL;
}

as_remote *as_remote_new(as_bridge *b, as_exchange *real, as_spools *spools) {
    bool ready = knows_tls(real->info) && as_head_settle(&real->head);
    as_remote *r = ready ? take_free(b) : NULL;
    if (r == NULL) {
        return NULL;
    }
    real->gateway = r;
    r->bridge = b;
    r->real = real;
    r->state = AS_REMOTE_GATHERS;
    as__link_init(&r->link);
    as_spool_init(&r->body, spools);
    r->ex = (as_exchange){
        .ops = &remote_ops,
        .head = as_head_keep(real->head),
        .info = copy_info(r, real->info),
        .proto = r,
        .body_left = UINT64_MAX,
        .req = AS_REQ_DONE,
    };
    return r;
}

/* A buffer that was used for something large is not kept. */
static void empty(as_buf *buf) {
    buf->len = 0;
    if (buf->cap > AS_BUF_BLOCK) {
        as_buf_fini(buf, NULL);
    }
}

void as__remote_free(as_remote *r) {
    as_bridge *b = r->bridge;
    as_spool_fini(&r->body);
    as_head_unref(r->ex.head);
    as_tls_unref(r->info.tls);
    empty(&r->out);
    empty(&r->published);
    empty(&r->replayed);
    if (!b->closed && b->nfree < KEPT_MAX) {
        r->link.next = (as_link *)(void *)b->free;
        b->free = r;
        b->nfree++;
        return;
    }
    as_buf_fini(&r->out, NULL);
    as_buf_fini(&r->published, NULL);
    as_buf_fini(&r->replayed, NULL);
    free(r);
}

/* --- gathering: the hand ---------------------------------------------------------------------- */

static as_err add(as_remote *r, record rec, as_slice first, as_slice second) {
    rec.size = first.n + second.n;
    as_err err = as_buf_reserve(&r->out, NULL, sizeof(rec) + rec.size);
    if (err != AS_OK) {
        return err;
    }
    char *at = r->out.data + r->out.len;
    r->out_last = r->out.len;
    r->out.len += sizeof(rec) + rec.size;
    memcpy(at, &rec, sizeof(rec));
    at += sizeof(rec);
    if (first.n > 0) {
        memcpy(at, first.p, first.n);
    }
    if (second.n > 0) {
        memcpy(at + first.n, second.p, second.n);
    }
    return AS_OK;
}

/* Behind a body that is not published yet: pieces of a list leave as one. */
static bool merge(as_remote *r, record rec, as_slice data, as_err *err) {
    record last;
    if (r->out.len == 0) {
        return false;
    }
    memcpy(&last, r->out.data + r->out_last, sizeof(last));
    if (last.kind != RECORD_BODY || last.size + data.n > MERGED_MAX) {
        return false;
    }
    *err = as_buf_append(&r->out, NULL, data.p, data.n);
    if (*err == AS_OK) {
        last.size += data.n;
        last.n += data.n;
        last.more = rec.more;
        last.close = rec.close;
        memcpy(r->out.data + r->out_last, &last, sizeof(last));
    }
    return true;
}

static as_err add_body(as_remote *r, record rec, as_slice data) {
    as_err err;
    return merge(r, rec, data, &err) ? err : add(r, rec, data, (as_slice){"", 0});
}

static as_err add_loan(as_remote *r, record rec, as_bytes data) {
    as_loan *loan = malloc(sizeof(*loan));
    if (loan == NULL) {
        return AS_E_NOMEM;
    }
    *loan = (as_loan){.bytes = data, .refs = 1, .bridge = r->bridge};
    as_err err = add(r, rec, (as_slice){(const char *)&loan, sizeof(as_loan *)}, (as_slice){"", 0});
    if (err != AS_OK) {
        free(loan);
        return err;
    }
    data.hold(data.owner);
    return AS_OK;
}

static void return_loan(void *owner) {
    as_loan *loan = owner;
    if (--loan->refs == 0) {
        as__bridge_return(loan);
    }
}

/* Lets go of what records refer to. */
static void drop_records(const as_buf *buf) {
    record rec;
    for (size_t at = 0; at < buf->len; at += sizeof(rec) + rec.size) {
        const char *data = buf->data + at + sizeof(rec);
        memcpy(&rec, buf->data + at, sizeof(rec));
        if (rec.kind == RECORD_LOAN) {
            as_loan *loan;
            memcpy(&loan, data, sizeof(as_loan *));
            return_loan(loan);
        } else if (rec.kind == RECORD_FILE) {
            file_range range;
            memcpy(&range, data, sizeof(range));
            (void)close(range.fd);
        }
    }
}

static void drop_out(as_remote *r) {
    drop_records(&r->out);
    r->out.len = 0;
    r->out_bytes = 0;
}

/* --- publishing: the hand, and who accepts it ------------------------------------------------- */

/* With the lock held. Without memory the response is cut. */
static void hand_over(as_remote *r) {
    if (r->published.len == 0) {
        as_buf before = r->published;
        r->published = r->out;
        r->out = before;
    } else if (as_buf_append(&r->published, NULL, r->out.data, r->out.len) != AS_OK) {
        r->lost = true;
        drop_records(&r->out);
    }
    r->unsent += r->out_bytes;
    r->out.len = 0;
    r->out_bytes = 0;
}

/* The last thing for the hand when it has `finished`. */
static void publish(as_remote *r, bool finished) {
    as_bridge *b = r->bridge;
    as__bridge_lock(b);
    hand_over(r);
    r->finished = finished;
    bool closed = b->closed;
    if (!closed) {
        if (!as__link_linked(&r->link)) {
            as__list_push(&b->posts, &r->link);
        }
        as__bridge_wake_loop(b);
    } else {
        as__remote_accept(r);
    }
    as__bridge_unlock(b);
    if (closed) {
        as__remote_replay(r); /* finds everything gone */
    }
}

/* An open head can still be taken back. */
static bool has_to_publish(const as_remote *r) {
    return r->out.len > 0 && r->ex.res != AS_RES_HEAD;
}

void as__remote_accept(as_remote *r) {
    as_buf before = r->replayed;
    r->replayed = r->published;
    r->published = before;
    r->last = r->finished;
    r->cut = r->lost;
}

/* --- the exchange: the hand ------------------------------------------------------------------- */

/* The hand's side hears of the end of the connection when it looks. */
static void look(as_exchange *ex) {
    if (remote_of(ex)->gone) {
        ex->aborted = true;
    }
}

static void abort_response(as_exchange *ex) {
    as_remote *r = remote_of(ex);
    if (as_exchange_check(ex) != AS_OK) {
        return;
    }
    ex->aborted = true;
    drop_out(r);
    if (add(r, (record){.kind = RECORD_CUT}, (as_slice){"", 0}, (as_slice){"", 0}) != AS_OK) {
        as__bridge_lock(r->bridge);
        r->lost = true;
        as__bridge_unlock(r->bridge);
    }
    publish(r, false);
}

static void release(as_exchange *ex) {
    as_remote *r = remote_of(ex);
    abort_response(ex);
    publish(r, true);
}

static as_err head_begin(as_exchange *ex, unsigned status, as_slice reason) {
    look(ex);
    as_err err = as_exchange_check_head(ex, status, reason);
    if (err == AS_OK) {
        record rec = {.kind = RECORD_HEAD, .status = (uint16_t)status};
        err = add(remote_of(ex), rec, reason, (as_slice){"", 0});
    }
    if (err == AS_OK) {
        as_exchange_head_begun(ex, status);
    }
    return err;
}

static as_err head_field(as_exchange *ex, as_slice name, as_slice value) {
    as_field_kind kind;
    value = as_trim(value);
    as_err err = as_exchange_take_field(ex, name, value, &kind);
    if (err == AS_OK) {
        record rec = {.kind = RECORD_FIELD, .name_len = (uint32_t)name.n};
        err = add(remote_of(ex), rec, name, value);
    }
    return err;
}

static void head_abandon(as_exchange *ex) {
    if (as_exchange_check_state(ex, AS_RES_HEAD) == AS_OK) {
        drop_out(remote_of(ex)); /* nothing else is in there: a head is published with its body */
        as_exchange_head_undone(ex);
    }
}

/* What was added for `n` bytes of body counts; or `err` is why it was not. */
static as_err after_body(as_exchange *ex, as_err err, uint64_t n, bool more) {
    if (err != AS_OK) {
        abort_response(ex);
        return err;
    }
    ex->res = AS_RES_BODY;
    as_exchange_body_given(ex, n, more);
    remote_of(ex)->out_bytes += ex->no_body ? 0 : n;
    return AS_OK;
}

static as_err body(as_exchange *ex, as_bytes data, bool more) {
    as_remote *r = remote_of(ex);
    look(ex);
    as_err err = as_exchange_check_body(ex, data.n, more);
    if (err != AS_OK) {
        return err;
    }
    record rec = {.kind = RECORD_BODY, .more = more, .close = ex->close, .n = data.n};
    if (ex->no_body) {
        rec.kind = RECORD_COUNT;
        err = add(r, rec, (as_slice){"", 0}, (as_slice){"", 0});
    } else if (data.n <= AS_OUTQ_COPY_MAX || data.hold == NULL) {
        err = add_body(r, rec, (as_slice){data.p, data.n});
    } else {
        rec.kind = RECORD_LOAN;
        err = add_loan(r, rec, data);
    }
    return after_body(ex, err, data.n, more);
}

static as_err file(as_exchange *ex, int fd, off_t off, uint64_t n, bool more) {
    as_remote *r = remote_of(ex);
    look(ex);
    as_err err = as_exchange_check_body(ex, n, more);
    if (err != AS_OK) {
        (void)close(fd);
        return err;
    }
    file_range range = {.fd = fd, .off = off, .n = n};
    record rec = {.kind = RECORD_FILE, .more = more, .close = ex->close, .n = n};
    err = add(r, rec, (as_slice){(const char *)&range, sizeof(range)}, (as_slice){"", 0});
    if (err != AS_OK) {
        (void)close(fd);
    }
    return after_body(ex, err, n, more);
}

/* "Given to the kernel" is here: on its way there, whatever this thread does next. */
static as_err flush(as_exchange *ex) {
    as_remote *r = remote_of(ex);
    look(ex);
    if (ex->aborted) {
        return AS_E_CLOSED;
    }
    if (has_to_publish(r)) {
        publish(r, false);
    }
    return AS_OK;
}

static uint64_t pending(const as_exchange *ex) {
    const as_remote *r = remote_of(ex);
    return r->clogged ? UINT64_MAX : r->unsent + r->out_bytes;
}

/* What was published belongs to the loop's thread. */
static void reclaim(as_exchange *ex) {
    (void)ex;
}

/* Nobody waits for this thread. */
static void yield(as_exchange *ex) {
    (void)ex;
}

static const as_exchange_ops remote_ops = {
    .head_begin = head_begin,
    .head_field = head_field,
    .head_abandon = head_abandon,
    .body = body,
    .file = file,
    .flush = flush,
    .lend = flush,
    .reclaim = reclaim,
    .pending = pending,
    .yield = yield,
    .abort = abort_response,
    .release = release,
};

bool as_remote_is_ready(const as_remote *r) {
    return r->gone || pending(&r->ex) <= r->bridge->high;
}

/* The same of what was published, for the loop's thread as well. */
static bool is_taken(const as_remote *r) {
    return r->gone || (!r->clogged && r->unsent <= r->bridge->high);
}

void as_remote_wait(as_remote *r) {
    if (has_to_publish(r)) {
        publish(r, false);
    }
    as__bridge_lock(r->bridge);
    while (!is_taken(r) && !r->bridge->closed) {
        (void)pthread_cond_wait(&r->hand->wake, &r->bridge->lock);
    }
    as__bridge_unlock(r->bridge);
}

/* --- repeating: the loop's thread ------------------------------------------------------------- */

static void hold_loan(void *owner) {
    ((as_loan *)owner)->refs++;
}

static as_err replay_loan(as_remote *r, const record *rec, const char *data) {
    as_loan *loan;
    memcpy(&loan, data, sizeof(as_loan *));
    as_bytes bytes = {loan->bytes.p, loan->bytes.n, loan, hold_loan, return_loan};
    as_err err = as_exchange_body(r->real, bytes, rec->more);
    return_loan(loan);
    return err;
}

static as_err replay_file(as_remote *r, const record *rec, const char *data) {
    file_range range;
    memcpy(&range, data, sizeof(range));
    return as_exchange_file(r->real, range.fd, range.off, range.n, rec->more);
}

static as_err replay_record(as_remote *r, const record *rec, const char *data) {
    as_exchange *real = r->real;
    as_slice all = {data, rec->size};
    real->close |= rec->close;
    switch ((record_kind)rec->kind) {
    case RECORD_HEAD:
        return as_exchange_head_begin(real, rec->status, all);
    case RECORD_FIELD:
        all.n = rec->name_len;
        return as_exchange_head_field(real, all,
                                      (as_slice){data + rec->name_len, rec->size - rec->name_len});
    case RECORD_BODY:
        return as_exchange_body(real, (as_bytes){.p = data, .n = rec->size}, rec->more);
    case RECORD_COUNT:
        return as_exchange_body(real, (as_bytes){.p = "", .n = (size_t)rec->n}, rec->more);
    case RECORD_LOAN:
        return replay_loan(r, rec, data);
    case RECORD_FILE:
        return replay_file(r, rec, data);
    case RECORD_CUT:
        break;
    }
    return AS_E_APP;
}

/* Bytes of body that were repeated. */
static uint64_t replay_records(as_remote *r) {
    as_buf rest = r->replayed;
    uint64_t n = 0;
    while (rest.len > 0) {
        record rec;
        memcpy(&rec, rest.data, sizeof(rec));
        if (r->failed || r->gone) {
            drop_records(&rest);
            break;
        }
        r->failed = replay_record(r, &rec, rest.data + sizeof(rec)) != AS_OK;
        n += rec.kind == RECORD_COUNT ? 0 : rec.n;
        rest.data += sizeof(rec) + rec.size;
        rest.len -= sizeof(rec) + rec.size;
    }
    r->replayed.len = 0;
    return n;
}

/* The response is complete, or is cut off by the release. */
static void let_go(as_remote *r) {
    as_exchange *real = r->real;
    if (real->status == 0) {
        real->status = r->ex.status; /* a head that came too late is in the log all the same */
    }
    if (!r->bridge->closed) {
        r->bridge->released(r->bridge->ctx, real);
    }
    real->gateway = NULL;
    as_exchange_release(real);
    as__remote_free(r);
}

/* With the lock held. A hand that is finished may be gone. */
static void wake_writer(as_remote *r) {
    if (r->state == AS_REMOTE_TAKEN && !r->finished) {
        (void)pthread_cond_signal(&r->hand->wake);
    }
}

/* The hand goes on, or hears that it had better not. */
static void tell_hand(as_remote *r, uint64_t n) {
    bool clogged = !r->failed && as_exchange_pending(r->real) > r->bridge->high;
    as__bridge_lock(r->bridge);
    r->unsent -= n;
    r->clogged = clogged;
    r->gone = r->gone || r->failed;
    if (is_taken(r)) {
        wake_writer(r);
    }
    as__bridge_unlock(r->bridge);
}

void as__remote_replay(as_remote *r) {
    uint64_t n = replay_records(r);
    if (r->cut || (r->failed && !r->last)) {
        r->failed = true;
        as_exchange_abort(r->real);
    }
    if (r->last) {
        let_go(r);
    } else {
        tell_hand(r, n);
    }
}

/* --- what the loop tells ---------------------------------------------------------------------- */

void as_remote_drop(as_remote *r) {
    r->real->gateway = NULL;
    as_exchange_release(r->real);
    as__remote_free(r);
}

void as_remote_abort(as_remote *r) {
    as__bridge_lock(r->bridge);
    bool taken = r->state == AS_REMOTE_TAKEN;
    if (taken) {
        r->gone = true;
        wake_writer(r);
    } else {
        as__link_remove(&r->link);
    }
    as__bridge_unlock(r->bridge);
    if (!taken) {
        as_remote_drop(r);
    }
}

void as_remote_drained(as_remote *r) {
    as__bridge_lock(r->bridge);
    r->clogged = false;
    wake_writer(r);
    as__bridge_unlock(r->bridge);
}
