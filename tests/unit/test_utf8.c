/* UTF-8 against a decoder that follows the definition: all sequences of up to four bytes that can
 * make a difference, Markus Kuhn's stress tests, text cut everywhere, and the byte at which it
 * fails. */
#include <stdio.h>
#include <stdlib.h>

#include "base/utf8.h"

static unsigned failures;

static void fail(const char *what, as_slice text) {
    fprintf(stderr, "%s:", what);
    for (size_t i = 0; i < text.n; i++) {
        fprintf(stderr, " %02x", (unsigned char)text.p[i]);
    }
    fprintf(stderr, "\n");
    failures++;
}

/* --- by the definition ---------------------------------------------------------------------- */

/* The length of the character at `p`, its bytes' form alone (RFC 3629, 3); 0: there is none. */
static size_t length_of(const unsigned char *p, size_t n, uint32_t *code) {
    static const struct {
        unsigned char mask, bits;
        uint32_t least;
    } forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    for (size_t form = 0; form < 4; form++) {
        if ((p[0] & forms[form].mask) != forms[form].bits || form + 1 > n) {
            continue;
        }
        *code = p[0] & (unsigned char)~forms[form].mask;
        for (size_t i = 1; i <= form; i++) {
            if ((p[i] & 0xc0) != 0x80) {
                return 0;
            }
            *code = *code << 6 | (p[i] & 0x3f);
        }
        bool surrogate = *code >= 0xd800 && *code <= 0xdfff;
        return *code >= forms[form].least && *code <= 0x10ffff && !surrogate ? form + 1 : 0;
    }
    return 0;
}

static bool valid_slowly(as_slice text) {
    const unsigned char *p = (const unsigned char *)text.p;
    uint32_t code;
    for (size_t n, left = text.n; left > 0; p += n, left -= n) {
        n = length_of(p, left, &code);
        if (n == 0) {
            return false;
        }
    }
    return true;
}

/* Whether some character begins with these bytes: by trial. */
static bool begins_slowly(const unsigned char *p, size_t n) {
    unsigned char whole[4];
    uint32_t code;
    static const unsigned char ends[] = {0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf};
    for (size_t size = n; size <= 4; size++) {
        for (size_t i = 0; i < sizeof(ends); i++) {
            memset(whole, 0x80, sizeof(whole));
            memcpy(whole, p, n);
            if (n < 4) {
                whole[n] = ends[i];
            }
            if (length_of(whole, size, &code) == size) {
                return true;
            }
        }
    }
    return false;
}

/* --- all sequences -------------------------------------------------------------------------- */

static bool is_ascii_slowly(as_slice text) {
    for (size_t i = 0; i < text.n; i++) {
        if ((unsigned char)text.p[i] > 0x7f) {
            return false;
        }
    }
    return true;
}

static void check(const unsigned char *p, size_t n) {
    as_slice text = {(const char *)p, n};
    bool expected = valid_slowly(text);
    if (as_utf8_valid(text) != expected) {
        fail(expected ? "valid" : "invalid", text);
    }
}

/* What is fed must be able to go on, or fail with the very byte. */
static void check_first(const unsigned char *p, size_t n) {
    as_utf8 at = 0;
    for (size_t i = 0; i < n; i++) {
        bool fed = as_utf8_feed(&at, (as_slice){(const char *)p + i, 1});
        if (fed != begins_slowly(p, i + 1)) {
            fail(fed ? "fails late" : "fails early", (as_slice){(const char *)p, i + 1});
        }
        if (!fed || as_utf8_complete(at)) {
            return;
        }
    }
}

/* Every first and second byte; of the others those at the borders of what is allowed. */
static void test_sequences(void) {
    static const unsigned char later[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f,
                                          0xa0, 0xbf, 0xc0, 0xe0, 0xf0, 0xff};
    unsigned char p[4];
    for (unsigned first = 0; first < 256 * 256; first++) {
        p[0] = (unsigned char)(first >> 8);
        p[1] = (unsigned char)first;
        check(p, 1);
        check(p, 2);
        for (size_t i = 0; i < sizeof(later); i++) {
            p[2] = later[i];
            check(p, 3);
            for (size_t k = 0; k < sizeof(later); k++) {
                p[3] = later[k];
                check(p, 4);
                check_first(p, 4);
            }
        }
    }
}

static size_t encode(uint32_t code, unsigned char *p) {
    if (code < 0x80) {
        p[0] = (unsigned char)code;
        return 1;
    }
    size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, code >>= 6) {
        p[i] = (unsigned char)(0x80 | (code & 0x3f));
    }
    p[0] = (unsigned char)((0xf00 >> n & 0xff) | code);
    return n;
}

static void test_every_character(void) {
    unsigned char p[4];
    for (uint32_t code = 0; code < 0x120000; code++) {
        size_t n = encode(code, p);
        bool expected = code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
        if (as_utf8_valid((as_slice){(const char *)p, n}) != expected) {
            fail(expected ? "a character" : "no character", (as_slice){(const char *)p, n});
        }
    }
}

/* --- Markus Kuhn's UTF-8 decoder stress test ------------------------------------------------- */

#define BYTES(literal) {(literal), sizeof(literal) - 1}

static const struct {
    as_slice text;
    bool valid;
} stress[] = {
    {BYTES("\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"), true}, /* 1: kosme */
    {BYTES("\x00"), true},                                         /* 2.1: the first of a length */
    {BYTES("\xc2\x80"), true},
    {BYTES("\xe0\xa0\x80"), true},
    {BYTES("\xf0\x90\x80\x80"), true},
    {BYTES("\xf8\x88\x80\x80\x80"), false},
    {BYTES("\xfc\x84\x80\x80\x80\x80"), false},
    {BYTES("\x7f"), true}, /* 2.2: the last of a length */
    {BYTES("\xdf\xbf"), true},
    {BYTES("\xef\xbf\xbf"), true},
    {BYTES("\xf7\xbf\xbf\xbf"), false},
    {BYTES("\xfb\xbf\xbf\xbf\xbf"), false},
    {BYTES("\xed\x9f\xbf"), true}, /* 2.3: other borders */
    {BYTES("\xee\x80\x80"), true},
    {BYTES("\xef\xbf\xbd"), true},
    {BYTES("\xf4\x8f\xbf\xbf"), true},
    {BYTES("\xf4\x90\x80\x80"), false},
    {BYTES("\x80"), false}, /* 3.1: continuation bytes alone */
    {BYTES("\xbf"), false},
    {BYTES("\x80\xbf\x80\xbf\x80\xbf\x80"), false},
    {BYTES("\xc0 \xc1 \xdf "), false}, /* 3.2: first bytes alone */
    {BYTES("\xe0 \xef "), false},
    {BYTES("\xf0 \xf7 "), false},
    {BYTES("\xc3"), false}, /* 3.3: the last byte is missing */
    {BYTES("\xe0\x80"), false},
    {BYTES("\xf0\x80\x80"), false},
    {BYTES("\xdf"), false},
    {BYTES("\xef\xbf"), false},
    {BYTES("\xf4\x8f\xbf"), false},
    {BYTES("\xfe"), false}, /* 3.5: impossible bytes */
    {BYTES("\xff"), false},
    {BYTES("\xfe\xfe\xff\xff"), false},
    {BYTES("\xc0\xaf"), false}, /* 4.1: an overlong '/' */
    {BYTES("\xe0\x80\xaf"), false},
    {BYTES("\xf0\x80\x80\xaf"), false},
    {BYTES("\xf8\x80\x80\x80\xaf"), false},
    {BYTES("\xc1\xbf"), false}, /* 4.2: the last overlong ones */
    {BYTES("\xe0\x9f\xbf"), false},
    {BYTES("\xf0\x8f\xbf\xbf"), false},
    {BYTES("\xc0\x80"), false}, /* 4.3: an overlong NUL */
    {BYTES("\xe0\x80\x80"), false},
    {BYTES("\xf0\x80\x80\x80"), false},
    {BYTES("\xed\xa0\x80"), false}, /* 5.1: surrogates */
    {BYTES("\xed\xad\xbf"), false},
    {BYTES("\xed\xae\x80"), false},
    {BYTES("\xed\xaf\xbf"), false},
    {BYTES("\xed\xb0\x80"), false},
    {BYTES("\xed\xbe\x80"), false},
    {BYTES("\xed\xbf\xbf"), false},
    {BYTES("\xed\xa0\x80\xed\xb0\x80"), false}, /* 5.2: in pairs */
    {BYTES("\xed\xaf\xbf\xed\xbf\xbf"), false},
    {BYTES("\xef\xbf\xbe"), true}, /* 5.3: noncharacters are characters (Unicode, 23.7) */
    {BYTES("\xef\xb7\x90"), true},
    {BYTES(""), true},
    /* and a block of ASCII within a character */
    {BYTES("\xc3"
           "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
           "\xa4"),
     false},
};

/* In two parts, at every place, behind ASCII of every length that the blocks see differently. */
static void test_parts(as_slice text, bool expected) {
    char bytes[192];
    for (size_t before = 0; before < 70; before++) {
        size_t n = before + text.n + (before % 2) * 40;
        memset(bytes, 'a', sizeof(bytes));
        memcpy(bytes + before, text.p, text.n);
        char *exact = malloc(n + 1); /* so that a sanitizer sees a read behind it */
        memcpy(exact, bytes, n);
        for (size_t cut = 0; cut <= n; cut++) {
            as_utf8 at = 0;
            bool valid = as_utf8_feed(&at, (as_slice){exact, cut}) &&
                         as_utf8_feed(&at, (as_slice){exact + cut, n - cut}) &&
                         as_utf8_complete(at);
            if (valid != expected) {
                fail(expected ? "valid, in parts" : "invalid, in parts", (as_slice){exact, n});
            }
            if (valid && as_utf8_is_ascii(at) != is_ascii_slowly((as_slice){exact, n})) {
                fail("ASCII or not", (as_slice){exact, n});
            }
        }
        free(exact);
    }
}

static void test_stress(void) {
    for (size_t i = 0; i < sizeof(stress) / sizeof(stress[0]); i++) {
        if (valid_slowly(stress[i].text) != stress[i].valid) {
            fail("the slow decoder", stress[i].text);
        }
        test_parts(stress[i].text, stress[i].valid);
    }
}

int main(void) {
    test_sequences();
    test_every_character();
    test_stress();
    return failures == 0 ? 0 : 1;
}
