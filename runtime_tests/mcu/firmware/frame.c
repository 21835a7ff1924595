#include "frame.h"

uint32_t crc32(const uint8_t *bytes, uint32_t length) {
    /* Reflected polynomial 0xEDB88320, four bits at a time: 64 bytes of table instead of 1024. */
    static const uint32_t table[16] = {0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u,
                                       0x4DB26158u, 0x5005713Cu, 0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu,
                                       0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu};
    uint32_t crc = 0xFFFFFFFFu;
    for (uint32_t i = 0; i < length; i++) {
        crc ^= bytes[i];
        crc = (crc >> 4) ^ table[crc & 15u];
        crc = (crc >> 4) ^ table[crc & 15u];
    }
    return ~crc;
}

static void append(frame_reader_t *reader, uint8_t byte) {
    if (reader->length < reader->capacity) {
        reader->buffer[reader->length++] = byte;
    } else {
        reader->overflow = 1;
    }
}

static uint32_t get_u32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static frame_status_t finish(frame_reader_t *reader) {
    frame_status_t status = FRAME_DAMAGED;
    if (reader->code == 0) {
        status = FRAME_MORE; /* an empty frame */
    } else if (reader->left == 0 && !reader->overflow && reader->length >= FRAME_CRC_BYTES) {
        reader->length -= FRAME_CRC_BYTES;
        if (crc32(reader->buffer, reader->length) == get_u32(reader->buffer + reader->length)) {
            status = FRAME_READY;
        }
    }
    reader->code = 0;
    reader->left = 0;
    reader->overflow = 0;
    return status;
}

frame_status_t frame_take(frame_reader_t *reader, uint8_t byte) {
    if (byte == 0) {
        return finish(reader);
    }
    if (reader->left > 0) {
        append(reader, byte);
        reader->left--;
        return FRAME_MORE;
    }
    if (reader->code == 0) {
        reader->length = 0;
    } else if (reader->code != 0xFF) {
        append(reader, 0); /* the zero between two blocks */
    }
    reader->code = byte;
    reader->left = (uint8_t)(byte - 1);
    return FRAME_MORE;
}

void frame_send(uint8_t *payload, uint32_t length, void (*write)(const uint8_t *bytes, uint32_t length)) {
    static const uint8_t end = 0;
    write(&end, 1); /* ends what noise may have begun at the other end */
    uint32_t crc = crc32(payload, length);
    for (uint32_t i = 0; i < FRAME_CRC_BYTES; i++) {
        payload[length++] = (uint8_t)(crc >> (8 * i));
    }
    uint32_t start = 0;
    for (;;) {
        uint32_t run = 0;
        while (run < 254 && start + run < length && payload[start + run] != 0) {
            run++;
        }
        uint8_t code = (uint8_t)(run + 1);
        write(&code, 1);
        write(payload + start, run);
        start += run;
        if (start == length) {
            break;
        }
        if (run < 254) {
            start++; /* the zero that the code byte stands for; there may be nothing behind it but it must be coded */
        }
    }
    write(&end, 1);
}
