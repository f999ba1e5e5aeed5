#include "http/head.h"

#include <stdlib.h>
#include <string.h>

/* The first `len` bytes and `nfields` fields. */
static as_head *copy_head(const as_head *head, uint32_t len, uint32_t nfields) {
    size_t fields_size = nfields * sizeof(as_field);
    as_head *kept = malloc(sizeof(*kept) + fields_size + len);
    if (kept == NULL) {
        return NULL;
    }
    *kept = *head;
    kept->refs = 1;
    kept->len = len;
    kept->nfields = nfields;
    kept->fields = (as_field *)(kept + 1);
    if (fields_size > 0) {
        memcpy(kept->fields, head->fields, fields_size);
    }
    char *bytes = (char *)kept->fields + fields_size;
    memcpy(bytes, head->base, len);
    kept->base = bytes;
    return kept;
}

as_head *as_head_keep(as_head *head) {
    if (head->refs > 0) {
        head->refs++;
        return head;
    }
    return copy_head(head, head->len, head->nfields);
}

bool as_head_settle(as_head **head) {
    if ((*head)->refs > 0) {
        return true;
    }
    as_head *kept = as_head_keep(*head);
    *head = kept != NULL ? kept : *head;
    return kept != NULL;
}

as_head *as_head_keep_line(as_head *head) {
    if (head->refs > 0) {
        return as_head_keep(head);
    }
    as_head *kept = copy_head(head, head->target.off + head->target.len, 0);
    if (kept != NULL) {
        kept->host = kept->prefix = (as_span){0, 0};
    }
    return kept;
}

void as_head_unref(as_head *head) {
    if (head != NULL && --head->refs == 0) {
        free(head);
    }
}
