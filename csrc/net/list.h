/* A doubly linked ring of links that live inside of their owners: no memory of its own. A link that
 * is in no list points to itself, so that removing it again is harmless. */
#ifndef AS_NET_LIST_H
#define AS_NET_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct as_link {
    struct as_link *next, *prev;
} as_link;

/* The struct that holds `link` as its member. */
#define AS_OWNER(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

static inline void as__link_init(as_link *link) {
    link->next = link->prev = link;
}

static inline bool as__link_linked(const as_link *link) {
    return link->next != link;
}

static inline void as__link_remove(as_link *link) {
    link->prev->next = link->next;
    link->next->prev = link->prev;
    as__link_init(link);
}

/* At the end of the list whose head is `list`. */
static inline void as__list_push(as_link *list, as_link *link) {
    link->next = list;
    link->prev = list->prev;
    list->prev->next = link;
    list->prev = link;
}

/* The first link, taken out; NULL: the list is empty. */
static inline as_link *as__list_pop(as_link *list) {
    as_link *link = list->next;
    if (link == list) {
        return NULL;
    }
    as__link_remove(link);
    return link;
}

/* Moves all of `from` to `to`, which must be empty. */
static inline void as__list_move(as_link *from, as_link *to) {
    as__link_init(to);
    if (as__link_linked(from)) {
        *to = *from;
        to->next->prev = to->prev->next = to;
        as__link_init(from);
    }
}

#endif
