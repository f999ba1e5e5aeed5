/* Which of several processes takes the next connection; each process is played by a view here. */
#undef NDEBUG
#include <assert.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/balance.h"

#define SEATS 3

static void *shared_memory(void) {
    void *memory =
        mmap(NULL, SEATS * AS_SEAT_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert(memory != MAP_FAILED);
    return memory;
}

static void test_alone(void) {
    as_balance none = {0}, one = {0};
    assert(as__balance_may_accept(&none, UINT32_MAX - 1));
    as__balance_tell(&none, 5);
    void *memory = shared_memory();
    as__balance_join(&one, memory, SEATS * AS_SEAT_SIZE);
    assert(as__balance_may_accept(&one, 1000000));
    as__balance_leave(&one);
    assert(munmap(memory, SEATS * AS_SEAT_SIZE) == 0);
}

static void test_the_emptier_one_is_waited_for(void) {
    void *memory = shared_memory();
    as_balance a = {0}, b = {0};
    as__balance_join(&a, memory, SEATS * AS_SEAT_SIZE);
    as__balance_join(&b, memory, SEATS * AS_SEAT_SIZE);
    assert(as__balance_may_accept(&a, 0));
    assert(!as__balance_may_accept(&a, 1)); /* b has none */
    as__balance_tell(&b, 100);
    assert(as__balance_may_accept(&a, 125));
    assert(!as__balance_may_accept(&a, 126));

    /* It did not come: a takes a few more, and then waits again. */
    as__balance_waited(&a, 200);
    assert(as__balance_may_accept(&a, 250));
    assert(!as__balance_may_accept(&a, 251));
    as__balance_rest(&a);
    assert(!as__balance_may_accept(&a, 200));

    as__balance_leave(&b);
    assert(as__balance_may_accept(&a, 200));
    as__balance_leave(&a);
    assert(munmap(memory, SEATS * AS_SEAT_SIZE) == 0);
}

static void test_no_seat(void) {
    void *memory = shared_memory();
    as_balance seated[SEATS] = {0}, late = {0};
    for (int i = 0; i < SEATS; i++) {
        as__balance_join(&seated[i], memory, SEATS * AS_SEAT_SIZE);
        assert(seated[i].mine != NULL);
    }
    as__balance_join(&late, memory, SEATS * AS_SEAT_SIZE);
    assert(late.mine == NULL && as__balance_may_accept(&late, 1000));
    as__balance_leave(&seated[1]);
    as__balance_join(&late, memory, SEATS * AS_SEAT_SIZE);
    assert(late.mine != NULL && !as__balance_may_accept(&late, 1000));
    assert(munmap(memory, SEATS * AS_SEAT_SIZE) == 0);
}

/* The seat of a process that was killed is the next one's. */
static void test_the_dead(void) {
    void *memory = shared_memory();
    pid_t pid = fork();
    assert(pid >= 0);
    if (pid == 0) {
        for (int i = 0; i < SEATS; i++) {
            as_balance child = {0};
            as__balance_join(&child, memory, SEATS * AS_SEAT_SIZE);
            as__balance_tell(&child, 7);
        }
        (void)kill(getpid(), SIGKILL);
    }
    assert(waitpid(pid, NULL, 0) == pid);
    as_balance all[SEATS] = {0};
    for (int i = 0; i < SEATS; i++) {
        as__balance_join(&all[i], memory, SEATS * AS_SEAT_SIZE);
        assert(all[i].mine != NULL);
    }
    assert(!as__balance_may_accept(&all[0], 7)); /* none of them has seven any more */
    assert(munmap(memory, SEATS * AS_SEAT_SIZE) == 0);
}

int main(void) {
    test_alone();
    test_the_emptier_one_is_waited_for();
    test_no_seat();
    test_the_dead();
    return 0;
}
