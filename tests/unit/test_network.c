/* Addresses, networks, and who is in a list of them. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "base/network.h"

static unsigned failures;

static void check(bool right, const char *what, const char *text) {
    if (!right) {
        fprintf(stderr, "%s: %s\n", what, text);
        failures++;
    }
}

static as_slice slice(const char *text) {
    return (as_slice){text, strlen(text)};
}

/* --- addresses ------------------------------------------------------------------------------ */

static const char *const addresses[][2] = {
    {"0.0.0.0", "0.0.0.0"},
    {"192.0.2.255", "192.0.2.255"},
    {"::", "::"},
    {"2001:DB8:0:0::1", "2001:db8::1"},
    {"2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6"},
    {"::ffff:192.0.2.1", "192.0.2.1"},
    {"::FFFF:c000:201", "192.0.2.1"},
    {"::192.0.2.1", "::192.0.2.1"},
};

static const char *const bad_addresses[] = {
    "",
    " ",
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.256",
    "01.2.3.4",
    "1.2.3.4 ",
    " 1.2.3.4",
    "1.2.3.4:80",
    "0x7f.0.0.1",
    "2130706433",
    "[::1]",
    "::1%lo",
    ":::",
    "1::2::3",
    "::12345",
    "::ffff:1.2.3",
    "1:2:3:4:5:6:7:8:9",
    "localhost",
    "1.2.3.4\n",
    "::g",
    "1.2.3.4/32",
    "unknown",
    "-1.2.3.4",
    "2001:db8:1111:2222:3333:4444:5555:6666:7777:8888:9999",
};

static void test_addresses(void) {
    char text[AS_ADDRESS_TEXT];
    as_address address;
    for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
        check(as_address_parse(slice(addresses[i][0]), &address), "refused", addresses[i][0]);
        as_address_format(&address, text);
        check(strcmp(text, addresses[i][1]) == 0, addresses[i][0], text);
    }
    for (size_t i = 0; i < sizeof(bad_addresses) / sizeof(bad_addresses[0]); i++) {
        check(!as_address_parse(slice(bad_addresses[i]), &address), "taken", bad_addresses[i]);
    }
    check(!as_address_parse((as_slice){"1.2.3.4\0", 8}, &address), "taken", "a NUL");
    as_address_format(&(as_address){0}, text);
    check(text[0] == '\0', "no address", text);
}

static void test_sockets(void) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0xc0000201)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    struct sockaddr none = {.sa_family = AF_UNIX};
    char text[AS_ADDRESS_TEXT];
    as_address address = as_address_of_socket((struct sockaddr *)&in);
    as_address_format(&address, text);
    check(strcmp(text, "192.0.2.1") == 0, "IPv4", text);
    (void)inet_pton(AF_INET6, "::ffff:192.0.2.1", &in6.sin6_addr);
    address = as_address_of_socket((struct sockaddr *)&in6);
    as_address_format(&address, text);
    check(strcmp(text, "192.0.2.1") == 0, "IPv4 in IPv6", text);
    check(as_address_of_socket(&none).n == 0, "a Unix socket", "has an address");
}

/* --- trust ---------------------------------------------------------------------------------- */

typedef struct trust_row {
    const char *network, *address;
    bool in;
} trust_row;

static const trust_row trust_rows[] = {
    {"192.0.2.1/32", "192.0.2.1", true},
    {"192.0.2.1/32", "192.0.2.2", false},
    {"192.0.2.1/32", "192.0.2.0", false},
    {"192.0.2.0/24", "192.0.2.255", true},
    {"192.0.2.0/24", "192.0.3.0", false},
    {"192.0.2.0/24", "192.0.1.255", false},
    {"10.0.0.0/8", "10.255.255.255", true},
    {"10.0.0.0/8", "11.0.0.0", false},
    {"172.16.0.0/12", "172.31.255.255", true},
    {"172.16.0.0/12", "172.32.0.0", false},
    {"172.16.0.0/12", "172.15.255.255", false},
    {"192.0.2.128/25", "192.0.2.127", false},
    {"192.0.2.128/25", "192.0.2.128", true},
    {"192.0.2.2/31", "192.0.2.3", true},
    {"192.0.2.2/31", "192.0.2.4", false},
    {"0.0.0.0/0", "255.255.255.255", true},
    {"0.0.0.0/0", "::1", false},
    {"0.0.0.0/0", "", false},
    {"10.0.0.0/8", "::ffff:10.1.2.3", true},
    {"::ffff:10.0.0.0/104", "10.1.2.3", true},
    {"::ffff:10.0.0.0/104", "11.1.2.3", false},
    {"::ffff:192.0.2.1/128", "192.0.2.1", true},
    {"::/0", "2001:db8::1", true},
    {"::/0", "192.0.2.1", false},
    {"::1/128", "::1", true},
    {"::1/128", "::2", false},
    {"::1/128", "127.0.0.1", false},
    {"2001:db8::/32", "2001:db8:ffff::", true},
    {"2001:db8::/32", "2001:db9::", false},
    {"2001:db8::/33", "2001:db8:7fff::", true},
    {"2001:db8::/33", "2001:db8:8000::", false},
    {"fe80::/10", "febf::1", true},
    {"fe80::/10", "fec0::1", false},
    {"2001:db8::1/128", "2001:db8::1", true},
    {"2001:db8::/127", "2001:db8::1", true},
    {"2001:db8::/127", "2001:db8::2", false},
    {"unix", "", true},
    {"unix", "127.0.0.1", false},
    {"unix", "::1", false},
};

static as_err add(as_trust *trust, const char *text) {
    char copy[64], *prefix;
    unsigned char bytes[16];
    if (strcmp(text, "unix") == 0) {
        return as_trust_add(trust, NULL, 0, 0);
    }
    (void)snprintf(copy, sizeof(copy), "%s", text);
    prefix = strchr(copy, '/');
    *prefix++ = '\0';
    bool v6 = strchr(copy, ':') != NULL;
    check(inet_pton(v6 ? AF_INET6 : AF_INET, copy, bytes) == 1, "bad row", text);
    unsigned bits = 0;
    (void)sscanf(prefix, "%u", &bits);
    return as_trust_add(trust, bytes, v6 ? 16 : 4, bits);
}

static bool has(const as_trust *trust, const char *text) {
    as_address address = {0};
    check(*text == '\0' || as_address_parse(slice(text), &address), "bad row", text);
    return as_trust_has(trust, &address);
}

static void test_trust(void) {
    as_trust all = {0};
    check(!has(&all, "127.0.0.1") && !has(&all, ""), "an empty list", "trusts");
    for (size_t i = 0; i < sizeof(trust_rows) / sizeof(trust_rows[0]); i++) {
        const trust_row *row = &trust_rows[i];
        as_trust one = {0};
        check(add(&one, row->network) == AS_OK && add(&all, row->network) == AS_OK, "refused",
              row->network);
        check(has(&one, row->address) == row->in, row->network, row->address);
        check(!row->in || has(&all, row->address), "not in the whole list", row->address);
        as_trust_fini(&one);
    }
    as_trust_fini(&all);
    check(!has(&all, "127.0.0.1"), "a finished list", "trusts");
}

static void test_refused_networks(void) {
    static const unsigned char bytes[16] = {[10] = 0xff, [11] = 0xff};
    as_trust trust = {0};
    check(as_trust_add(&trust, bytes, 4, 33) != AS_OK, "taken", "/33");
    check(as_trust_add(&trust, bytes, 16, 129) != AS_OK, "taken", "/129");
    check(as_trust_add(&trust, bytes, 16, 95) != AS_OK, "taken", "half of a mapped network");
    check(as_trust_add(&trust, bytes, 5, 8) != AS_OK, "taken", "five bytes");
    check(as_trust_add(&trust, bytes, 0, 1) != AS_OK, "taken", "a bit of nothing");
    check(trust.n == 0, "refused networks", "are in the list");
    as_trust_fini(&trust);
}

int main(void) {
    test_addresses();
    test_sockets();
    test_trust();
    test_refused_networks();
    return failures == 0 ? 0 : 1;
}
