#include "canary.h"

/* From firmware.ld.j2: all that the arena's memory holds beside it, from the firmware's data, or where that is
 * elsewhere from its start, to its end. It is painted once, and compared after every run, a word at a time: 4 MB take
 * 10 ms in emulation, and none of it is between the marks of a measurement. What was damaged is painted again. */
extern uint8_t __guard_start[], __arena_start[], __arena_end[], __ram_end[];

#define WORD 4u

typedef uint32_t __attribute__((may_alias)) word_t;

/* What the aligned word at an address holds. All bytes are odd, so that neither zeros nor -128 go unseen, and no two
 * neighbours are the same: whatever value an overrun fills with, it shows. */
static uint32_t expected_word(uintptr_t address) { return (uint32_t)address * 0x9E3779B1u | 0x01010101u; }

static uint8_t expected(const uint8_t *at) {
    uintptr_t address = (uintptr_t)at;
    return (uint8_t)(expected_word(address & ~(uintptr_t)(WORD - 1)) >> (8 * (address % WORD)));
}

static int is_word(const uint8_t *at, const uint8_t *end) {
    return (uintptr_t)at % WORD == 0 && end - at >= (ptrdiff_t)WORD;
}

static void paint(uint8_t *at, uint8_t *end) {
    while (at < end) {
        if (is_word(at, end)) {
            *(word_t *)at = expected_word((uintptr_t)at);
            at += WORD;
        } else {
            *at = expected(at);
            at++;
        }
    }
}

/* The first byte that has changed; end if none. */
static const uint8_t *first_changed(const uint8_t *at, const uint8_t *end) {
    while (at < end) {
        if (is_word(at, end) && *(const word_t *)at == expected_word((uintptr_t)at)) {
            at += WORD;
        } else if (*at == expected(at)) {
            at++;
        } else {
            break;
        }
    }
    return at;
}

void canary_arm(void) {
    paint(__guard_start, __arena_start);
    paint(__arena_end, __ram_end);
}

int canary_damaged(canary_damage_t *damage) {
    const uint8_t *changed = first_changed(__guard_start, __arena_start);
    if (changed < __arena_start) {
        damage->behind = 0;
        damage->reach = (uint32_t)(__arena_start - changed);
        return 1;
    }
    changed = first_changed(__arena_end, __ram_end);
    if (changed == __ram_end) {
        return 0;
    }
    const uint8_t *last = __ram_end; /* the furthest is looked for from the other side, in no hurry */
    while (last[-1] == expected(last - 1)) {
        last--;
    }
    damage->behind = 1;
    damage->reach = (uint32_t)(last - __arena_end);
    return 1;
}
