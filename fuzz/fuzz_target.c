/* Request targets, hosts and percent decoding: what is accepted is made of the target's own bytes
 * and of nothing else; hosts are those of RFC 3986; decoding an encoding gives back what was
 * encoded, and never adds a byte.
 *
 * The first byte chooses the method. */
#include "fuzz.h"
#include "http/target.h"

static bool is_one_of(char c, const char *set) {
    return c != '\0' && strchr(set, c) != NULL;
}

/* --- targets -------------------------------------------------------------------------------- */

static as_slice part(const as_head *head, as_span span) {
    MUST(span.off >= head->target.off &&
         span.off + span.len <= head->target.off + head->target.len);
    return as_head_slice(head, span);
}

/* scheme, authority, path, '?' and query are the whole target again. */
static void check_split(const as_head *head) {
    as_slice target = as_head_slice(head, head->target), path = part(head, head->path),
             query = part(head, head->query), authority = part(head, head->authority);
    for (size_t i = 0; i < target.n; i++) {
        MUST(target.p[i] > ' ' && target.p[i] < 0x7f && target.p[i] != '#');
    }
    as_buf again = {0};
    if (target.p[0] != '/' && target.p[0] != '*') {
        size_t scheme = (size_t)((const char *)memchr(target.p, '/', target.n) - target.p) + 2;
        MUST(as_slice_ieq((as_slice){target.p, scheme}, AS_SLICE("http://")) ||
             as_slice_ieq((as_slice){target.p, scheme}, AS_SLICE("https://")));
        put(&again, target.p, scheme);
        MUST(authority.n > 0 && as_host_valid(authority));
    }
    put_slice(&again, authority);
    if (target.p[0] == '*') {
        MUST(target.n == 1 && path.n == 0 && query.n == 0);
        put_text(&again, "*");
    } else {
        MUST(path.n > 0 && path.p[0] == '/' && memchr(path.p, '?', path.n) == NULL);
        bool is_added = path.p < authority.p + authority.n && authority.n > 0;
        put_slice(&again, is_added ? AS_SLICE("") : path);
    }
    if (query.n > 0 || target.p[target.n - 1] == '?') {
        put_text(&again, again.len < target.n ? "?" : "");
        put_slice(&again, query);
    }
    MUST(as_slice_eq(logged(&again), target));
    as_buf_fini(&again, NULL);
}

static void try_target(uint8_t choice, as_slice target) {
    static const char *const methods[] = {"GET ", "OPTIONS ", "POST "};
    as_buf line = {0};
    as_head head = {.method = {0, (uint32_t)strlen(methods[choice % 3]) - 1}};
    put_text(&line, methods[choice % 3]);
    head.target = (as_span){(uint32_t)line.len, (uint32_t)target.n};
    put_slice(&line, target);
    char *exact = copy_exactly(line.data, line.len);
    head.base = exact;
    if (as_target_split(&head) == AS_OK) {
        check_split(&head);
    }
    free(exact);
    as_buf_fini(&line, NULL);
}

/* --- hosts ---------------------------------------------------------------------------------- */

#define UNRESERVED "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
#define SUB_DELIMS "!$&'()*+,;="
#define DIGITS "0123456789"
#define HEX DIGITS "abcdefABCDEF"

/* RFC 3986, 3.2.2 and 3.2.3, from left to right; IP literals by their alphabet. */
static bool is_host(as_slice s) {
    size_t i = 0;
    if (s.n > 0 && s.p[0] == '[') {
        for (i = 1; i < s.n && is_one_of(s.p[i], UNRESERVED SUB_DELIMS ":"); i++) {
        }
        if (i == 1 || i == s.n || s.p[i] != ']') {
            return false;
        }
        i++;
    } else {
        while (i < s.n) {
            if (is_one_of(s.p[i], UNRESERVED SUB_DELIMS)) {
                i++;
            } else if (s.n - i >= 3 && s.p[i] == '%' && is_one_of(s.p[i + 1], HEX) &&
                       is_one_of(s.p[i + 2], HEX)) {
                i += 3;
            } else {
                break;
            }
        }
    }
    if (i == s.n) {
        return true;
    }
    if (i == 0 || s.p[i++] != ':') {
        return false;
    }
    while (i < s.n && is_one_of(s.p[i], DIGITS)) {
        i++;
    }
    return i == s.n;
}

/* --- percent decoding ----------------------------------------------------------------------- */

static void try_encoding(as_slice bytes) {
    char *encoded = malloc(3 * bytes.n + 1), *decoded = malloc(3 * bytes.n + 1);
    MUST(encoded != NULL && decoded != NULL);
    size_t n = 0;
    for (size_t i = 0; i < bytes.n; i++) {
        unsigned byte = (unsigned char)bytes.p[i];
        n += (size_t)(i % 2 == 0 ? snprintf(encoded + n, 4, "%%%02x", byte)
                                 : snprintf(encoded + n, 4, "%%%02X", byte));
    }
    MUST(as_percent_decode((as_slice){encoded, n}, decoded) == bytes.n);
    MUST(bytes.n == 0 || memcmp(decoded, bytes.p, bytes.n) == 0);
    free(encoded);
    free(decoded);
}

static void try_decoding(as_slice bytes) {
    char *out = malloc(bytes.n + 1);
    MUST(out != NULL);
    size_t n = as_percent_decode(bytes, out), at = 0;
    for (size_t i = 0; i < bytes.n; at++) {
        char text[3] = {0};
        bool is_code = bytes.n - i >= 3 && bytes.p[i] == '%' && is_one_of(bytes.p[i + 1], HEX) &&
                       is_one_of(bytes.p[i + 2], HEX);
        memcpy(text, bytes.p + i + (is_code ? 1 : 0), is_code ? 2 : 1);
        MUST(at < n && out[at] == (is_code ? (char)strtoul(text, NULL, 16) : text[0]));
        i += is_code ? 3 : 1;
    }
    MUST(at == n);
    if (as_path_is_plain(bytes)) {
        MUST(as_slice_eq((as_slice){out, n}, bytes));
    }
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) {
        return 0;
    }
    char *exact = copy_exactly(data + 1, size - 1);
    as_slice bytes = {exact, size - 1};
    try_target(data[0], bytes);
    MUST(as_host_valid(bytes) == is_host(bytes));
    try_encoding(bytes);
    try_decoding(bytes);
    free(exact);
    return 0;
}
