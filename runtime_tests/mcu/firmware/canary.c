#include "canary.h"

/* Placed by firmware.ld.j2: canaries, arena, canaries, without a gap. */
extern uint8_t __arena_canary_start[], __arena_start[], __arena_end[], __arena_canary_end[];

/* No two neighbours are the same: whatever value an overrun fills with, it shows. */
static uint8_t expected(const uint8_t *at) { return (uint8_t)((uintptr_t)at * 29u + 0x5Bu); }

static void fill(uint8_t *from, const uint8_t *to) {
    for (; from < to; from++) {
        *from = expected(from);
    }
}

void canary_arm(void) {
    fill(__arena_canary_start, __arena_start);
    fill(__arena_end, __arena_canary_end);
}

int canary_damaged(canary_damage_t *damage) {
    for (const uint8_t *at = __arena_canary_start; at < __arena_start; at++) {
        if (*at != expected(at)) {
            damage->behind = 0;
            damage->reach = (uint32_t)(__arena_start - at);
            return 1;
        }
    }
    for (const uint8_t *at = __arena_canary_end; at > __arena_end; at--) {
        if (at[-1] != expected(at - 1)) {
            damage->behind = 1;
            damage->reach = (uint32_t)(at - __arena_end);
            return 1;
        }
    }
    return 0;
}
