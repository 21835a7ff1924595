/* The firmware's protocol as a program: standard input and output are the line. For sanitizers. */
#include <stdlib.h>
#include <unistd.h>

#include "canary.h"
#include "measure.h"
#include "port.h"
#include "rpc.h"

uint8_t port_read_byte(void) {
    uint8_t byte;
    if (read(0, &byte, 1) != 1) {
        exit(0);
    }
    return byte;
}

void port_write(const uint8_t *bytes, size_t length) {
    while (length > 0) {
        ssize_t n = write(1, bytes, length);
        if (n <= 0) {
            exit(1);
        }
        bytes += n;
        length -= (size_t)n;
    }
}

uint32_t port_ticks(void) {
    static uint32_t ticks;
    return ticks += 10;
}
uint32_t port_tick_hz(void) { return 1000; }
uint8_t port_tick_kind(void) { return TICKS_TIMER; }
void measured_call(measured_t function, uint32_t argument) { ((void (*)(uint32_t))function)(argument); }
void measured_nothing(void) {}
void stack_paint(void) {}
uint32_t stack_used(void) { return 64; }
uint32_t stack_size(void) { return 1024; }
void canary_arm(void) {}
int canary_damaged(canary_damage_t *damage) {
    (void)damage;
    return 0;
}
int main(void) { rpc_loop(); }
