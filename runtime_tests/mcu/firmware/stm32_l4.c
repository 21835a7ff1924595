/* STM32L4 and L4+: from the internal oscillator of 16 MHz by the PLL. ST RM0351, RM0432. */
#include "cortex.h"
#include "setup.h"
#include "stm32.h"

#define RCC_CR (RCC + 0x00u)
#define RCC_CFGR (RCC + 0x08u)
#define RCC_PLLCFGR (RCC + 0x0Cu)
#define PWR_CR2 0x40007004u
#define PWR_SR2 0x40007014u
#define PWR_CR5 0x40007080u
#define FLASH_ACR 0x40022000u

#define RESET_HZ 4000000u /* of the multi-speed oscillator */
#define HSI_ON (1u << 8)
#define HSI_READY (1u << 10)
#define PLL_ON (1u << 24)
#define PLL_READY (1u << 25)
/* 4 MHz into the PLL, twice the core's clock out of its VCO. */
#define PLL_N (CLOCK_HZ / 2000000u)
#define PLL_CONFIG (2u | 3u << 4 | PLL_N << 8 | 1u << 24)
_Static_assert(PLL_N >= 32 && PLL_N <= 60 && PLL_N * 2000000u == CLOCK_HZ, "clock_hz is to be 64 to 120 even MHz");

/* L4+ alone: the voltage that clocks beyond 80 MHz need. */
#define BOOST (CLOCK_HZ > 80000000u)
#define WAIT_STATES ((CLOCK_HZ - 1u) / (BOOST ? 20000000u : 16000000u))
#define CACHES (3u << 9) /* of instructions and data; no prefetch, which the caches make dearer than it is worth */
#define HALF_SPEED (8u << 4)
#define TO_PLL 3u

static int start_pll(void) {
    REGISTER(APB1_CLOCKS) |= 1u << 28; /* PWR */
    REGISTER(PWR_CR2) |= 1u << 9;      /* the supply of port G is there */
    if (BOOST) {
        REGISTER(PWR_CR5) &= ~(1u << 8);
        if (!setup_wait(PWR_SR2, 1u << 10, 0, "voltage")) {
            return 0;
        }
    }
    REGISTER(RCC_CR) |= HSI_ON;
    if (!setup_wait(RCC_CR, HSI_READY, HSI_READY, "HSI16")) {
        return 0;
    }
    REGISTER(RCC_PLLCFGR) = PLL_CONFIG;
    REGISTER(RCC_CR) |= PLL_ON;
    REGISTER(FLASH_ACR) = CACHES | WAIT_STATES;
    return setup_wait(FLASH_ACR, 15u, WAIT_STATES, "flash wait states") &&
           setup_wait(RCC_CR, PLL_READY, PLL_READY, "PLL");
}

stm32_clocks_t stm32_start_clocks(void) {
    stm32_clocks_t clocks = {RESET_HZ, RESET_HZ, RESET_HZ};
    if (start_pll()) {
        REGISTER(RCC_CFGR) = HALF_SPEED | TO_PLL; /* beyond 80 MHz not in one step */
        if (setup_wait(RCC_CFGR, 3u << 2, TO_PLL << 2, "switch to the PLL")) {
            for (volatile int i = 0; i < 200; i++) { /* a microsecond at least */
            }
            REGISTER(RCC_CFGR) = TO_PLL;
            clocks.core_hz = clocks.uart_hz = clocks.timer_hz = CLOCK_HZ;
        } else {
            REGISTER(RCC_CFGR) = 0;
        }
    }
    return clocks;
}

void stm32_start_memories(void) {}
