/* Frames: COBS(payload, CRC-32 of the payload as 4 little-endian bytes), then a zero byte. Senders put a zero in front
 * of a frame as well, so that noise before it, or the rest of a frame that was cut, spoils nothing but itself. */
#ifndef THUMBNET_FRAME_H
#define THUMBNET_FRAME_H

#include <stdint.h>

#define FRAME_CRC_BYTES 4u

typedef enum { FRAME_MORE, FRAME_READY, FRAME_DAMAGED } frame_status_t;

typedef struct {
    uint8_t *buffer;   /* where the payload and its CRC are decoded to */
    uint32_t capacity; /* bytes of buffer */
    uint32_t length;   /* bytes decoded so far; the payload's length at FRAME_READY */
    uint8_t code;      /* code byte of the current COBS block, 0 at the start of a frame */
    uint8_t left;      /* bytes of the block still to come */
    uint8_t overflow;  /* the frame was longer than the buffer */
} frame_reader_t;

uint32_t crc32(const uint8_t *bytes, uint32_t length);

/* Take one received byte. Empty frames are skipped. */
frame_status_t frame_take(frame_reader_t *reader, uint8_t byte);

/* Send payload[0..length) as one frame. payload has FRAME_CRC_BYTES more bytes of room, for the CRC. */
void frame_send(uint8_t *payload, uint32_t length, void (*write)(const uint8_t *bytes, uint32_t length));

#endif
