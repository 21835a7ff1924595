/* The generated network under names of its own: -DMODEL=digits -DMODEL_UPPER=DIGITS -DMODEL_HEADER='"digits.h"'. */
#ifndef THUMBNET_MODEL_H
#define THUMBNET_MODEL_H

#include <stdint.h>

#include MODEL_HEADER

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define STRING_(a) #a
#define STRING(a) STRING_(a)

#define MODEL_NAME STRING(MODEL)
#define MODEL_INPUT_BYTES JOIN(MODEL_UPPER, _INPUT_BYTES)
#define MODEL_INPUT_ROW_BYTES (JOIN(MODEL_UPPER, _INPUT_WIDTH) * JOIN(MODEL_UPPER, _INPUT_CHANNELS))
#define MODEL_OUTPUT_SCALE JOIN(MODEL_UPPER, _OUTPUT_SCALE)
#define MODEL_OUTPUT_BYTES JOIN(MODEL_UPPER, _OUTPUT_BYTES)
#define MODEL_ARENA_BYTES JOIN(MODEL_UPPER, _ARENA_BYTES)
#define MODEL_LAYER_COUNT JOIN(MODEL_UPPER, _LAYER_COUNT)
#if JOIN(MODEL_UPPER, _STREAMED_INPUT)
/* An image beside the arena, from which the network reads row by row. */
int8_t *model_input(void);
#else
#define model_input JOIN(MODEL, _input)
#endif
#define model_output JOIN(MODEL, _output)
#define model_run JOIN(MODEL, _run)
#define model_run_layer JOIN(MODEL, _run_layer)
#define model_arena JOIN(MODEL, _arena)
#define model_layers JOIN(MODEL, _layers)

/* Generated beside the network from golden.npz. */
extern const uint32_t golden_count;
extern const int8_t golden_inputs[];
extern const int8_t golden_outputs[];

#endif
