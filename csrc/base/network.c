#include "base/network.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

as_address as_address_of_bytes(const void *bytes, uint8_t n) {
    as_address address = {.n = n};
    if (n == 16 && memcmp(bytes, mapped, sizeof(mapped)) == 0) {
        address.n = 4;
        memcpy(address.bytes, (const uint8_t *)bytes + sizeof(mapped), 4);
    } else if (n > 0) {
        memcpy(address.bytes, bytes, n);
    }
    return address;
}

bool as_address_parse(as_slice text, as_address *out) {
    char copy[AS_ADDRESS_TEXT];
    uint8_t bytes[16];
    if (text.n == 0 || text.n >= sizeof(copy) || memchr(text.p, '\0', text.n) != NULL) {
        return false;
    }
    memcpy(copy, text.p, text.n);
    copy[text.n] = '\0';
    bool is_v6 = memchr(text.p, ':', text.n) != NULL;
    if (inet_pton(is_v6 ? AF_INET6 : AF_INET, copy, bytes) != 1) {
        return false;
    }
    *out = as_address_of_bytes(bytes, is_v6 ? 16 : 4);
    return true;
}

as_address as_address_of_socket(const struct sockaddr *address) {
    if (address->sa_family == AF_INET) {
        return as_address_of_bytes(&((const struct sockaddr_in *)(const void *)address)->sin_addr,
                                   4);
    }
    if (address->sa_family == AF_INET6) {
        return as_address_of_bytes(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr,
                                   16);
    }
    return (as_address){0};
}

void as_address_format(const as_address *address, char *out) {
    out[0] = '\0';
    if (address->n != 0) {
        (void)inet_ntop(address->n == 4 ? AF_INET : AF_INET6, address->bytes, out, AS_ADDRESS_TEXT);
    }
}

/* --- trust ---------------------------------------------------------------------------------- */

as_err as_trust_add(as_trust *trust, const void *bytes, size_t n, unsigned prefix) {
    if ((n != 0 && n != 4 && n != 16) || prefix > 8 * n) {
        return AS_E_IO;
    }
    as_address base = as_address_of_bytes(bytes, (uint8_t)n);
    unsigned left_out = base.n < n ? 96 : 0; /* a network of mapped addresses is one of IPv4 */
    if (prefix < left_out) {
        return AS_E_IO;
    }
    as_network *networks = realloc(trust->networks, (trust->n + 1) * sizeof(*networks));
    if (networks == NULL) {
        return AS_E_NOMEM;
    }
    networks[trust->n++] = (as_network){base, (uint8_t)(prefix - left_out)};
    trust->networks = networks;
    return AS_OK;
}

static bool contains(const as_network *network, const as_address *address) {
    if (network->base.n != address->n) {
        return false;
    }
    unsigned whole = network->prefix / 8, rest = network->prefix % 8;
    if (memcmp(network->base.bytes, address->bytes, whole) != 0) {
        return false;
    }
    unsigned differ = network->base.bytes[whole % 16] ^ address->bytes[whole % 16];
    return rest == 0 || (differ & (0xff00u >> rest) & 0xff) == 0;
}

bool as_trust_has(const as_trust *trust, const as_address *address) {
    for (size_t i = 0; i < trust->n; i++) {
        if (contains(&trust->networks[i], address)) {
            return true;
        }
    }
    return false;
}

void as_trust_fini(as_trust *trust) {
    free(trust->networks);
    *trust = (as_trust){0};
}
