/* The small readers of text: UTF-8, addresses and networks, field names, lists, lengths. Each is
 * compared with the plainest way to do the same.
 *
 * The first byte chooses where UTF-8 is cut, and the bits of a network. */
#include <arpa/inet.h>

#include "base/network.h"
#include "base/utf8.h"
#include "fuzz.h"
#include "http/names.h"
#include "http/response.h"

/* --- UTF-8 ---------------------------------------------------------------------------------- */

/* RFC 3629, 3: decodes, and looks whether the shortest form was used. */
static bool is_utf8(as_slice s) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    for (size_t i = 0; i < s.n;) {
        unsigned char c = (unsigned char)s.p[i];
        size_t n = c < 0x80 ? 1 : c >> 5 == 6 ? 2 : c >> 4 == 14 ? 3 : c >> 3 == 30 ? 4 : 0;
        if (n == 0 || s.n - i < n) {
            return false;
        }
        uint32_t code = n == 1 ? c : c & (0x7fu >> n);
        for (size_t k = 1; k < n; k++) {
            unsigned char later = (unsigned char)s.p[i + k];
            if (later >> 6 != 2) {
                return false;
            }
            code = code << 6 | (later & 0x3f);
        }
        if (code < least[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
            return false;
        }
        i += n;
    }
    return true;
}

static void try_utf8(as_slice text, uint8_t choice) {
    uint32_t cuts[] = {BYTES, cut_of(choice)};
    bool valid = as_utf8_valid(text);
    MUST(valid == is_utf8(text));
    for (size_t i = 0; i < 2; i++) {
        as_utf8 at = 0;
        as_slice rest = text;
        bool good = true;
        while (good && rest.n > 0) {
            size_t n = next_part(&cuts[i], rest.n);
            good = as_utf8_feed(&at, (as_slice){rest.p, n});
            rest = (as_slice){rest.p + n, rest.n - n};
        }
        MUST((good && as_utf8_complete(at)) == valid);
    }
}

/* --- addresses ------------------------------------------------------------------------------ */

static bool has_bits(const as_network *network, const as_address *address) {
    if (network->base.n != address->n) {
        return false;
    }
    for (unsigned bit = 0; bit < network->prefix; bit++) {
        unsigned differ = network->base.bytes[bit / 8] ^ address->bytes[bit / 8];
        if (differ >> (7 - bit % 8) & 1) {
            return false;
        }
    }
    return true;
}

static void try_trust(const as_address *address, uint8_t choice) {
    as_trust trust = {0};
    uint8_t other[16];
    memcpy(other, address->bytes, sizeof(other));
    other[choice % 16] ^= (uint8_t)(1u << choice % 8);
    unsigned prefix = choice % (8u * address->n + 1);
    as_err err = as_trust_add(&trust, other, address->n, prefix);
    MUST(err == AS_OK || (err == AS_E_IO && address->n == 16 && prefix < 96));
    if (err == AS_OK) {
        MUST(as_trust_has(&trust, address) == has_bits(&trust.networks[0], address));
    }
    MUST(as_trust_add(&trust, other, address->n, 8u * address->n + 1) == AS_E_IO);
    as_trust_fini(&trust);
}

static void try_address(as_slice text, uint8_t choice) {
    as_address address = {0}, again = {0};
    char line[AS_ADDRESS_TEXT];
    bool valid = as_address_parse(text, &address);
    if (text.n < sizeof(line)) {
        struct in6_addr v6;
        struct in_addr v4;
        memcpy(line, text.p, text.n);
        line[text.n] = '\0';
        bool known = inet_pton(AF_INET, line, &v4) == 1 || inet_pton(AF_INET6, line, &v6) == 1;
        MUST(valid == (known && strlen(line) == text.n));
    }
    if (valid) {
        MUST(address.n == 4 || address.n == 16);
        as_address_format(&address, line);
        MUST(as_address_parse((as_slice){line, strlen(line)}, &again));
        MUST(again.n == address.n && memcmp(again.bytes, address.bytes, address.n) == 0);
        try_trust(&address, choice);
    }
}

/* --- names, lists, lengths ------------------------------------------------------------------- */

static void try_name(as_slice text) {
    as_name_id expected = AS_NAME_OTHER;
    for (unsigned id = 1; id < AS_NAME_COUNT; id++) {
        if (as_slice_ieq(text, as_name_text((as_name_id)id))) {
            expected = (as_name_id)id;
        }
    }
    MUST(as_name_find(text.p, text.n) == expected);
}

static void try_list(as_slice text) {
    as_slice list = text, member;
    size_t members = 0, commas = 0;
    for (size_t i = 0; i < text.n; i++) {
        commas += text.p[i] == ',';
    }
    while (as_list_next(&list, &member)) {
        MUST(member.p >= text.p && member.p + member.n <= text.p + text.n);
        MUST(member.n == 0 || memchr(member.p, ',', member.n) == NULL);
        as_slice trimmed = as_trim(member);
        MUST(trimmed.n == member.n);
        members++;
    }
    MUST(members == commas + 1);
}

static void try_length(as_slice text) {
    uint64_t n = 0;
    char digits[32];
    if (as_parse_length(text, &n)) {
        size_t zeros = 0;
        while (zeros + 1 < text.n && text.p[zeros] == '0') {
            zeros++;
        }
        int size = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)n);
        as_slice rest = {text.p + zeros, text.n - zeros};
        MUST(as_slice_eq(rest, (as_slice){digits, (size_t)size}));
    }
}

static void try_field(as_slice text) {
    bool token = text.n > 0, value = true;
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        token = token && c > ' ' && c < 0x7f && strchr("\"(),/:;<=>?@[\\]{}", c) == NULL;
        value = value && c != '\r' && c != '\n' && c != '\0';
    }
    MUST(as_is_token(text) == token);
    MUST(!as_is_field_value(text) || value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) {
        return 0;
    }
    char *exact = copy_exactly(data + 1, size - 1);
    as_slice text = {exact, size - 1};
    try_utf8(text, data[0]);
    try_address(text, data[0]);
    try_name(text);
    try_list(text);
    try_length(text);
    try_field(text);
    free(exact);
    return 0;
}
