#include "http/proxy_protocol.h"

#include <stdio.h>

#include "http/response.h"

static const as_slice v1_start = {"PROXY ", 6};
static const as_slice v2_start = {"\r\n\r\n\0\r\nQUIT\n", 12};

/* Whether `data` begins with `start`, as far as it goes. */
static bool may_start_with(as_slice data, as_slice start) {
    return memcmp(data.p, start.p, data.n < start.n ? data.n : start.n) == 0;
}

/* --- version 1 (2.1) ------------------------------------------------------------------------ */

/* Takes the bytes up to a space, which must be there, or all that is left with `last`. */
static bool next_word(as_slice *rest, as_slice *word, bool last) {
    const char *space = memchr(rest->p, ' ', rest->n);
    if ((space == NULL) != last) {
        return false;
    }
    *word = (as_slice){rest->p, last ? rest->n : (size_t)(space - rest->p)};
    *rest = (as_slice){rest->p + word->n + !last, rest->n - word->n - !last};
    return true;
}

static bool read_address(as_slice *rest, bool is_v6, as_address *out) {
    as_slice word;
    return next_word(rest, &word, false) && (memchr(word.p, ':', word.n) != NULL) == is_v6 &&
           as_address_parse(word, out);
}

static bool read_port(as_slice *rest, bool last, uint16_t *out) {
    as_slice word;
    uint64_t port;
    if (!next_word(rest, &word, last) || !as_parse_length(word, &port) || port > UINT16_MAX ||
        (word.n > 1 && word.p[0] == '0')) {
        return false;
    }
    *out = (uint16_t)port;
    return true;
}

/* The line without its end. */
static as_err parse_line(as_slice rest, as_proxy_header *out) {
    as_slice family, unknown = AS_SLICE("UNKNOWN");
    rest = (as_slice){rest.p + v1_start.n, rest.n - v1_start.n};
    if (rest.n >= unknown.n && may_start_with(rest, unknown) &&
        (rest.n == unknown.n || rest.p[unknown.n] == ' ')) {
        out->kind = AS_PROXY_UNKNOWN;
        return AS_OK;
    }
    if (!next_word(&rest, &family, false)) {
        return AS_E_PROXY_HEADER;
    }
    bool is_v6 = as_slice_eq(family, AS_SLICE("TCP6"));
    out->kind = AS_PROXY_INET;
    bool valid = (is_v6 || as_slice_eq(family, AS_SLICE("TCP4"))) &&
                 read_address(&rest, is_v6, &out->source) &&
                 read_address(&rest, is_v6, &out->destination) &&
                 read_port(&rest, false, &out->source_port) &&
                 read_port(&rest, true, &out->destination_port);
    return valid ? AS_OK : AS_E_PROXY_HEADER;
}

static as_err parse_v1(as_slice data, as_proxy_header *out, size_t *size) {
    size_t seen = data.n < AS_PROXY_V1_MAX ? data.n : AS_PROXY_V1_MAX;
    const char *cr = memchr(data.p, '\r', seen), *lf = memchr(data.p, '\n', seen);
    if (lf != NULL ? cr != lf - 1 : cr != NULL && cr != data.p + seen - 1) {
        return AS_E_PROXY_HEADER; /* a line end is CRLF, and there is one */
    }
    if (lf == NULL) {
        return seen == AS_PROXY_V1_MAX ? AS_E_PROXY_LARGE : AS_OK;
    }
    size_t line = (size_t)(cr - data.p);
    *size = line + 2;
    return parse_line((as_slice){data.p, line}, out);
}

/* --- version 2 (2.2) ------------------------------------------------------------------------ */

#define V2_FIXED ((size_t)16) /* bytes in front of the addresses */
#define TLV_CRC32C 0x03

static uint16_t be16(const uint8_t *p) {
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t be32(const uint8_t *p) {
    return (uint32_t)be16(p) << 16 | be16(p + 2);
}

/* RFC 3720, appendix B.4: CRC32C, bit by bit; a header is short. */
static uint32_t crc32c(uint32_t crc, const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (0x82f63b78u & (0u - (crc & 1)));
        }
    }
    return crc;
}

/* 2.2.5: over the whole header, its own four bytes at `at` taken for zeros. */
static bool checksum_fits(const uint8_t *header, size_t size, size_t at) {
    static const uint8_t zeros[4];
    uint32_t crc = crc32c(UINT32_MAX, header, at);
    crc = crc32c(crc, zeros, sizeof(zeros));
    crc = crc32c(crc, header + at + 4, size - at - 4);
    return ~crc == be32(header + at);
}

/* 2.2: type, length, value, over and over. None but the checksum matters here. */
static as_err check_tlvs(const uint8_t *header, size_t size, size_t at) {
    while (at < size) {
        if (size - at < 3) {
            return AS_E_PROXY_HEADER;
        }
        size_t n = be16(header + at + 1);
        if (n > size - at - 3) {
            return AS_E_PROXY_HEADER;
        }
        if (header[at] == TLV_CRC32C) {
            if (n != 4) {
                return AS_E_PROXY_HEADER;
            }
            if (!checksum_fits(header, size, at + 3)) {
                return AS_E_PROXY_CHECKSUM;
            }
        }
        at += 3 + n;
    }
    return AS_OK;
}

static void read_inet(const uint8_t *p, uint8_t n, as_proxy_header *out) {
    out->kind = AS_PROXY_INET;
    out->source = as_address_of_bytes(p, n);
    out->destination = as_address_of_bytes(p + n, n);
    out->source_port = be16(p + 2 * n);
    out->destination_port = be16(p + 2 * n + 2);
}

/* Two paths of 108 bytes; that of an abstract socket begins with a NUL. */
static void read_unix(const uint8_t *p, as_proxy_header *out) {
    const char *path = (const char *)p + (AS_PROXY_PATH - 1);
    size_t abstract = path[0] == '\0' && path[1] != '\0';
    out->kind = AS_PROXY_UNIX;
    (void)snprintf(out->path, sizeof(out->path), "%s%.*s", abstract ? "@" : "",
                   (int)(AS_PROXY_PATH - 1 - abstract), path + abstract);
}

/* Address families with SOCK_STREAM: the bytes of both addresses. */
static as_err read_addresses(const uint8_t *header, size_t size, as_proxy_header *out,
                             size_t *addresses) {
    enum { UNSPEC = 0x00, TCP4 = 0x11, TCP6 = 0x21, UNIX_STREAM = 0x31 };
    uint8_t family = header[13];
    *addresses = family == TCP4          ? 12
                 : family == TCP6        ? 36
                 : family == UNIX_STREAM ? 2 * (AS_PROXY_PATH - 1)
                                         : 0;
    if ((*addresses == 0 && family != UNSPEC) || size - V2_FIXED < *addresses) {
        return AS_E_PROXY_HEADER;
    }
    if (family == UNSPEC) {
        out->kind = AS_PROXY_UNKNOWN;
    } else if (family == UNIX_STREAM) {
        read_unix(header + V2_FIXED, out);
    } else {
        read_inet(header + V2_FIXED, family == TCP4 ? 4 : 16, out);
    }
    return AS_OK;
}

static as_err parse_v2(as_slice data, as_proxy_header *out, size_t *size) {
    enum { LOCAL = 0x20, PROXY = 0x21 }; /* version and command */
    const uint8_t *header = (const uint8_t *)data.p;
    if (data.n > 12 && header[12] != LOCAL && header[12] != PROXY) {
        return AS_E_PROXY_HEADER;
    }
    if (data.n < V2_FIXED) {
        return AS_OK;
    }
    size_t whole = V2_FIXED + be16(header + 14), addresses;
    if (whole > AS_PROXY_V2_MAX) {
        return AS_E_PROXY_LARGE;
    }
    if (data.n < whole) {
        return AS_OK;
    }
    *size = whole;
    out->kind = AS_PROXY_LOCAL;
    if (header[12] == LOCAL) {
        return AS_OK; /* 2.2: whatever else it says is skipped */
    }
    as_err err = read_addresses(header, whole, out, &addresses);
    /* Where the family is not told, nobody knows where its addresses would end. */
    return err != AS_OK || out->kind == AS_PROXY_UNKNOWN
               ? err
               : check_tlvs(header, whole, V2_FIXED + addresses);
}

as_err as_proxy_parse(as_proxy_mode mode, as_slice data, as_proxy_header *out, size_t *size) {
    *size = 0;
    *out = (as_proxy_header){.kind = AS_PROXY_LOCAL};
    bool is_v1 = may_start_with(data, v1_start), is_v2 = may_start_with(data, v2_start);
    if (!is_v1 && !is_v2) {
        return AS_E_PROXY_MISSING;
    }
    if (mode == (is_v1 ? AS_PROXY_V2 : AS_PROXY_V1)) {
        return AS_E_PROXY_VERSION;
    }
    return is_v1 ? parse_v1(data, out, size) : parse_v2(data, out, size);
}
