#include "network_calls.h"

#include <string.h>

#include "canary.h"
#include "frame.h"
#include "measure.h"
#include "model.h"
#include "port.h"
#include "reply.h"
#include "rpc.h"

static uint32_t input_written;         /* bytes of the input written in order since the last run */
static uint32_t next_layer = RPC_NONE; /* the only layer whose inputs are valid */
static uint32_t layer_ticks[TN_MODEL_LAYER_COUNT];

static struct {
    uint32_t sequence; /* of the call that left it; 0: there is none */
    const uint8_t *bytes;
    uint32_t size;
} output;

static uint32_t timed(measured_t function, uintptr_t first, uintptr_t second) {
    uint32_t before = port_ticks();
    measured_call(function, first, second);
    return port_ticks() - before;
}

static uint32_t marked(measured_t function, uintptr_t first, uintptr_t second) {
    port_mark(1);
    uint32_t ticks = timed(function, first, second);
    port_mark(0);
    return ticks;
}

#if TN_MODEL_CALLER_ARENA
static uint32_t timed_run(void) { return marked((measured_t)model_run, (uintptr_t)firmware_arena, 0); }

static uint32_t timed_layer(uint32_t layer) {
    return marked((measured_t)model_run_layer, (uintptr_t)firmware_arena, layer);
}
#else
static uint32_t timed_run(void) { return marked(model_run, 0, 0); }

static uint32_t timed_layer(uint32_t layer) { return marked((measured_t)model_run_layer, layer, 0); }
#endif

void network_forget(void) {
    input_written = 0;
    next_layer = RPC_NONE;
    output.sequence = 0;
}

static void leave_output(uint32_t sequence, const void *bytes, uint32_t size) {
    output.sequence = sequence;
    output.bytes = bytes;
    output.size = size;
    reply_u32(size);
    reply_u32((uint32_t)(uintptr_t)bytes);
    reply_u32(crc32(bytes, size));
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
        network_forget();
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
    network_forget();
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
    reply_clear();
    reply_u32(damage.behind);
    reply_u32(damage.reach);
    reply_u32(layer);
    return RPC_ARENA_OVERRUN;
}

static uint8_t run(uint32_t sequence) {
    if (next_layer != 0) {
        return RPC_NO_INPUT;
    }
    network_forget();
    stack_paint();
    reply_u32(timed_run());
    reply_u32(stack_used());
    uint8_t status = check_arena(RPC_NONE);
    if (status == RPC_OK) {
        leave_output(sequence, network_output(), TN_MODEL_OUTPUT_BYTES);
    }
    return status;
}

static uint8_t run_layer(const uint8_t *arguments, uint32_t sequence) {
    uint32_t layer = get_u32(arguments);
    if (layer >= TN_MODEL_LAYER_COUNT) {
        return RPC_BAD_RANGE;
    }
    if (layer != next_layer) {
        return RPC_NO_INPUT;
    }
    network_forget();
    stack_paint();
    reply_u32(timed_layer(layer));
    reply_u32(stack_used());
    uint8_t status = check_arena(layer);
    if (status == RPC_OK) {
        leave_output(sequence, network_arena() + model_layers[layer].output_offset, model_layers[layer].output_bytes);
        next_layer = layer + 1;
    }
    return status;
}

static uint8_t profile(uint32_t sequence) {
    if (next_layer != 0) {
        return RPC_NO_INPUT;
    }
    network_forget();
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
    reply_u32(sum);
    reply_u32(stack_used());
    leave_output(sequence, layer_ticks, sizeof(layer_ticks));
    return RPC_OK;
}

static uint8_t read_output(const uint8_t *arguments) {
    uint32_t asked = get_u32(arguments);
    uint32_t offset = get_u32(arguments + 4);
    uint32_t length = get_u32(arguments + 8);
    if (asked == 0 || asked != output.sequence) {
        return RPC_NO_OUTPUT;
    }
    if (length > RPC_CHUNK || offset > output.size || length > output.size - offset) {
        return RPC_BAD_RANGE;
    }
    reply_bytes(output.bytes + offset, length);
    return RPC_OK;
}

static uint8_t self_test(void) {
    uint32_t vector = RPC_NONE;
    uint32_t byte = 0;
    network_forget();
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
    reply_u32(golden_count);
    reply_u32(vector);
    reply_u32(byte);
    return RPC_OK;
}

uint8_t network_call(uint8_t command, const uint8_t *arguments, uint32_t length, uint32_t sequence) {
    switch (command) {
    case RPC_WRITE_INPUT:
        return write_input(arguments, length);
    case RPC_INPUT_PLACED:
        return input_placed(arguments);
    case RPC_RUN:
        return run(sequence);
    case RPC_RUN_LAYER:
        return run_layer(arguments, sequence);
    case RPC_PROFILE:
        return profile(sequence);
    case RPC_READ_OUTPUT:
        return read_output(arguments);
    case RPC_SELF_TEST:
        return self_test();
    case RPC_CALIBRATE:
        reply_u32(timed(measured_nothing, 0, 0));
        return RPC_OK;
    default:
        return RPC_UNKNOWN;
    }
}
