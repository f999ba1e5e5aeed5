/* Finding a name is a perfect hash: a name has one slot, and no two names share one. The
 * multipliers were found by trial; tests/unit/test_names.c checks the table, and finds new ones and
 * prints the slots for a changed list. */
#include "http/names.h"

#define MAX_NAME 31

typedef struct name_row {
    uint8_t n;
    char text[MAX_NAME];
} name_row;

#define X(id, text) [AS_NAME_##id] = {sizeof(text) - 1, text},
static const name_row rows[AS_NAME_COUNT] = {AS_NAMES(X)};
#undef X

/* clang-format off */
static const uint8_t slots[256] = {
    [1] = AS_NAME_IF_MODIFIED_SINCE, [5] = AS_NAME_ORIGIN, [12] = AS_NAME_SEC_WEBSOCKET_VERSION,
    [17] = AS_NAME_PROXY_CONNECTION, [19] = AS_NAME_CONTENT_ENCODING, [22] = AS_NAME_IF_NONE_MATCH,
    [26] = AS_NAME_PROXY_AUTHORIZATION, [27] = AS_NAME_DNT, [33] = AS_NAME_IF_UNMODIFIED_SINCE,
    [39] = AS_NAME_TRACEPARENT, [51] = AS_NAME_KEEP_ALIVE, [53] = AS_NAME_HOST, [59] = AS_NAME_VIA,
    [63] = AS_NAME_X_REQUEST_ID, [74] = AS_NAME_CONTENT_DISPOSITION, [79] = AS_NAME_DATE,
    [84] = AS_NAME_PRAGMA, [85] = AS_NAME_SEC_FETCH_USER, [86] = AS_NAME_IF_RANGE,
    [87] = AS_NAME_SEC_WEBSOCKET_KEY, [94] = AS_NAME_X_FORWARDED_PORT,
    [96] = AS_NAME_X_FORWARDED_PROTO, [99] = AS_NAME_X_FORWARDED_HOST,
    [101] = AS_NAME_ACCEPT_LANGUAGE, [121] = AS_NAME_SEC_FETCH_MODE, [123] = AS_NAME_TE,
    [124] = AS_NAME_USER_AGENT, [126] = AS_NAME_CACHE_CONTROL, [129] = AS_NAME_SEC_FETCH_DEST,
    [130] = AS_NAME_TRAILER, [133] = AS_NAME_X_FORWARDED_PREFIX, [134] = AS_NAME_CONTENT_LENGTH,
    [138] = AS_NAME_COOKIE, [139] = AS_NAME_SERVER, [148] = AS_NAME_UPGRADE_INSECURE_REQUESTS,
    [150] = AS_NAME_X_REAL_IP, [155] = AS_NAME_IF_MATCH, [158] = AS_NAME_X_FORWARDED_FOR,
    [159] = AS_NAME_TRACESTATE, [162] = AS_NAME_UPGRADE, [164] = AS_NAME_X_REQUESTED_WITH,
    [165] = AS_NAME_RANGE, [170] = AS_NAME_ACCEPT, [177] = AS_NAME_EXPECT,
    [183] = AS_NAME_SEC_CH_UA_PLATFORM, [184] = AS_NAME_ACCEPT_ENCODING, [191] = AS_NAME_CONNECTION,
    [193] = AS_NAME_SEC_WEBSOCKET_PROTOCOL, [201] = AS_NAME_SEC_FETCH_SITE,
    [203] = AS_NAME_PRIORITY, [204] = AS_NAME_TRANSFER_ENCODING,
    [213] = AS_NAME_SEC_WEBSOCKET_EXTENSIONS, [218] = AS_NAME_FORWARDED,
    [219] = AS_NAME_SEC_CH_UA_MOBILE, [220] = AS_NAME_AUTHORIZATION, [225] = AS_NAME_CONTENT_TYPE,
    [236] = AS_NAME_PROXY, [239] = AS_NAME_SEC_CH_UA, [246] = AS_NAME_REFERER,
    [247] = AS_NAME_ACCEPT_CHARSET, [249] = AS_NAME_X_CSRF_TOKEN,
};
/* clang-format on */

/* Setting 0x20 makes letters lower-case; what it makes of other bytes does not matter here. */
static unsigned slot_of(const char *p, size_t n) {
    unsigned first = (unsigned char)p[0] | 0x20u, middle = (unsigned char)p[n / 2] | 0x20u,
             last_but_one = (unsigned char)p[n - 2] | 0x20u, last = (unsigned char)p[n - 1] | 0x20u;
    return ((unsigned)n * 55 + first * 18 + middle * 26 + last_but_one * 5 + last * 115) & 255;
}

#define EACH_BYTE(x) ((uint64_t)0x0101010101010101 * (x))

/* Eight bytes in lower case at once, exactly: only A to Z are changed. */
static uint64_t lower8(const char *p) {
    uint64_t x;
    memcpy(&x, p, sizeof(x));
    uint64_t low = x & EACH_BYTE(0x7f);
    uint64_t above_z = low + EACH_BYTE(0x7f - 'Z'), from_a = low + EACH_BYTE(0x80 - 'A');
    uint64_t is_upper = (from_a ^ above_z) & ~x & EACH_BYTE(0x80);
    return x | (is_upper >> 2);
}

static bool same_8_bytes(const char *p, const char *text) {
    uint64_t y;
    memcpy(&y, text, sizeof(y));
    return lower8(p) == y;
}

/* `text` is lower-case. */
static bool matches(const char *p, const char *text, size_t n) {
    if (n < 8) {
        return as_slice_ieq((as_slice){p, n}, (as_slice){text, n});
    }
    for (size_t i = 0; i + 8 < n; i += 8) {
        if (!same_8_bytes(p + i, text + i)) {
            return false;
        }
    }
    return same_8_bytes(p + n - 8, text + n - 8);
}

as_name_id as_name_find(const char *p, size_t n) {
    if (n < 2 || n > MAX_NAME) {
        return AS_NAME_OTHER;
    }
    as_name_id id = (as_name_id)slots[slot_of(p, n)];
    return rows[id].n == n && matches(p, rows[id].text, n) ? id : AS_NAME_OTHER;
}

as_slice as_name_text(as_name_id id) {
    if ((unsigned)id >= AS_NAME_COUNT) {
        id = AS_NAME_OTHER;
    }
    return (as_slice){rows[id].text, rows[id].n};
}
