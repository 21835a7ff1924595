/* STM32H7: from the internal oscillator of 64 MHz by the first PLL. ST RM0433 (H743), RM0455 (H7A3). */
#include "cortex.h"
#include "setup.h"
#include "stm32.h"

#define RCC_CR (RCC + 0x00u)
#define RCC_CFGR (RCC + 0x10u)
#define RCC_D1CFGR (RCC + 0x18u)
#define RCC_D2CFGR (RCC + 0x1Cu)
#define RCC_PLLCKSELR (RCC + 0x28u)
#define RCC_PLLCFGR (RCC + 0x2Cu)
#define RCC_PLL1DIVR (RCC + 0x30u)
#define RCC_AHB2ENR (RCC + 0xDCu)
#define RCC_APB4ENR (RCC + 0xF4u)
#define PWR_CSR1 0x58024804u
#define PWR_CR3 0x5802480Cu
#define PWR_D3CR 0x58024818u
#define SYSCFG_PWRCR 0x5800042Cu
#define FLASH_ACR 0x52002000u

#define HSI_HZ 64000000u
#define HSI_READY (1u << 2)
#define PLL_ON (1u << 24)
#define PLL_READY (1u << 25)
/* 4 MHz into the PLL, twice the core's clock out of its VCO. */
#define PLL_M 16u
#define PLL_N (CLOCK_HZ / 2000000u)
_Static_assert(PLL_N >= 50 && PLL_N <= 240 && PLL_N * 2000000u == CLOCK_HZ, "clock_hz is to be 100 to 480 even MHz");
#define PLL_DIVIDERS ((PLL_N - 1u) | 1u << 9 | 1u << 16 | 1u << 24)
#define PLL_CONFIG (2u << 2 | 1u << 16) /* input of 4 to 8 MHz, wide VCO, output P */

/* Beyond 280 MHz only the H743 goes: its buses run at half the core's clock, on a voltage of their own switch. */
#define FAST_CORE (CLOCK_HZ > 280000000u)
#define D1_PRESCALERS (FAST_CORE ? 8u | 4u << 4 : 4u << 4) /* buses; the peripheral bus at half of that */
#define D2_PRESCALERS (4u << 4 | 4u << 8)
#define UART_DIVIDER (FAST_CORE ? 4u : 2u)
#define FLASH_WAITS (FAST_CORE ? 4u | 2u << 4 : 6u | 3u << 4)
#define TO_PLL 3u

static int raise_voltage(void) {
    /* The supply can be chosen once after power is on. */
    REGISTER(PWR_CR3) = (REGISTER(PWR_CR3) & ~7u) | (SUPPLY_SMPS ? 4u : 2u);
    if (!setup_wait(PWR_CSR1, 1u << 13, 1u << 13, "supply")) {
        return 0;
    }
    REGISTER(PWR_D3CR) |= 3u << 14;
    if (!setup_wait(PWR_D3CR, 1u << 13, 1u << 13, "voltage")) {
        return 0;
    }
    if (FAST_CORE) {
        REGISTER(RCC_APB4ENR) |= 1u << 1; /* SYSCFG */
        REGISTER(SYSCFG_PWRCR) |= 1u;     /* over-drive */
        return setup_wait(PWR_D3CR, 1u << 13, 1u << 13, "over-drive");
    }
    return 1;
}

static int start_pll(void) {
    if (!raise_voltage() || !setup_wait(RCC_CR, HSI_READY, HSI_READY, "HSI")) {
        return 0;
    }
    REGISTER(RCC_PLLCKSELR) = PLL_M << 4; /* from HSI */
    REGISTER(RCC_PLLCFGR) = PLL_CONFIG;
    REGISTER(RCC_PLL1DIVR) = PLL_DIVIDERS;
    REGISTER(RCC_CR) |= PLL_ON;
    REGISTER(FLASH_ACR) = FLASH_WAITS;
    return setup_wait(FLASH_ACR, 63u, FLASH_WAITS, "flash wait states") &&
           setup_wait(RCC_CR, PLL_READY, PLL_READY, "PLL");
}

stm32_clocks_t stm32_start_clocks(void) {
    stm32_clocks_t clocks = {HSI_HZ, HSI_HZ, HSI_HZ};
    cortex_enable_caches();
    if (start_pll()) {
        REGISTER(RCC_D1CFGR) = D1_PRESCALERS;
        REGISTER(RCC_D2CFGR) = D2_PRESCALERS;
        REGISTER(RCC_CFGR) = TO_PLL;
        if (setup_wait(RCC_CFGR, 7u << 3, TO_PLL << 3, "switch to the PLL")) {
            clocks.core_hz = CLOCK_HZ;
            clocks.uart_hz = CLOCK_HZ / UART_DIVIDER;
            clocks.timer_hz = 2u * clocks.uart_hz; /* twice a bus that is divided */
        } else {
            REGISTER(RCC_CFGR) = REGISTER(RCC_D1CFGR) = REGISTER(RCC_D2CFGR) = 0;
        }
    }
    return clocks;
}

void stm32_start_memories(void) {
    REGISTER(RCC_AHB2ENR) |= 7u << 29; /* the SRAM of the second domain */
    (void)REGISTER(RCC_AHB2ENR);
    __asm volatile("dsb" ::: "memory");
}
