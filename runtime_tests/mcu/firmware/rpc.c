#include "rpc.h"

#include <string.h>

#include "canary.h"
#include "frame.h"
#include "measure.h"
#include "model.h"
#include "network_calls.h"
#include "port.h"
#include "reply.h"
#include "serve.h"

#define HEADER_BYTES 10u /* see rpc.h */
#define REQUEST_BYTES (HEADER_BYTES + 4u + RPC_CHUNK + FRAME_CRC_BYTES)
#define REPLY_BYTES (HEADER_BYTES + 1u + RPC_CHUNK + FRAME_CRC_BYTES)

static uint8_t request[REQUEST_BYTES];
static uint8_t reply[REPLY_BYTES]; /* of the last call; a repeated request is answered from here, not done twice */
static uint32_t reply_length;
static uint32_t session; /* 0: none, as after a reset */
static uint32_t last_sequence;

static void write_port(const uint8_t *bytes, uint32_t length) { port_write(bytes, length); }

static void put_u8(uint8_t value) { reply[reply_length++] = value; }

void reply_u32(uint32_t value) {
    for (uint32_t i = 0; i < 4; i++) {
        put_u8((uint8_t)(value >> (8 * i)));
    }
}

void reply_bytes(const void *bytes, uint32_t length) {
    memcpy(reply + reply_length, bytes, length);
    reply_length += length;
}

/* Inlined, the length of a literal is a constant, and no strlen gets into the image. */
static inline __attribute__((always_inline)) void put_string(const char *string) {
    uint32_t length = (uint32_t)strlen(string);
    put_u8((uint8_t)length);
    reply_bytes(string, length);
}

/* Not in reply[], which may have to be repeated. */
static void send_status(uint8_t status) {
    uint8_t frame[HEADER_BYTES + 1u + FRAME_CRC_BYTES];
    memcpy(frame, request, HEADER_BYTES);
    frame[0] = RPC_VERSION;
    frame[HEADER_BYTES] = status;
    frame_send(frame, HEADER_BYTES + 1u, write_port);
}

static void send_reply(void) {
    /* frame_send() puts the CRC behind the payload; the payload stays for a repetition. */
    frame_send(reply, reply_length, write_port);
}

void reply_clear(void) { reply_length = HEADER_BYTES + 1u; }

static void reply_identity(void) {
    reply_u32(RPC_CHUNK);
    reply_u32(TN_MODEL_INPUT_BYTES);
    reply_u32(TN_MODEL_OUTPUT_BYTES);
    reply_u32(TN_MODEL_ARENA_BYTES);
    reply_u32(TN_MODEL_LAYER_COUNT);
    reply_u32(golden_count);
    reply_u32(stack_size());
    reply_u32(port_tick_hz());
    put_u8(port_tick_kind());
    reply_u32((uint32_t)(uintptr_t)network_input());
    put_string(TN_MODEL_NAME);
    put_string(STRING(TN_MODEL_HASH));
    put_string(STRING(BOARD));
    const char *missing = port_missing();
    uint32_t length = 0;
    while (missing[length] && length < PORT_MISSING_LENGTH) {
        length++;
    }
    put_u8((uint8_t)length);
    reply_bytes(missing, length);
}

/* Bytes of arguments of each command; RPC_NONE: any. */
static uint32_t argument_bytes(uint8_t command) {
    switch (command) {
    case RPC_WRITE_INPUT:
        return RPC_NONE;
    case RPC_RUN_LAYER:
    case RPC_INPUT_PLACED:
        return 4;
    case RPC_READ_OUTPUT:
        return 12;
    default:
        return 0;
    }
}

static uint8_t execute(uint8_t command, const uint8_t *arguments, uint32_t length) {
    uint32_t expected = argument_bytes(command);
    if (expected != RPC_NONE && length != expected) {
        return RPC_BAD_LENGTH;
    }
    switch (command) {
    case RPC_RUN:
    case RPC_RUN_LAYER:
    case RPC_PROFILE:
    case RPC_SELF_TEST:
        send_status(RPC_ACCEPTED);
        break;
    default:
        break;
    }
    switch (command) {
    case RPC_OPEN:
        reply_identity();
        return RPC_OK;
    case RPC_CLOCK:
        reply_u32(port_ticks());
        return RPC_OK;
    default:
        return network_call(command, arguments, length, last_sequence);
    }
}

static frame_reader_t reader = {.buffer = request, .capacity = sizeof(request)};

/* Wait for a whole request; its length, at least HEADER_BYTES. Damaged ones go unanswered: the host repeats them.
 * Between two looks at the clock the core stays awake: some cycle counters stand still while it sleeps. */
static uint32_t receive(void) {
    int awake = reply[1] == RPC_CLOCK;
    for (;;) {
        while (awake && !port_has_byte()) {
        }
        if (frame_take(&reader, port_read_byte()) == FRAME_READY && reader.length >= HEADER_BYTES) {
            return reader.length;
        }
    }
}

/* Whether the request belongs to the open session, which it may open; if not, it is answered. */
static int admit(uint32_t asked) {
    if (request[0] != RPC_VERSION) {
        send_status(RPC_BAD_VERSION);
        return 0;
    }
    if (request[1] == RPC_OPEN && asked != 0 && asked != session) {
        session = asked;
        last_sequence = 0;
        network_forget();
    }
    if (asked != session || session == 0) {
        send_status(RPC_NO_SESSION);
        return 0;
    }
    return 1;
}

void serve_loop(void) {
    canary_arm();
    for (;;) {
        uint32_t length = receive();
        uint32_t sequence = get_u32(request + 6);
        if (!admit(get_u32(request + 2))) {
            continue;
        }
        if (sequence > last_sequence) {
            last_sequence = sequence;
            memcpy(reply, request, HEADER_BYTES);
            reply_clear();
            uint8_t status = execute(request[1], request + HEADER_BYTES, length - HEADER_BYTES);
            if (status != RPC_OK && status != RPC_ARENA_OVERRUN) {
                reply_clear();
            }
            reply[HEADER_BYTES] = status;
        }
        if (sequence == last_sequence && request[1] == reply[1]) {
            send_reply(); /* a late repetition of an older request isn't answered */
        }
    }
}

void serve_fault_loop(const fault_t *fault) {
    reply[0] = RPC_VERSION; /* there may have been no request yet */
    for (;;) {
        reply[HEADER_BYTES] = RPC_FAULT;
        reply_clear();
        reply_u32(fault->cfsr);
        reply_u32(fault->hfsr);
        reply_u32(fault->address);
        reply_u32(fault->pc);
        send_reply();
        receive();
        memcpy(reply, request, HEADER_BYTES);
    }
}
