/* RP2040: the second stage of the boot. The boot ROM copies the first 256 bytes of the flash into RAM, checks the CRC
 * in the last four, and runs them there. They let the flash be read as memory, two bits at a time, which every flash
 * chip can (Fast Read Dual Output); four bits need a setting that is kept in the chip. RP2040 datasheet, 2.8.1
 * and 4.10. */
#include "cortex.h"

#define SSI 0x18000000u
#define FRAME_32_BITS (31u << 16)
#define READ_AFTER_COMMAND (3u << 8)
#define TWO_LINES (1u << 21)
#define CLOCK_DIVIDER 2u
#define COMMAND (0x3Bu << 24)
#define WAIT_CYCLES (8u << 11)
#define COMMAND_8_BITS (2u << 8)
#define ADDRESS_24_BITS (6u << 2)

#define VECTORS 0x10000100u

__attribute__((noreturn, section(".boot2.entry"))) void boot2(void) {
    REGISTER(SSI + 0x08u) = 0; /* off, to be changed */
    REGISTER(SSI + 0x14u) = CLOCK_DIVIDER;
    REGISTER(SSI + 0xF0u) = 1u; /* what arrives is sampled a cycle later */
    REGISTER(SSI + 0x00u) = TWO_LINES | FRAME_32_BITS | READ_AFTER_COMMAND;
    REGISTER(SSI + 0x04u) = 0; /* a word at a time */
    REGISTER(SSI + 0xF4u) = COMMAND | WAIT_CYCLES | COMMAND_8_BITS | ADDRESS_24_BITS;
    REGISTER(SSI + 0x08u) = 1u;
    REGISTER(0xE000ED08u) = VECTORS; /* VTOR */
    __asm volatile("msr msp, %0\n"
                   "bx %1\n" ::"r"(REGISTER(VECTORS)),
                   "r"(REGISTER(VECTORS + 4u)));
    __builtin_unreachable();
}
