/* The generated network under names of its own: -DTN_MODEL=digits -DTN_MODEL_UPPER=DIGITS
 * -DTN_MODEL_HEADER='<digits.h>'. A network may be called anything, "model" too, but tn_ or thumbnet. */
#ifndef THUMBNET_MODEL_H
#define THUMBNET_MODEL_H

#include <stdint.h>

#include TN_MODEL_HEADER

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define STRING_(a) #a
#define STRING(a) STRING_(a)

#define TN_MODEL_NAME STRING(TN_MODEL)
#define TN_MODEL_INPUT_BYTES JOIN(TN_MODEL_UPPER, _INPUT_BYTES)
#define TN_MODEL_INPUT_ROW_BYTES (JOIN(TN_MODEL_UPPER, _INPUT_WIDTH) * JOIN(TN_MODEL_UPPER, _INPUT_CHANNELS))
#define TN_MODEL_OUTPUT_SCALE JOIN(TN_MODEL_UPPER, _OUTPUT_SCALE)
#define TN_MODEL_OUTPUT_BYTES JOIN(TN_MODEL_UPPER, _OUTPUT_BYTES)
#define TN_MODEL_ARENA_BYTES JOIN(TN_MODEL_UPPER, _ARENA_BYTES)
#define TN_MODEL_LAYER_COUNT JOIN(TN_MODEL_UPPER, _LAYER_COUNT)
#define TN_MODEL_CALLER_ARENA JOIN(TN_MODEL_UPPER, _CALLER_ARENA)
#define model_run JOIN(TN_MODEL, _run)
#define model_run_layer JOIN(TN_MODEL, _run_layer)
#define model_layers JOIN(TN_MODEL, _layers)
/* The arena, and where input and output lie in it; an image that the network reads row by row lies beside it. */
#if TN_MODEL_CALLER_ARENA
extern uint8_t firmware_arena[TN_MODEL_ARENA_BYTES];
#define network_arena() firmware_arena
#define network_input() JOIN(TN_MODEL, _input)(firmware_arena)
#define network_output() JOIN(TN_MODEL, _output)(firmware_arena)
#define network_run() model_run(firmware_arena)
#else
#define network_arena JOIN(TN_MODEL, _arena)
#define network_input JOIN(TN_MODEL, _input)
#define network_output JOIN(TN_MODEL, _output)
#define network_run model_run
#endif
#if JOIN(TN_MODEL_UPPER, _STREAMED_INPUT)
#undef network_input
int8_t *network_input(void);
#endif

/* Generated beside the network from golden.npz. */
extern const uint32_t golden_count;
extern const int8_t golden_inputs[];
extern const int8_t golden_outputs[];

#endif
