#include "rpc.h"

#include <string.h>

#include "canary.h"
#include "frame.h"
#include "measure.h"
#include "model.h"
#include "port.h"

#define HEADER_BYTES 10u /* see rpc.h */
#define REQUEST_BYTES (HEADER_BYTES + 4u + RPC_CHUNK + FRAME_CRC_BYTES)
#define REPLY_BYTES (HEADER_BYTES + 1u + RPC_CHUNK + FRAME_CRC_BYTES)

static uint8_t request[REQUEST_BYTES];
static uint8_t reply[REPLY_BYTES]; /* of the last call; a repeated request is answered from here, not done twice */
static uint32_t reply_length;
static uint32_t session; /* 0: none, as after a reset */
static uint32_t last_sequence;

static uint32_t input_written;         /* bytes of the input written in order since the last run */
static uint32_t next_layer = RPC_NONE; /* the only layer whose inputs are valid */
static uint32_t layer_ticks[TN_MODEL_LAYER_COUNT];

static struct {
    uint32_t sequence; /* of the call that left it; 0: there is none */
    const uint8_t *bytes;
    uint32_t size;
} output;

#if JOIN(TN_MODEL_UPPER, _STREAMED_INPUT)
static int8_t image[TN_MODEL_INPUT_BYTES];

int8_t *network_input(void) { return image; }

void JOIN(TN_MODEL, _read_row)(int32_t row, int8_t *pixels) {
    memcpy(pixels, image + row * TN_MODEL_INPUT_ROW_BYTES, TN_MODEL_INPUT_ROW_BYTES);
}
#endif

static void write_port(const uint8_t *bytes, uint32_t length) { port_write(bytes, length); }

static uint32_t get_u32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static void put_u8(uint8_t value) { reply[reply_length++] = value; }

static void put_u32(uint32_t value) {
    for (uint32_t i = 0; i < 4; i++) {
        put_u8((uint8_t)(value >> (8 * i)));
    }
}

static void put_bytes(const void *bytes, uint32_t length) {
    memcpy(reply + reply_length, bytes, length);
    reply_length += length;
}

/* Inlined, the length of a literal is a constant, and no strlen gets into the image. */
static inline __attribute__((always_inline)) void put_string(const char *string) {
    uint32_t length = (uint32_t)strlen(string);
    put_u8((uint8_t)length);
    put_bytes(string, length);
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

static void clear_results(void) { reply_length = HEADER_BYTES + 1u; }

static void reply_identity(void) {
    put_u32(RPC_CHUNK);
    put_u32(TN_MODEL_INPUT_BYTES);
    put_u32(TN_MODEL_OUTPUT_BYTES);
    put_u32(TN_MODEL_ARENA_BYTES);
    put_u32(TN_MODEL_LAYER_COUNT);
    put_u32(golden_count);
    put_u32(stack_size());
    put_u32(port_tick_hz());
    put_u8(port_tick_kind());
    put_u32((uint32_t)(uintptr_t)network_input());
    put_string(TN_MODEL_NAME);
    put_string(STRING(TN_MODEL_HASH));
    put_string(STRING(BOARD));
    const char *missing = port_missing();
    uint32_t length = 0;
    while (missing[length] && length < PORT_MISSING_LENGTH) {
        length++;
    }
    put_u8((uint8_t)length);
    put_bytes(missing, length);
}

static uint32_t timed(measured_t function, uintptr_t first, uintptr_t second) {
    uint32_t before = port_ticks();
    measured_call(function, first, second);
    return port_ticks() - before;
}

#if TN_MODEL_CALLER_ARENA
uint8_t firmware_arena[TN_MODEL_ARENA_BYTES]
    __attribute__((aligned(JOIN(TN_MODEL_UPPER, _ARENA_ALIGNMENT)))) JOIN(TN_MODEL_UPPER, _ARENA_ATTRIBUTE);

static uint32_t timed_run(void) { return timed((measured_t)model_run, (uintptr_t)firmware_arena, 0); }

static uint32_t timed_layer(uint32_t layer) {
    return timed((measured_t)model_run_layer, (uintptr_t)firmware_arena, layer);
}
#else
static uint32_t timed_run(void) { return timed(model_run, 0, 0); }

static uint32_t timed_layer(uint32_t layer) { return timed((measured_t)model_run_layer, layer, 0); }
#endif

/* The input and the output of before are no more. */
static void forget(void) {
    input_written = 0;
    next_layer = RPC_NONE;
    output.sequence = 0;
}

static void leave_output(const void *bytes, uint32_t size) {
    output.sequence = last_sequence;
    output.bytes = bytes;
    output.size = size;
    put_u32(size);
    put_u32((uint32_t)(uintptr_t)bytes);
    put_u32(crc32(bytes, size));
}

static uint8_t write_input(const uint8_t *arguments, uint32_t length) {
    if (length < 4) {
        return RPC_BAD_LENGTH;
    }
    uint32_t offset = get_u32(arguments);
    uint32_t count = length - 4;
    if (offset > TN_MODEL_INPUT_BYTES || count > TN_MODEL_INPUT_BYTES - offset) {
        return RPC_BAD_RANGE;
    }
    if (offset == 0) {
        forget();
    } else if (offset != input_written) {
        return RPC_BAD_RANGE; /* a piece is missing */
    }
    memcpy(network_input() + offset, arguments + 4, count);
    input_written = offset + count;
    if (input_written == TN_MODEL_INPUT_BYTES) {
        next_layer = 0;
    }
    return RPC_OK;
}

static uint8_t input_placed(const uint8_t *arguments) {
    forget();
    if (crc32((const uint8_t *)network_input(), TN_MODEL_INPUT_BYTES) != get_u32(arguments)) {
        return RPC_BAD_CRC;
    }
    next_layer = 0;
    return RPC_OK;
}

/* Whether the network kept to its arena; if not, that is the reply. */
static uint8_t check_arena(uint32_t layer) {
    canary_damage_t damage;
    if (!canary_damaged(&damage)) {
        return RPC_OK;
    }
    canary_arm();
    clear_results();
    put_u32(damage.behind);
    put_u32(damage.reach);
    put_u32(layer);
    return RPC_ARENA_OVERRUN;
}

static uint8_t run(void) {
    if (next_layer != 0) {
        return RPC_NO_INPUT;
    }
    forget();
    stack_paint();
    put_u32(timed_run());
    put_u32(stack_used());
    uint8_t status = check_arena(RPC_NONE);
    if (status == RPC_OK) {
        leave_output(network_output(), TN_MODEL_OUTPUT_BYTES);
    }
    return status;
}

static uint8_t run_layer(const uint8_t *arguments) {
    uint32_t layer = get_u32(arguments);
    if (layer >= TN_MODEL_LAYER_COUNT) {
        return RPC_BAD_RANGE;
    }
    if (layer != next_layer) {
        return RPC_NO_INPUT;
    }
    forget();
    stack_paint();
    put_u32(timed_layer(layer));
    put_u32(stack_used());
    uint8_t status = check_arena(layer);
    if (status == RPC_OK) {
        leave_output(network_arena() + model_layers[layer].output_offset, model_layers[layer].output_bytes);
        next_layer = layer + 1;
    }
    return status;
}

static uint8_t profile(void) {
    if (next_layer != 0) {
        return RPC_NO_INPUT;
    }
    forget();
    stack_paint();
    uint32_t sum = 0;
    for (uint32_t layer = 0; layer < TN_MODEL_LAYER_COUNT; layer++) {
        layer_ticks[layer] = timed_layer(layer);
        sum += layer_ticks[layer];
        uint8_t status = check_arena(layer);
        if (status != RPC_OK) {
            return status;
        }
    }
    put_u32(sum);
    put_u32(stack_used());
    leave_output(layer_ticks, sizeof(layer_ticks));
    return RPC_OK;
}

static uint8_t read_output(const uint8_t *arguments) {
    uint32_t sequence = get_u32(arguments);
    uint32_t offset = get_u32(arguments + 4);
    uint32_t length = get_u32(arguments + 8);
    if (sequence == 0 || sequence != output.sequence) {
        return RPC_NO_OUTPUT;
    }
    if (length > RPC_CHUNK || offset > output.size || length > output.size - offset) {
        return RPC_BAD_RANGE;
    }
    put_bytes(output.bytes + offset, length);
    return RPC_OK;
}

static uint8_t self_test(void) {
    uint32_t vector = RPC_NONE;
    uint32_t byte = 0;
    forget();
    for (uint32_t i = 0; i < golden_count && vector == RPC_NONE; i++) {
        memcpy(network_input(), golden_inputs + i * TN_MODEL_INPUT_BYTES, TN_MODEL_INPUT_BYTES);
        network_run();
        for (uint32_t j = 0; j < TN_MODEL_OUTPUT_BYTES && vector == RPC_NONE; j++) {
            if (network_output()[j] != golden_outputs[i * TN_MODEL_OUTPUT_BYTES + j]) {
                vector = i;
                byte = j;
            }
        }
    }
    uint8_t status = check_arena(RPC_NONE);
    if (status != RPC_OK) {
        return status;
    }
    put_u32(golden_count);
    put_u32(vector);
    put_u32(byte);
    return RPC_OK;
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
    case RPC_WRITE_INPUT:
        return write_input(arguments, length);
    case RPC_INPUT_PLACED:
        return input_placed(arguments);
    case RPC_RUN:
        return run();
    case RPC_RUN_LAYER:
        return run_layer(arguments);
    case RPC_PROFILE:
        return profile();
    case RPC_READ_OUTPUT:
        return read_output(arguments);
    case RPC_SELF_TEST:
        return self_test();
    case RPC_CALIBRATE:
        put_u32(timed(measured_nothing, 0, 0));
        return RPC_OK;
    default:
        return RPC_UNKNOWN;
    }
}

static frame_reader_t reader = {.buffer = request, .capacity = sizeof(request)};

/* Wait for a whole request; its length, at least HEADER_BYTES. Damaged ones go unanswered: the host repeats them. */
static uint32_t receive(void) {
    for (;;) {
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
        forget();
    }
    if (asked != session || session == 0) {
        send_status(RPC_NO_SESSION);
        return 0;
    }
    return 1;
}

void rpc_loop(void) {
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
            clear_results();
            uint8_t status = execute(request[1], request + HEADER_BYTES, length - HEADER_BYTES);
            if (status != RPC_OK && status != RPC_ARENA_OVERRUN) {
                clear_results();
            }
            reply[HEADER_BYTES] = status;
        }
        if (sequence == last_sequence && request[1] == reply[1]) {
            send_reply(); /* a late repetition of an older request isn't answered */
        }
    }
}

void rpc_fault_loop(const rpc_fault_t *fault) {
    reply[0] = RPC_VERSION; /* there may have been no request yet */
    for (;;) {
        reply[HEADER_BYTES] = RPC_FAULT;
        clear_results();
        put_u32(fault->cfsr);
        put_u32(fault->hfsr);
        put_u32(fault->address);
        put_u32(fault->pc);
        send_reply();
        receive();
        memcpy(reply, request, HEADER_BYTES);
    }
}
