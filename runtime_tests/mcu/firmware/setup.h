/* Waits of a board's set-up that end whatever happens, and what did not come. */
#ifndef THUMBNET_SETUP_H
#define THUMBNET_SETUP_H

#include <stdint.h>

/* Wait until the bits under a mask are as wanted; whether they are. If not, `what` is what port_missing() says, unless
 * something was missed before. Ten milliseconds at least at any clock a chip starts with: oscillators, PLLs and
 * supplies take a few. */
int setup_wait(uintptr_t address, uint32_t mask, uint32_t wanted, const char *what);

#endif
