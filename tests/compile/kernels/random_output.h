/* What the programs here share: random values, and an output that is printed as a sum. `OUT` values, from the including
 * file. */
#ifndef RANDOM_OUTPUT_H
#define RANDOM_OUTPUT_H
#include <stdint.h>
#include <stdio.h>

static uint32_t state = 1;
static inline uint32_t draw(void) { return state = state * 1664525u + 1013904223u; }
static inline int8_t draw8(void) { return (int8_t)(draw() >> 24); }

static int16_t out[OUT] __attribute__((aligned(4)));

/* What no kernel writes keeps this value. */
static inline void clear_output(void) {
    for (int i = 0; i < OUT; ++i)
        out[i] = 0x5555;
}

/* A line: what it is, a sum over all values, and how many different ones were written. */
static inline void print(const char *name) {
    uint32_t sum = 0;
    int values = 0, kinds[256] = {0};
    for (int i = 0; i < OUT; ++i) {
        sum = sum * 31 + (uint16_t)out[i];
        if (out[i] != 0x5555)
            values += kinds[(uint8_t)out[i]]++ == 0;
    }
    printf("%s %08x %d\n", name, (unsigned)sum, values);
}
#endif
