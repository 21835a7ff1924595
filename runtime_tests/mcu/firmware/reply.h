/* The results of a call, as they are put behind its reply's header; rpc.c has the buffer. */
#ifndef THUMBNET_REPLY_H
#define THUMBNET_REPLY_H

#include <stdint.h>

void reply_clear(void);
void reply_u32(uint32_t value);
void reply_bytes(const void *bytes, uint32_t length);

static inline uint32_t get_u32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

#endif
