/* Memory that a network leaves to its program: the arena, and the image whose rows it asks for. */
#include <string.h>

#include "model.h"

#if TN_MODEL_CALLER_ARENA
uint8_t firmware_arena[TN_MODEL_ARENA_BYTES]
    __attribute__((aligned(JOIN(TN_MODEL_UPPER, _ARENA_ALIGNMENT)))) JOIN(TN_MODEL_UPPER, _ARENA_ATTRIBUTE);
#endif

#if JOIN(TN_MODEL_UPPER, _STREAMED_INPUT)
static int8_t image[TN_MODEL_INPUT_BYTES];

int8_t *network_input(void) { return image; }

void JOIN(TN_MODEL, _read_row)(int32_t row, int8_t *pixels) {
    memcpy(pixels, image + row * TN_MODEL_INPUT_ROW_BYTES, TN_MODEL_INPUT_ROW_BYTES);
}
#endif
