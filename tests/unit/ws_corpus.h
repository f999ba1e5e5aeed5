/* What WebSocket clients send, and what must come of it: one corpus for test_websocket.c, whole and
 * in parts, under every mask. Masks are zero here, so that a payload reads as what it says. */
#ifndef AS_TESTS_WS_CORPUS_H
#define AS_TESTS_WS_CORPUS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

typedef struct ws_row {
    as_slice bytes;
    const char *events; /* see ws_describe.h; "!1002" for an error, and the code to close with */
    bool deflate;       /* is agreed on */
    uint64_t max_size;
} ws_row;

#define MASK "\0\0\0\0"
#define RAW(literal) {(literal), sizeof(literal) - 1}
/* `first` and `second`: the bytes of the header in front of the mask. */
#define FRAME(first, second, payload) first second MASK payload
#define TEXT(second, payload) FRAME("\x81", second, payload)
#define BINARY(second, payload) FRAME("\x82", second, payload)
#define BYTES_10 "0123456789"
#define BYTES_100                                                                                      \
    BYTES_10 BYTES_10 BYTES_10 BYTES_10 BYTES_10 BYTES_10 BYTES_10 BYTES_10 BYTES_10 BYTES_10

static const ws_row ws_rows[] = {
    /* whole messages, and several of them */
    {RAW(""), "", 0, 0},
    {RAW(TEXT("\x85", "Hello")), "text Hello", 0, 0},
    {RAW(BINARY("\x85", "\x00\xff\x80\x01!")), "binary \\00\\ff\\80\\01!", 0, 0},
    {RAW(TEXT("\x80", "")), "text ", 0, 0},
    {RAW(BINARY("\x80", "")), "binary ", 0, 0},
    {RAW(TEXT("\x81", "a") BINARY("\x81", "b") TEXT("\x80", "") TEXT("\x81", "c")),
     "text a|binary b|text |text c", 0, 0},
    {RAW(TEXT("\xfe\x00\x7e", BYTES_100 BYTES_10 BYTES_10 "abcdef")), "text 126 2f0c", 0, 0},
    {RAW(TEXT("\xfd", BYTES_100 BYTES_10 BYTES_10 "abcde")), "text 125 23a5", 0, 0},
    /* 5.4: fragments */
    {RAW(FRAME("\x01", "\x83", "Hel") FRAME("\x80", "\x82", "lo")), "text Hello", 0, 0},
    {RAW(FRAME("\x02", "\x83", "Hel") FRAME("\x00", "\x80", "") FRAME("\x80", "\x82", "lo")),
     "binary Hello", 0, 0},
    {RAW(FRAME("\x01", "\x80", "") FRAME("\x00", "\x80", "") FRAME("\x80", "\x80", "")), "text ", 0,
     0},
    {RAW(FRAME("\x01", "\x80", "") FRAME("\x00", "\x80", "") FRAME("\x80", "\x82", "lo")),
     "text lo", 0, 0},
    {RAW(FRAME("\x01", "\x82", "lo") FRAME("\x80", "\x80", "")), "text lo", 0, 0},
    {RAW(FRAME("\x01", "\x82", "lo") FRAME("\x00", "\x80", "")), "", 0, 0},
    {RAW(FRAME("\x01", "\x81", "a") FRAME("\x80", "\x81", "b") FRAME("\x02", "\x81", "c")
             FRAME("\x80", "\x81", "\xff") TEXT("\x81", "e")),
     "text ab|binary c\\ff|text e", 0, 0},
    {RAW(FRAME("\x80", "\x81", "a")), "!1002", 0, 0},
    {RAW(FRAME("\x00", "\x81", "a")), "!1002", 0, 0},
    {RAW(TEXT("\x81", "a") FRAME("\x80", "\x81", "a")), "text a|!1002", 0, 0},
    {RAW(FRAME("\x01", "\x81", "a") TEXT("\x81", "b")), "!1002", 0, 0},
    {RAW(FRAME("\x01", "\x81", "a") FRAME("\x02", "\x81", "b")), "!1002", 0, 0},
    {RAW(FRAME("\x01", "\x80", "") BINARY("\x81", "b")), "!1002", 0, 0},
    /* 5.5: control frames, also between fragments */
    {RAW(FRAME("\x89", "\x85", "Hello")), "ping Hello", 0, 0},
    {RAW(FRAME("\x8a", "\x85", "Hello")), "pong Hello", 0, 0},
    {RAW(FRAME("\x89", "\x80", "") FRAME("\x8a", "\x80", "")), "ping |pong ", 0, 0},
    {RAW(FRAME("\x89", "\x82", "\xff\x00")), "ping \\ff\\00", 0, 0},
    {RAW(FRAME("\x89", "\xfd", BYTES_100 BYTES_10 BYTES_10 "abcde")), "ping 125 23a5", 0, 0},
    {RAW(FRAME("\x01", "\x83", "Hel") FRAME("\x89", "\x81", "1") FRAME("\x00", "\x81", "l")
             FRAME("\x8a", "\x81", "2") FRAME("\x89", "\x80", "") FRAME("\x80", "\x81", "o")),
     "ping 1|pong 2|ping |text Hello", 0, 0},
    {RAW(FRAME("\x01", "\x83", "Hel") FRAME("\x88", "\x82", "\x03\xe8")), "close 1000 ", 0, 0},
    {RAW(FRAME("\x09", "\x81", "a")), "!1002", 0, 0},
    {RAW(FRAME("\x0a", "\x81", "a")), "!1002", 0, 0},
    {RAW(FRAME("\x08", "\x80", "")), "!1002", 0, 0},
    {RAW(FRAME("\x89", "\xfe\x00\x7e", BYTES_100)), "!1002", 0, 0},
    {RAW(FRAME("\x8a", "\xff\0\0\0\0\0\0\0\x01", "a")), "!1002", 0, 0},
    {RAW(FRAME("\x88", "\xfe\x00\x7e", "")), "!1002", 0, 0},
    /* 5.5.1, 7.4: closing */
    {RAW(FRAME("\x88", "\x80", "")), "close 1005 ", 0, 0},
    {RAW(FRAME("\x88", "\x82", "\x03\xe8")), "close 1000 ", 0, 0},
    {RAW(FRAME("\x88", "\x85",
               "\x03\xe9"
               "bye")),
     "close 1001 bye", 0, 0},
    {RAW(FRAME("\x88", "\x84", "\x0f\xa0\xc3\xa4")), "close 4000 \\c3\\a4", 0, 0},
    {RAW(FRAME("\x88", "\xfd", "\x03\xe8" BYTES_100 BYTES_10 BYTES_10 "abc")),
     "close 1000 123 3ddb", 0, 0},
    {RAW(FRAME("\x88", "\x82", "\x03\xe8") TEXT("\x81", "a")), "close 1000 ", 0, 0},
    {RAW(FRAME("\x88", "\x80", "") "\xff\xff and whatever else"), "close 1005 ", 0, 0},
    {RAW(FRAME("\x88", "\x81", "\x03")), "!1002", 0, 0},
    {RAW(FRAME("\x88", "\x82", "\x03\xed")), "!1002", 0, 0}, /* 1005 */
    {RAW(FRAME("\x88", "\x82", "\x00\x00")), "!1002", 0, 0},
    {RAW(FRAME("\x88", "\x82", "\xff\xff")), "!1002", 0, 0},
    {RAW(FRAME("\x88", "\x83", "\x03\xe8\xff")), "!1007", 0, 0},
    {RAW(FRAME("\x88", "\x83", "\x03\xe8\xc3")), "!1007", 0, 0},
    {RAW(FRAME("\x88", "\x83", "\x03\xed\xff")), "!1002", 0, 0},
    /* 5.2: reserved bits and opcodes */
    {RAW(FRAME("\xa1", "\x81", "a")), "!1002", 0, 0},
    {RAW(FRAME("\x91", "\x81", "a")), "!1002", 0, 0},
    {RAW(FRAME("\xc1", "\x81", "a")), "!1002", 0, 0},
    {RAW(FRAME("\xc9", "\x80", "")), "!1002", 1, 0},
    {RAW(FRAME("\xa1", "\x81", "a")), "!1002", 1, 0},
    {RAW(FRAME("\x83", "\x80", "")), "!1002", 0, 0},
    {RAW(FRAME("\x84", "\x80", "")), "!1002", 0, 0},
    {RAW(FRAME("\x85", "\x80", "")), "!1002", 0, 0},
    {RAW(FRAME("\x86", "\x80", "")), "!1002", 0, 0},
    {RAW(FRAME("\x87", "\x80", "")), "!1002", 0, 0},
    {RAW(FRAME("\x8b", "\x80", "")), "!1002", 0, 0},
    {RAW(FRAME("\x8c", "\x80", "")), "!1002", 0, 0},
    {RAW(FRAME("\x8d", "\x80", "")), "!1002", 0, 0},
    {RAW(FRAME("\x8e", "\x80", "")), "!1002", 0, 0},
    {RAW(FRAME("\x8f", "\x80", "")), "!1002", 0, 0},
    {RAW(TEXT("\x81", "a") FRAME("\x83", "\x80", "") TEXT("\x81", "b")), "text a|!1002", 0, 0},
    /* 5.1: masked, or refused before anything else of it is looked at */
    {RAW("\x81\x05Hello"), "!1002", 0, 0},
    {RAW("\x89\x00"), "!1002", 0, 0},
    {RAW("\x88\x02\x03\xe8"), "!1002", 0, 0},
    /* 5.5.1: half a code, and a byte behind the frame that would make it a whole one */
    {RAW(FRAME("\x88", "\x81", "\x03") "\xe8"), "!1002", 0, 0},
    /* 5.2: lengths in the fewest bytes */
    {RAW(BINARY("\xfe\x00\x7d", "")), "!1002", 0, 0},
    {RAW(BINARY("\xfe\x00\x00", "")), "!1002", 0, 0},
    {RAW(BINARY("\xff\0\0\0\0\0\0\xff\xff", "")), "!1002", 0, 0},
    {RAW(BINARY("\xff\0\0\0\0\0\0\x00\x05", "")), "!1002", 0, 0},
    {RAW(BINARY("\xff\0\0\0\0\0\x01\x00\x00", "")), "", 0, 0},
    {RAW(BINARY("\xff\x80\0\0\0\0\0\0\0", "")), "!1002", 0, 0},
    {RAW(BINARY("\xff\xff\xff\xff\xff\xff\xff\xff\xff", "")), "!1002", 0, 0},
    {RAW(BINARY("\xff\x7f\xff\xff\xff\xff\xff\xff\xff", "begins")), "", 0, 0},
    /* the limit: of one frame as declared, of a sum as it grows */
    {RAW(TEXT("\x8a", BYTES_10)), "text 0123456789", 0, 10},
    {RAW(TEXT("\x8b", "")), "!1009", 0, 10},
    {RAW(BINARY("\xff\x7f\xff\xff\xff\xff\xff\xff\xff", "")), "!1009", 0, 10},
    {RAW(FRAME("\x01", "\x89", "012345678") FRAME("\x80", "\x81", "9")), "text 0123456789", 0, 10},
    {RAW(FRAME("\x01", "\x8a", BYTES_10) FRAME("\x80", "\x80", "")), "text 0123456789", 0, 10},
    {RAW(FRAME("\x01", "\x89", "012345678") FRAME("\x80", "\x82", "")), "!1009", 0, 10},
    {RAW(FRAME("\x01", "\x81", "0") FRAME("\x80", "\xff\x7f\xff\xff\xff\xff\xff\xff\xff", "")),
     "!1009", 0, 10},
    {RAW(TEXT("\x8a", BYTES_10) TEXT("\x8a", BYTES_10)), "text 0123456789|text 0123456789", 0, 10},
    {RAW(FRAME("\x89", "\x8b", BYTES_10 "x")), "ping 0123456789x", 0, 10},
    /* 8.1: text is UTF-8, over fragments, and is refused at the first byte that is wrong */
    {RAW(TEXT("\x8b", "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5")),
     "text \\ce\\ba\\e1\\bd\\b9\\cf\\83\\ce\\bc\\ce\\b5", 0, 0},
    {RAW(FRAME("\x01", "\x81", "\xe2") FRAME("\x00", "\x81", "\x82") FRAME("\x80", "\x81", "\xac")),
     "text \\e2\\82\\ac", 0, 0},
    {RAW(FRAME("\x01", "\x81", "\xe2") FRAME("\x89", "\x81", "\x80")
             FRAME("\x80", "\x82", "\x82\xac")),
     "ping \\80|text \\e2\\82\\ac", 0, 0},
    {RAW(TEXT("\x82", "\xe2\x82")), "!1007", 0, 0},
    {RAW(FRAME("\x01", "\x82", "\xe2\x82") FRAME("\x80", "\x80", "")), "!1007", 0, 0},
    {RAW(FRAME("\x01", "\x82", "\xe2\x82") FRAME("\x80", "\x81", "a")), "!1007", 0, 0},
    {RAW(TEXT("\xfd", "\xff")), "!1007", 0, 0},
    {RAW(TEXT("\xfd", "abc\xed\xa0")), "!1007", 0, 0},
    {RAW(FRAME("\x01", "\x8a", "abc\xf4\x90")), "!1007", 0, 0},
    {RAW(FRAME("\x01", "\x8a", "abc\xf4")), "", 0, 0},
    {RAW(FRAME("\x02", "\x81", "\xff") FRAME("\x80", "\x81", "\xfe")), "binary \\ff\\fe", 0, 0},
    /* cut off */
    {RAW("\x81"), "", 0, 0},
    {RAW("\x81\x85\0\0"), "", 0, 0},
    {RAW(TEXT("\x85", "Hell")), "", 0, 0},
    {RAW(TEXT("\x81", "a") FRAME("\x89", "\x85", "Hell")), "text a", 0, 0},
    {RAW(FRAME("\x88", "\x85", "\xff\xff")), "", 0, 0},
    /* RFC 7692, 7.2.3: compressed messages */
    {RAW(FRAME("\xc1", "\x87", "\xf2\x48\xcd\xc9\xc9\x07\x00")), "text Hello", 1, 0},
    {RAW(FRAME("\x41", "\x83", "\xf2\x48\xcd") FRAME("\x80", "\x84", "\xc9\xc9\x07\x00")),
     "text Hello", 1, 0},
    {RAW(FRAME("\xc1", "\x87", "\xf2\x48\xcd\xc9\xc9\x07\x00")
             FRAME("\xc1", "\x85", "\xf2\x00\x11\x00\x00")),
     "text Hello|text Hello", 1, 0},
    {RAW(FRAME("\xc1", "\x8b", "\x00\x05\x00\xfa\xffHello\x00")), "text Hello", 1, 0},
    {RAW(FRAME("\xc1", "\x88", "\xf3\x48\xcd\xc9\xc9\x07\x00\x00")), "text Hello", 1, 0},
    {RAW(FRAME("\xc1", "\x8d", "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00")),
     "text Hello", 1, 0},
    {RAW(FRAME("\xc1", "\x81", "\x00")), "text ", 1, 0},
    {RAW(FRAME("\xc2", "\x81", "\x00") BINARY("\x81", "\xff")), "binary |binary \\ff", 1, 0},
    /* a last block, then another message that builds on it */
    {RAW(FRAME("\xc1", "\x88", "\xf3\x48\xcd\xc9\xc9\x07\x00\x00")
             FRAME("\xc1", "\x85", "\xf2\x00\x11\x00\x00")),
     "text Hello|text Hello", 1, 0},
    /* what ends without the tail that is to be added, or has it already */
    {RAW(FRAME("\xc1", "\x80", "")), "text ", 1, 0},
    {RAW(FRAME("\xc1", "\x87", "\xf3\x48\xcd\xc9\xc9\x07\x00")), "text Hello", 1, 0},
    {RAW(FRAME("\xc1", "\x8b", "\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff")), "text Hello", 1,
     0},
    {RAW(FRAME("\x41", "\x87", "\xf2\x48\xcd\xc9\xc9\x07\x00") FRAME("\x89", "\x81", "p")
             FRAME("\x80", "\x80", "")),
     "ping p|text Hello", 1, 0},
    /* not to be decoded: a reserved kind of block, a distance too far, cut off, a bad stored length
     */
    {RAW(FRAME("\xc1", "\x82", "\x06\x00")), "!1002", 1, 0},
    {RAW(FRAME("\xc1", "\x85", "\xf2\x00\x11\x00\x00")), "!1002", 1, 0},
    {RAW(FRAME("\xc1", "\x85", "\xf2\x48\xcd\xc9\xc9")), "!1002", 1, 0},
    {RAW(FRAME("\xc1", "\x86", "\x00\x05\x00\xfa\xfeH")), "!1002", 1, 0},
    {RAW(FRAME("\xc1", "\x85", "Hello")), "!1002", 1, 0},
    /* RFC 7692, 6.1: RSV1 on the first frame alone */
    {RAW(FRAME("\x41", "\x83", "\xf2\x48\xcd") FRAME("\xc0", "\x84", "\xc9\xc9\x07\x00")), "!1002",
     1, 0},
    {RAW(FRAME("\x01", "\x81", "a") FRAME("\xc0", "\x81", "b")), "!1002", 1, 0},
    {RAW(TEXT("\x85", "Hello")), "text Hello", 1, 0},
    /* text that is none, once it is inflated: one stored byte */
    {RAW(FRAME("\xc1", "\x87", "\x00\x01\x00\xfe\xff\xff\x00")), "!1007", 1, 0},
    {RAW(FRAME("\xc1", "\x87", "\x00\x01\x00\xfe\xff\xe2\x00")), "!1007", 1, 0},
    {RAW(FRAME("\xc2", "\x87", "\x00\x01\x00\xfe\xff\xff\x00")), "binary \\ff", 1, 0},
    /* the same in front of much that is text */
    {RAW(FRAME("\xc1", "\xae",
               "\x00\x28\x00\xd7\xff\xff" BYTES_10 BYTES_10 BYTES_10 "012345678\x00")),
     "!1007", 1, 0},
    /* the limit is on what it becomes */
    {RAW(FRAME("\xc1", "\x87", "\xf2\x48\xcd\xc9\xc9\x07\x00")), "text Hello", 1, 5},
    {RAW(FRAME("\xc1", "\x87", "\xf2\x48\xcd\xc9\xc9\x07\x00")), "!1009", 1, 4},
    {RAW(FRAME("\xc1", "\xfe\x01\x00", "")), "!1009", 1, 5},
};

#endif
