/* Internet addresses and networks as bytes, and a list of those to trust.
 *
 * IPv4 within IPv6 (RFC 4291, 2.5.5.2) is IPv4 everywhere: "::ffff:192.0.2.1" is 192.0.2.1. No
 * network of one family has an address of the other. */
#ifndef AS_BASE_NETWORK_H
#define AS_BASE_NETWORK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/err.h"
#include "base/slice.h"

#define AS_ADDRESS_TEXT ((size_t)46) /* bytes of an address as text, with a NUL */

typedef struct as_address {
    uint8_t n; /* 4, 16; 0: none, such as that of a Unix socket */
    uint8_t bytes[16];
} as_address;

/* "192.0.2.1" or "2001:db8::1", and nothing else: no port, brackets, zone or leading zeros. */
bool as_address_parse(as_slice text, as_address *out);
/* From `n` bytes of the wire: 4, 16 or 0. */
as_address as_address_of_bytes(const void *bytes, uint8_t n);
/* n is 0 for what is no internet address. */
as_address as_address_of_socket(const struct sockaddr *address);
/* Empty for none. `out` has AS_ADDRESS_TEXT bytes. */
void as_address_format(const as_address *address, char *out);

typedef struct as_network {
    as_address base; /* n is 0: Unix sockets */
    uint8_t prefix;  /* bits that count */
} as_network;

/* Owned by whoever made it. A zeroed one trusts nobody. */
typedef struct as_trust {
    as_network *networks;
    size_t n;
} as_trust;

/* `n` is 4, 16 or, for Unix sockets, 0; `prefix` at most as many bits, and at least the 96 that
 * mark a mapped address. AS_E_IO for what is no network. */
as_err as_trust_add(as_trust *trust, const void *bytes, size_t n, unsigned prefix);
bool as_trust_has(const as_trust *trust, const as_address *address);
void as_trust_fini(as_trust *trust);

#endif
