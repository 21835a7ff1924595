#include "setup.h"

#include "cortex.h"
#include "port.h"

enum { MOST_TRIES = 100000 };

static const char *missing = "";

int setup_wait(uintptr_t address, uint32_t mask, uint32_t wanted, const char *what) {
    for (int tries = 0; tries < MOST_TRIES; tries++) {
        if ((REGISTER(address) & mask) == wanted) {
            return 1;
        }
    }
    if (!*missing) {
        missing = what;
    }
    return 0;
}

const char *port_missing(void) { return missing; }
