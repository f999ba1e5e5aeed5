#include "http/head.h"

#include <stdlib.h>
#include <string.h>

as_head *as_head_keep(as_head *head) {
    if (head->refs > 0) {
        head->refs++;
        return head;
    }
    size_t fields_size = head->nfields * sizeof(as_field);
    as_head *kept = malloc(sizeof(*kept) + fields_size + head->len);
    if (kept == NULL) {
        return NULL;
    }
    *kept = *head;
    kept->refs = 1;
    kept->fields = (as_field *)(kept + 1);
    if (fields_size > 0) {
        memcpy(kept->fields, head->fields, fields_size);
    }
    char *bytes = (char *)kept->fields + fields_size;
    memcpy(bytes, head->base, head->len);
    kept->base = bytes;
    return kept;
}

void as_head_unref(as_head *head) {
    if (head != NULL && --head->refs == 0) {
        free(head);
    }
}
