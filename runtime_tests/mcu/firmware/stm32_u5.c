/* STM32U5, without TrustZone: from the internal oscillator of 16 MHz by the first PLL. ST RM0456. */
#include "cortex.h"
#include "setup.h"
#include "stm32.h"

#define RCC_CR (RCC + 0x00u)
#define RCC_CFGR1 (RCC + 0x1Cu)
#define RCC_PLL1CFGR (RCC + 0x28u)
#define RCC_PLL1DIVR (RCC + 0x34u)
#define RCC_AHB3ENR (RCC + 0x94u)
#define PWR_VOSR 0x4602080Cu
#define FLASH_ACR 0x40022000u
#define ICACHE_CR 0x40030400u
#define ICACHE_SR 0x40030404u

#define RESET_HZ 4000000u /* of the multi-speed oscillator */
#define HSI_ON (1u << 8)
#define HSI_READY (1u << 10)
#define PLL_ON (1u << 24)
#define PLL_READY (1u << 25)
#define BOOSTER_READY (1u << 14)
#define VOLTAGE_READY (1u << 15)
/* 4 MHz into the PLL, twice the core's clock out of its VCO; the booster runs on the oscillator. */
#define PLL_N (CLOCK_HZ / 2000000u)
_Static_assert(PLL_N >= 32 && PLL_N <= 80 && PLL_N * 2000000u == CLOCK_HZ, "clock_hz is to be 64 to 160 even MHz");
#define PLL_CONFIG (2u | 3u << 8 | 1u << 18) /* from HSI16, by 4, output R */
#define PLL_DIVIDERS ((PLL_N - 1u) | 1u << 9 | 1u << 16 | 1u << 24)
#define WAIT_STATES ((CLOCK_HZ - 1u) / 32000000u)
#define PREFETCH (1u << 8)
#define TO_PLL 3u

static int start_pll(void) {
    REGISTER(RCC_AHB3ENR) |= 1u << 2; /* PWR */
    REGISTER(RCC_CR) |= HSI_ON;
    if (!setup_wait(RCC_CR, HSI_READY, HSI_READY, "HSI16")) {
        return 0;
    }
    REGISTER(RCC_PLL1CFGR) = PLL_CONFIG;
    REGISTER(RCC_PLL1DIVR) = PLL_DIVIDERS;
    REGISTER(PWR_VOSR) |= 3u << 16;
    if (!setup_wait(PWR_VOSR, VOLTAGE_READY, VOLTAGE_READY, "voltage")) {
        return 0;
    }
    REGISTER(PWR_VOSR) |= 1u << 18;
    if (!setup_wait(PWR_VOSR, BOOSTER_READY, BOOSTER_READY, "booster")) {
        return 0;
    }
    REGISTER(RCC_CR) |= PLL_ON;
    REGISTER(FLASH_ACR) = PREFETCH | WAIT_STATES;
    return setup_wait(FLASH_ACR, 15u, WAIT_STATES, "flash wait states") &&
           setup_wait(RCC_CR, PLL_READY, PLL_READY, "PLL");
}

stm32_clocks_t stm32_start_clocks(void) {
    stm32_clocks_t clocks = {RESET_HZ, RESET_HZ, RESET_HZ};
    if (setup_wait(ICACHE_SR, 1u, 0, "instruction cache")) {
        REGISTER(ICACHE_CR) |= 1u;
    }
    if (start_pll()) {
        REGISTER(RCC_CFGR1) = TO_PLL;
        if (setup_wait(RCC_CFGR1, 3u << 2, TO_PLL << 2, "switch to the PLL")) {
            clocks.core_hz = clocks.uart_hz = clocks.timer_hz = CLOCK_HZ;
        } else {
            REGISTER(RCC_CFGR1) = 0;
        }
    }
    return clocks;
}

void stm32_start_memories(void) {}
