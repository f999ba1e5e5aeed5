/* Headers of the PROXY protocol, whole and cut at every byte. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/proxy_protocol.h"

static unsigned failures;

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define TCP4_BYTES "\xc0\x00\x02\x01\xc0\x00\x02\x02\x10\x00\x01\xbb"
#define TCP6_BYTES                                                                                     \
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\x10\x00\x01" \
    "\xbb"
#define MAPPED_BYTES                                                                                   \
    "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\x00\x02\x01\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\x00\x02\x02\x10\x00" \
    "\x01\xbb"

/* From a literal with NULs inside. */
#define BYTES(literal) {(literal), sizeof(literal) - 1}

typedef struct row {
    as_proxy_mode mode;
    as_slice bytes;
    as_err err;
    const char *expected; /* see describe() */
} row;

static const row rows[] = {
    /* version 1 */
    {AS_PROXY_V1, BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 4096 443\r\n"), AS_OK,
     "192.0.2.1 4096 192.0.2.2 443"},
    {AS_PROXY_AUTO, BYTES("PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n"), AS_OK,
     "255.255.255.255 65535 0.0.0.0 0"},
    {AS_PROXY_V1, BYTES("PROXY TCP6 2001:db8::1 2001:DB8:0::2 4096 443\r\n"), AS_OK,
     "2001:db8::1 4096 2001:db8::2 443"},
    {AS_PROXY_V1, BYTES("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1 2\r\n"), AS_OK,
     "192.0.2.1 1 192.0.2.2 2"},
    {AS_PROXY_V1, BYTES("PROXY UNKNOWN\r\n"), AS_OK, "unknown"},
    {AS_PROXY_V1, BYTES("PROXY UNKNOWN anything, at all\r\n"), AS_OK, "unknown"},
    {AS_PROXY_V1,
     BYTES("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
           "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
     AS_OK, "unknown"},
    {AS_PROXY_V1, BYTES("PROXY UNKNOWNS\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY \r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4 192.0.2.1\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 1 \r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4\t192.0.2.1 192.0.2.2 1 2\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4 192.0.2.1 2001:db8::2 1 2\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4 192.0.2.1 localhost 1 2\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 1 0x2\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r \n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4 192.0.2.1\r192.0.2.2 1 2\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY \n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V1, BYTES("PROXY TCP4 192.0.2.1\0 192.0.2.2 1 2\r\n"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V2, BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 4096 443\r\n"), AS_E_PROXY_VERSION, ""},
    /* version 2 */
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x11\x00\x0c" TCP4_BYTES), AS_OK,
     "192.0.2.1 4096 192.0.2.2 443"},
    {AS_PROXY_AUTO, BYTES(SIGNATURE "\x21\x21\x00\x24" TCP6_BYTES), AS_OK,
     "2001:db8::1 4096 2001:db8::2 443"},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x21\x00\x24" MAPPED_BYTES), AS_OK,
     "192.0.2.1 4096 192.0.2.2 443"},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x20\x00\x00\x00"), AS_OK, "local"},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x20\x11\x00\x0c" TCP4_BYTES), AS_OK, "local"},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x20\xff\x00\x01!"), AS_OK, "local"},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x00\x00\x00"), AS_OK, "unknown"},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x00\x00\x03???"), AS_OK, "unknown"},
    /* type-length-value: NOOP, empty ALPN, 2 of AUTHORITY, CRC32C */
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x11\x00\x17" TCP4_BYTES "\x04\0\0\x01\0\0\x02\0\x02hi"),
     AS_OK, "192.0.2.1 4096 192.0.2.2 443"},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x11\x00\x13" TCP4_BYTES "\x03\0\x04\x9b\x77\x60\x0d"),
     AS_OK, "192.0.2.1 4096 192.0.2.2 443"},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x11\x00\x13" TCP4_BYTES "\x03\0\x04\x9b\x77\x60\x0e"),
     AS_E_PROXY_CHECKSUM, ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x11\x00\x12" TCP4_BYTES "\x03\0\x03\0\0\0"),
     AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x11\x00\x0d" TCP4_BYTES "\x04"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x11\x00\x0e" TCP4_BYTES "\x04\0"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x11\x00\x0f" TCP4_BYTES "\x04\0\x01"), AS_E_PROXY_HEADER,
     ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x11\x00\x10" TCP4_BYTES "\x04\xff\xff!"), AS_E_PROXY_HEADER,
     ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x11\x00\x0b\xc0\x00\x02\x01\xc0\x00\x02\x02\x10\x00\x01"),
     AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x11\x00\x00"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x21\x00\x0c" TCP4_BYTES), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x31\x00\x0c" TCP4_BYTES), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x12\x00\x0c" TCP4_BYTES), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x10\x00\x0c" TCP4_BYTES), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x41\x00\x0c" TCP4_BYTES), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x01\x00\x0c" TCP4_BYTES), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x12\x00\x00"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x99\x00\x00"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x22"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x11"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x31"), AS_E_PROXY_HEADER, ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x21\x11\x0f\xf1"), AS_E_PROXY_LARGE, ""},
    {AS_PROXY_V2, BYTES(SIGNATURE "\x20\x00\xff\xff"), AS_E_PROXY_LARGE, ""},
    {AS_PROXY_V1, BYTES(SIGNATURE "\x21\x11\x00\x0c" TCP4_BYTES), AS_E_PROXY_VERSION, ""},
    /* none */
    {AS_PROXY_AUTO, BYTES("G"), AS_E_PROXY_MISSING, ""},
    {AS_PROXY_AUTO, BYTES("P\r"), AS_E_PROXY_MISSING, ""},
    {AS_PROXY_AUTO, BYTES("PUT"), AS_E_PROXY_MISSING, ""},
    {AS_PROXY_AUTO, BYTES("PROXY\r\n"), AS_E_PROXY_MISSING, ""},
    {AS_PROXY_AUTO, BYTES("proxy TCP4"), AS_E_PROXY_MISSING, ""},
    {AS_PROXY_AUTO, BYTES(" PROXY"), AS_E_PROXY_MISSING, ""},
    {AS_PROXY_V1, BYTES("GET / HTTP/1.1\r\n"), AS_E_PROXY_MISSING, ""},
    {AS_PROXY_V2, BYTES("\r\nGET / HTTP/1.1\r\n"), AS_E_PROXY_MISSING, ""},
    {AS_PROXY_V2, BYTES("\r\n\r\n\0\r\nQUIT\r"), AS_E_PROXY_MISSING, ""},
    {AS_PROXY_V2, BYTES("\x16\x03\x01"), AS_E_PROXY_MISSING, ""},
};

static void fail(const row *at, size_t n, const char *what) {
    fprintf(stderr, "row %d, %u bytes: %s\n", (int)(at - rows), (unsigned)n, what);
    failures++;
}

static void describe(const as_proxy_header *header, char *out, size_t room) {
    char source[AS_ADDRESS_TEXT], destination[AS_ADDRESS_TEXT];
    switch (header->kind) {
    case AS_PROXY_LOCAL:
        (void)snprintf(out, room, "local");
        break;
    case AS_PROXY_UNKNOWN:
        (void)snprintf(out, room, "unknown");
        break;
    case AS_PROXY_UNIX:
        (void)snprintf(out, room, "unix %s", header->path);
        break;
    case AS_PROXY_INET:
        as_address_format(&header->source, source);
        as_address_format(&header->destination, destination);
        (void)snprintf(out, room, "%s %u %s %u", source, header->source_port, destination,
                       header->destination_port);
        break;
    }
}

/* In memory of exactly that size, so that a sanitizer sees a read behind it. */
static as_err parse(as_proxy_mode mode, as_slice bytes, as_proxy_header *header, size_t *size) {
    char *exact = malloc(bytes.n);
    memcpy(exact, bytes.p, bytes.n);
    as_err err = as_proxy_parse(mode, (as_slice){exact, bytes.n}, header, size);
    free(exact);
    return err;
}

/* What is cut off either needs more, or is refused for what the whole is refused for. */
static void test_cut(const row *at) {
    as_proxy_header header;
    size_t size;
    for (size_t n = 1; n < at->bytes.n; n++) {
        as_err err = parse(at->mode, (as_slice){at->bytes.p, n}, &header, &size);
        if (err != AS_OK ? err != at->err : size != 0) {
            fail(at, n, err != AS_OK ? as_err_text(err) : "complete");
        }
    }
}

static void test_whole(const row *at, as_slice bytes) {
    as_proxy_header header;
    size_t size;
    char text[256];
    as_err err = parse(at->mode, bytes, &header, &size);
    if (err != at->err) {
        fail(at, bytes.n, as_err_text(err));
    } else if (err == AS_OK) {
        describe(&header, text, sizeof(text));
        if (size != at->bytes.n || strcmp(text, at->expected) != 0) {
            fail(at, bytes.n, text);
        }
    }
}

static void test_rows(void) {
    static const char request[] = "GET / HTTP/1.1\r\n\r\nPROXY TCP4";
    char longer[256];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        test_cut(&rows[i]);
        test_whole(&rows[i], rows[i].bytes);
        memcpy(longer, rows[i].bytes.p, rows[i].bytes.n);
        memcpy(longer + rows[i].bytes.n, request, sizeof(request));
        test_whole(&rows[i], (as_slice){longer, rows[i].bytes.n + sizeof(request)});
    }
}

/* 2.1: 107 bytes is the longest line there is. */
static void test_line_lengths(void) {
    char line[AS_PROXY_V1_MAX + 8];
    as_proxy_header header;
    size_t size;
    for (size_t n = AS_PROXY_V1_MAX - 2; n <= AS_PROXY_V1_MAX + 2; n++) {
        memset(line, 'x', sizeof(line));
        memcpy(line, "PROXY UNKNOWN ", 14);
        memcpy(line + n - 2, "\r\n", 2);
        as_err err = parse(AS_PROXY_V1, (as_slice){line, n}, &header, &size);
        bool fits = n <= AS_PROXY_V1_MAX;
        if (err != (fits ? AS_OK : AS_E_PROXY_LARGE) || (fits && size != n)) {
            fprintf(stderr, "a line of %u bytes: %s\n", (unsigned)n, as_err_text(err));
            failures++;
        }
    }
}

static void set_path(char *header, const char *path, size_t n) {
    memcpy(header, SIGNATURE "\x21\x31\x00\xd8", 16);
    memset(header + 16, 0, 216);
    memset(header + 16, 'c', 108); /* the client's, full */
    memcpy(header + 16 + 108, path, n);
}

static void expect_path(const char *header, const char *expected) {
    as_proxy_header parsed;
    size_t size;
    as_err err = parse(AS_PROXY_V2, (as_slice){header, 232}, &parsed, &size);
    if (err != AS_OK || size != 232 || parsed.kind != AS_PROXY_UNIX ||
        strcmp(parsed.path, expected) != 0) {
        fprintf(stderr, "path %s: %s, %s\n", expected, parsed.path, as_err_text(err));
        failures++;
    }
}

static void test_unix(void) {
    char header[232], full[109], abstract[109];
    as_proxy_header parsed;
    size_t size;
    memset(full, 'p', 108);
    full[108] = '\0';
    memset(abstract, 'a', 108);
    abstract[0] = '@';
    abstract[108] = '\0';
    set_path(header, "/run/x.sock", 11);
    expect_path(header, "/run/x.sock");
    set_path(header, "", 0);
    expect_path(header, "");
    set_path(header, "\0name", 5);
    expect_path(header, "@name");
    set_path(header, full, 108);
    expect_path(header, full);
    set_path(header, abstract, 108);
    header[16 + 108] = '\0';
    expect_path(header, abstract);
    header[15] = (char)0xd7; /* one byte short */
    if (parse(AS_PROXY_V2, (as_slice){header, 231}, &parsed, &size) != AS_E_PROXY_HEADER) {
        fprintf(stderr, "half a path is taken\n");
        failures++;
    }
}

/* The largest one that is taken; every byte of it may be the last of a read. */
static void test_large(void) {
    char *header = calloc(1, AS_PROXY_V2_MAX);
    as_proxy_header parsed;
    size_t size, tlv = AS_PROXY_V2_MAX - 16 - 12 - 3;
    memcpy(header, SIGNATURE "\x21\x11\x0f\xf0" TCP4_BYTES "\x04", 29);
    header[29] = (char)(tlv >> 8);
    header[30] = (char)(tlv & 0xff);
    for (size_t n = 1; n <= AS_PROXY_V2_MAX; n++) {
        as_err err = as_proxy_parse(AS_PROXY_V2, (as_slice){header, n}, &parsed, &size);
        if (err != AS_OK || size != (n == AS_PROXY_V2_MAX ? n : 0)) {
            fprintf(stderr, "%u bytes of a large header: %s\n", (unsigned)n, as_err_text(err));
            failures++;
            break;
        }
    }
    free(header);
}

int main(void) {
    test_rows();
    test_line_lengths();
    test_unix();
    test_large();
    return failures == 0 ? 0 : 1;
}
