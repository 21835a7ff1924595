/* The image of a network that asks for its rows: it lies beside the arena, and a run doesn't overwrite it. */
#include <string.h>

#include "model.h"

#if JOIN(MODEL_UPPER, _STREAMED_INPUT)
static int8_t image[MODEL_INPUT_BYTES];

int8_t *model_input(void) { return image; }

void JOIN(MODEL, _read_row)(int32_t row, int8_t *pixels) {
    memcpy(pixels, image + row * MODEL_INPUT_ROW_BYTES, MODEL_INPUT_ROW_BYTES);
}
#endif
