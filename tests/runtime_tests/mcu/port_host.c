/* The firmware's protocol as a program, for sanitizers and for lines that misbehave: standard input and output are the
 * line. With a file descriptor as argument, it writes there how many bytes it has taken, as uint64_t, whenever it waits
 * for more: who has sent as many knows that nothing else will come, without looking at a clock. */
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "canary.h"
#include "measure.h"
#include "port.h"
#include "serve.h"

static int idle_file = -1;
static uint64_t taken;

static void write_all(int file, const void *bytes, size_t length) {
    for (const uint8_t *at = bytes; length > 0;) {
        ssize_t n = write(file, at, length);
        if (n <= 0) {
            exit(1);
        }
        at += n;
        length -= (size_t)n;
    }
}

uint8_t port_read_byte(void) {
    static uint8_t buffer[4096];
    static ssize_t length, next;
    if (next == length) {
        struct pollfd line = {.fd = 0, .events = POLLIN};
        if (idle_file >= 0 && poll(&line, 1, 0) == 0) {
            write_all(idle_file, &taken, sizeof(taken));
        }
        length = read(0, buffer, sizeof(buffer));
        next = 0;
        if (length <= 0) {
            exit(0);
        }
    }
    taken++;
    return buffer[next++];
}

int port_has_byte(void) { return 1; }

void port_write(const uint8_t *bytes, size_t length) { write_all(1, bytes, length); }

void port_mark(int running) { (void)running; }
uint32_t port_ticks(void) {
    static uint32_t ticks;
    return ticks += 10;
}
uint32_t port_tick_hz(void) { return 1000; }
uint8_t port_tick_kind(void) { return TICKS_TIMER; }
const char *port_missing(void) { return "crystal, and more than there is room for"; }
void measured_call(measured_t function, uintptr_t first, uintptr_t second) {
    ((void (*)(uintptr_t, uintptr_t))function)(first, second);
}
void measured_nothing(void) {}
void stack_paint(void) {}
uint32_t stack_used(void) { return 64; }
uint32_t stack_size(void) { return 1024; }
void canary_arm(void) {}
int canary_damaged(canary_damage_t *damage) {
    (void)damage;
    return 0;
}

int main(int count, char **arguments) {
    if (count > 1) {
        idle_file = atoi(arguments[1]);
    }
    serve_loop();
}
