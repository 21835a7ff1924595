/* STM32F4 and F7: from the internal oscillator of 16 MHz by the PLL. ST RM0090, RM0383, RM0390, RM0385. */
#include "cortex.h"
#include "setup.h"
#include "stm32.h"

#define RCC_CR (RCC + 0x00u)
#define RCC_PLLCFGR (RCC + 0x04u)
#define RCC_CFGR (RCC + 0x08u)
#define PWR_CR 0x40007000u
#define PWR_CSR 0x40007004u
#define FLASH_ACR 0x40023C00u

#define HSI_HZ 16000000u
#define HSI_READY (1u << 1)
#define PLL_ON (1u << 24)
#define PLL_READY (1u << 25)
/* 2 MHz into the PLL, twice the core's clock out of its VCO; its other outputs are not used. */
#define PLL_M 8u
#define PLL_N (CLOCK_HZ / 1000000u)
#define PLL_CONFIG (PLL_M | PLL_N << 6 | 15u << 24 | 2u << 28)
_Static_assert(PLL_N >= 50 && PLL_N <= 216 && PLL_N * 1000000u == CLOCK_HZ, "clock_hz is to be 50 to 216 whole MHz");

#define OVER_DRIVE (CLOCK_HZ > 168000000u)
/* One for every 30 MHz at 2.7 V and more. */
#define WAIT_STATES ((CLOCK_HZ - 1u) / 30000000u)
#ifdef SERIES_F7
#define ACCELERATORS (3u << 8) /* prefetch, ART */
#else
#define ACCELERATORS (7u << 8) /* prefetch, caches of instructions and data */
#endif
/* Both peripheral buses at a quarter of the core's clock. */
#define BUS_DIVIDER 4u
#define BUS_PRESCALERS (5u << 10 | 5u << 13)

static int start_pll(void) {
    REGISTER(APB1_CLOCKS) |= 1u << 28; /* PWR */
    REGISTER(PWR_CR) |= 3u << 14;      /* voltage for the highest clocks */
    if (!setup_wait(RCC_CR, HSI_READY, HSI_READY, "HSI")) {
        return 0;
    }
    REGISTER(RCC_PLLCFGR) = PLL_CONFIG;
    REGISTER(RCC_CR) |= PLL_ON;
    if (OVER_DRIVE) {
        for (uint32_t bit = 16; bit <= 17; bit++) { /* on, then switched to */
            REGISTER(PWR_CR) |= 1u << bit;
            if (!setup_wait(PWR_CSR, 1u << bit, 1u << bit, "over-drive")) {
                return 0;
            }
        }
    }
    REGISTER(FLASH_ACR) = ACCELERATORS | WAIT_STATES;
    return setup_wait(FLASH_ACR, 15u, WAIT_STATES, "flash wait states") &&
           setup_wait(RCC_CR, PLL_READY, PLL_READY, "PLL");
}

stm32_clocks_t stm32_start_clocks(void) {
    stm32_clocks_t clocks = {HSI_HZ, HSI_HZ, HSI_HZ};
#ifdef SERIES_F7
    cortex_enable_caches();
#endif
    if (start_pll()) {
        REGISTER(RCC_CFGR) = BUS_PRESCALERS | 2u; /* the PLL */
        if (setup_wait(RCC_CFGR, 3u << 2, 2u << 2, "switch to the PLL")) {
            clocks.core_hz = CLOCK_HZ;
            clocks.uart_hz = CLOCK_HZ / BUS_DIVIDER;
            clocks.timer_hz = 2u * clocks.uart_hz; /* twice a bus that is divided */
        } else {
            REGISTER(RCC_CFGR) = 0;
        }
    }
    return clocks;
}

void stm32_start_memories(void) {}
