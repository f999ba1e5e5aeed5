/* The header of the PROXY protocol: the verdict never changes as more bytes come, and what is
 * behind the header never matters; a header that is written from what was read is read alike.
 *
 * The first byte chooses the mode. */
#include "fuzz.h"
#include "http/proxy_protocol.h"

typedef struct verdict {
    as_err err;
    size_t size;
    as_proxy_header header;
} verdict;

static verdict parse(as_proxy_mode mode, as_slice bytes, size_t n) {
    char *exact = copy_exactly(bytes.p, n);
    verdict v;
    v.err = as_proxy_parse(mode, (as_slice){exact, n}, &v.header, &v.size);
    free(exact);
    MUST(v.size <= n && (v.err == AS_OK || v.err <= AS_E_PROXY_PEER));
    return v;
}

static bool is_same_address(const as_address *a, const as_address *b) {
    return a->n == b->n && memcmp(a->bytes, b->bytes, a->n) == 0;
}

static void must_be_same(const as_proxy_header *a, const as_proxy_header *b) {
    MUST(a->kind == b->kind);
    if (a->kind == AS_PROXY_INET) {
        MUST(is_same_address(&a->source, &b->source) &&
             is_same_address(&a->destination, &b->destination));
        MUST(a->source_port == b->source_port && a->destination_port == b->destination_port);
    } else if (a->kind == AS_PROXY_UNIX) {
        MUST(strcmp(a->path, b->path) == 0);
    }
}

/* The line of version 1 that tells the same. */
static void try_again(const as_proxy_header *header) {
    char source[AS_ADDRESS_TEXT], destination[AS_ADDRESS_TEXT], line[AS_PROXY_V1_MAX + 1];
    as_address_format(&header->source, source);
    as_address_format(&header->destination, destination);
    if (header->source.n != header->destination.n) {
        return; /* one of them was an IPv4 address within IPv6 */
    }
    int n = snprintf(line, sizeof(line), "PROXY %s %s %s %u %u\r\n",
                     header->source.n == 4 ? "TCP4" : "TCP6", source, destination,
                     header->source_port, header->destination_port);
    MUST(n > 0 && (size_t)n < sizeof(line));
    verdict again = parse(AS_PROXY_AUTO, (as_slice){line, (size_t)n}, (size_t)n);
    MUST(again.err == AS_OK && again.size == (size_t)n);
    must_be_same(header, &again.header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) {
        return 0;
    }
    as_proxy_mode mode = (as_proxy_mode)(AS_PROXY_V1 + data[0] % 3);
    as_slice bytes = {(const char *)data + 1, size - 1};
    verdict whole = parse(mode, bytes, bytes.n);
    if (whole.err == AS_OK && whole.size > 0 && whole.header.kind == AS_PROXY_INET) {
        try_again(&whole.header);
    }
    for (size_t n = 1; n < bytes.n; n++) {
        verdict part = parse(mode, bytes, n);
        bool is_final = part.err != AS_OK || part.size > 0;
        if (is_final) { /* which error it is may become clearer */
            MUST((part.err == AS_OK) == (whole.err == AS_OK) && part.size == whole.size);
        }
        if (is_final && part.err == AS_OK) {
            must_be_same(&part.header, &whole.header);
        }
        /* nothing is waited for once it is all there */
        MUST(is_final || whole.err != AS_OK || whole.size == 0 || n < whole.size);
        MUST(n <= AS_PROXY_V2_MAX || is_final);
    }
    return 0;
}
