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
    [0] = AS_NAME_UPGRADE_INSECURE_REQUESTS, [16] = AS_NAME_USER_AGENT,
    [19] = AS_NAME_SEC_FETCH_MODE, [24] = AS_NAME_REFERER, [26] = AS_NAME_SEC_CH_UA,
    [40] = AS_NAME_ACCEPT, [41] = AS_NAME_KEEP_ALIVE, [46] = AS_NAME_PROXY_CONNECTION,
    [48] = AS_NAME_TRACESTATE, [51] = AS_NAME_SEC_FETCH_SITE, [53] = AS_NAME_SEC_CH_UA_PLATFORM,
    [60] = AS_NAME_SEC_FETCH_USER, [62] = AS_NAME_TRAILER, [67] = AS_NAME_UPGRADE,
    [81] = AS_NAME_SEC_WEBSOCKET_VERSION, [84] = AS_NAME_X_FORWARDED_PROTO, [85] = AS_NAME_PRIORITY,
    [89] = AS_NAME_PROXY_AUTHORIZATION, [90] = AS_NAME_PRAGMA, [91] = AS_NAME_SERVER,
    [97] = AS_NAME_TRANSFER_ENCODING, [98] = AS_NAME_TE,
    [109] = AS_NAME_TRACEPARENT, [112] = AS_NAME_ORIGIN, [129] = AS_NAME_CONTENT_DISPOSITION,
    [137] = AS_NAME_VIA, [139] = AS_NAME_X_REQUEST_ID, [141] = AS_NAME_IF_UNMODIFIED_SINCE,
    [143] = AS_NAME_ACCEPT_LANGUAGE, [148] = AS_NAME_FORWARDED, [152] = AS_NAME_ACCEPT_ENCODING,
    [156] = AS_NAME_X_FORWARDED_PORT, [157] = AS_NAME_AUTHORIZATION, [158] = AS_NAME_SEC_FETCH_DEST,
    [160] = AS_NAME_ACCEPT_CHARSET, [163] = AS_NAME_X_FORWARDED_FOR, [167] = AS_NAME_IF_NONE_MATCH,
    [171] = AS_NAME_DNT, [172] = AS_NAME_X_REQUESTED_WITH, [175] = AS_NAME_SEC_CH_UA_MOBILE,
    [189] = AS_NAME_PROXY, [190] = AS_NAME_CONTENT_LENGTH, [194] = AS_NAME_X_REAL_IP,
    [195] = AS_NAME_IF_RANGE, [200] = AS_NAME_CONNECTION, [206] = AS_NAME_IF_MODIFIED_SINCE,
    [210] = AS_NAME_CONTENT_TYPE, [212] = AS_NAME_IF_MATCH, [219] = AS_NAME_CACHE_CONTROL,
    [221] = AS_NAME_CONTENT_ENCODING, [226] = AS_NAME_EXPECT, [233] = AS_NAME_X_CSRF_TOKEN,
    [236] = AS_NAME_SEC_WEBSOCKET_EXTENSIONS, [237] = AS_NAME_COOKIE,
    [238] = AS_NAME_X_FORWARDED_HOST, [240] = AS_NAME_SEC_WEBSOCKET_PROTOCOL, [244] = AS_NAME_RANGE,
    [246] = AS_NAME_SEC_WEBSOCKET_KEY, [251] = AS_NAME_DATE, [253] = AS_NAME_HOST,
};
/* clang-format on */

/* Setting 0x20 makes letters lower-case; what it makes of other bytes does not matter here. */
static unsigned slot_of(const char *p, size_t n) {
    unsigned first = (unsigned char)p[0] | 0x20u, middle = (unsigned char)p[n / 2] | 0x20u,
             last_but_one = (unsigned char)p[n - 2] | 0x20u, last = (unsigned char)p[n - 1] | 0x20u;
    return ((unsigned)n * 83 + first * 121 + middle * 77 + last_but_one * 82 + last * 115) & 255;
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
