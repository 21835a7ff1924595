/* What the firmware needs of a board. One port_*.c implements it for a family of boards. */
#ifndef THUMBNET_PORT_H
#define THUMBNET_PORT_H

#include <stddef.h>
#include <stdint.h>

/* Bits a second on the line, where it is a serial port. */
#define BAUD 115200u

/* What port_ticks() counts. */
enum { TICKS_TIMER = 0, TICKS_CYCLES = 1 };

/* Before anything but the stack's memory is touched: let the other memories run. */
void port_start_memories(void);

void port_init(void);

/* What of the board's set-up did not come, such as "PLL": the board then runs on as it is after a reset. Empty where
 * all came; at most PORT_MISSING_LENGTH characters. */
enum { PORT_MISSING_LENGTH = 32 };
const char *port_missing(void);

/* Wait, idle where the core can sleep, until a byte arrives. While the network runs nobody reads, and the host repeats
 * its request: bytes may be lost then, but the next one after them must be taken again, overrun or not. */
uint8_t port_read_byte(void);

/* Whether a byte has arrived, so that port_read_byte() doesn't wait. */
int port_has_byte(void);

/* Send all bytes; return when the last one is handed to the line. */
void port_write(const uint8_t *bytes, size_t length);

/* Whether the network runs: the pin that the board file names as its marker, if any, is high meanwhile, so that whoever
 * measures the board's current knows which is a run's. */
void port_mark(int running);

/* A free-running counter that uses all its 32 bits, its rate in hertz, and what it counts: the core's cycles where the
 * core counts them, else a timer. It needs no interrupt, because an interrupt inside a measurement would be counted
 * with it; and there is none, they stay masked for good. */
uint32_t port_ticks(void);
uint32_t port_tick_hz(void);
uint8_t port_tick_kind(void);

#endif
