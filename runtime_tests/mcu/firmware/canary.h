/* All that is nobody's of the memory that holds the network's arena: the network must not write it. */
#ifndef THUMBNET_CANARY_H
#define THUMBNET_CANARY_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t behind; /* 1: behind the arena's end; 0: before its start */
    uint32_t reach;  /* how many bytes beyond the arena's edge the furthest changed byte lies; 1 is the next to it */
} canary_damage_t;

/* Write the bytes that are expected to be there. */
void canary_arm(void);

/* Whether bytes have changed since. */
int canary_damaged(canary_damage_t *damage);

#endif
