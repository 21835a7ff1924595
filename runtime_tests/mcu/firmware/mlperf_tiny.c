/* The protocol that MLPerf Tiny's runner speaks with a device. Commands end in '%', lines in CR LF, every answer in
 * m-ready. The runner sends an image's pixels, starts inferences, and takes the time between two lines m-lap-us. */
#include <string.h>

#include "model.h"
#include "port.h"
#include "serve.h"

enum { LONGEST_COMMAND = 127, DEFAULT_WARM_UPS = 10 };

/* Generated from the artifact's preprocessing: what the network takes for a pixel of each channel. */
extern const int8_t input_of_pixel[][256];

/* A run overwrites the network's input; an image that it asks for row by row stays. */
#if JOIN(TN_MODEL_UPPER, _STREAMED_INPUT)
static int8_t *kept_input(void) { return network_input(); }
static void refill(void) {}
#else
static int8_t image[TN_MODEL_INPUT_BYTES];
static int8_t *kept_input(void) { return image; }
static void refill(void) { memcpy(network_input(), image, TN_MODEL_INPUT_BYTES); }
#endif

static uint32_t loaded;
static uint8_t has_results;

static void say(const char *text) { port_write((const uint8_t *)text, strlen(text)); }

/* At least so many digits. */
static void say_number(uint64_t value, int digits) {
    char text[21];
    char *at = text + sizeof(text) - 1;
    *at = 0;
    for (; value > 0 || digits > 0; digits--, value /= 10) {
        *--at = (char)('0' + value % 10);
    }
    say(at);
}

static void say_hexadecimal(uint32_t value) {
    char digit[2] = "";
    for (int shift = 28; shift >= 0; shift -= 4) {
        digit[0] = "0123456789abcdef"[value >> shift & 15u];
        say(digit);
    }
}

static void say_line(const char *before, uint64_t number, const char *behind) {
    say(before);
    say_number(number, 1);
    say(behind);
    say("\r\n");
}

/* Ticks since the start: to be asked for before the counter starts again, which every wait and every run does. */
static uint64_t now(void) {
    static uint64_t ticks;
    ticks += port_ticks() - (uint32_t)ticks;
    return ticks;
}

static void say_time(void) {
    uint64_t ticks = now(), hz = port_tick_hz();
    say_line("m-lap-us-", ticks / hz * 1000000u + ticks % hz * 1000000u / hz, "");
}

/* What exp() is of so many times the logarithm of the base: logits lie whole steps of the output's scale apart. */
static float power(float base, uint32_t exponent) {
    float result = 1.0f;
    for (; exponent > 0; exponent /= 2, base *= base) {
        if (exponent % 2) {
            result *= base;
        }
    }
    return result;
}

/* The classes' probabilities: the network ends in logits. */
static void say_results(void) {
    static const float step = __builtin_expf(-TN_MODEL_OUTPUT_SCALE);
    const int8_t *logits = network_output();
    int largest = logits[0];
    for (uint32_t i = 1; i < TN_MODEL_OUTPUT_BYTES; i++) {
        largest = logits[i] > largest ? logits[i] : largest;
    }
    float sum = 0.0f;
    for (uint32_t i = 0; i < TN_MODEL_OUTPUT_BYTES; i++) {
        sum += power(step, (uint32_t)(largest - logits[i]));
    }
    say("m-results-[");
    for (uint32_t i = 0; i < TN_MODEL_OUTPUT_BYTES; i++) {
        uint32_t millionths = (uint32_t)(power(step, (uint32_t)(largest - logits[i])) / sum * 1e6f + 0.5f);
        say(i ? "," : "");
        say_number(millionths / 1000000u, 1);
        say(".");
        say_number(millionths % 1000000u, 6);
    }
    say("]\r\n");
}

static void refuse(const char *why) {
    say("e-[");
    say(why);
    say("]\r\n");
}

/* A decimal number at the start of a text, which then begins behind it; without one it stays what it was. */
static int take_number(const char **text, uint32_t *value) {
    const char *at = *text;
    while (*at == ' ') {
        at++;
    }
    uint64_t found = 0;
    const char *digits = at;
    while (*at >= '0' && *at <= '9' && found <= UINT32_MAX) {
        found = 10 * found + (uint32_t)(*at++ - '0');
    }
    if (at == digits || found > UINT32_MAX || (*at && *at != ' ')) {
        return 0;
    }
    *value = (uint32_t)found;
    *text = at;
    return 1;
}

static int digit_of(char character) {
    if (character >= '0' && character <= '9') {
        return character - '0';
    }
    character |= 0x20;
    return character >= 'a' && character <= 'f' ? character - 'a' + 10 : -1;
}

static void begin_load(const char *text) {
    uint32_t bytes = 0;
    if (!take_number(&text, &bytes) || *text || bytes != TN_MODEL_INPUT_BYTES) {
        say_line("e-[The network takes ", TN_MODEL_INPUT_BYTES, " bytes]");
        return;
    }
    loaded = 0;
    say_line("m-[Expecting ", bytes, " bytes]");
}

static void load(const char *digits) {
    for (; *digits; digits += 2) {
        int high = digit_of(digits[0]), low = high < 0 ? -1 : digit_of(digits[1]);
        if (low < 0) {
            refuse("Not a byte in hexadecimal");
            return;
        }
        if (loaded == TN_MODEL_INPUT_BYTES) {
            refuse("More bytes than were announced");
            return;
        }
        kept_input()[loaded] = input_of_pixel[loaded % JOIN(TN_MODEL_UPPER, _INPUT_CHANNELS)][16 * high + low];
        loaded++;
    }
    if (loaded == TN_MODEL_INPUT_BYTES) {
        say("m-load-done\r\n");
    }
}

static void run(uint32_t times) {
    for (; times > 0; times--) {
        refill();
        network_run();
        (void)now();
    }
}

static void infer(const char *text) {
    uint32_t times = 0, warm_ups = DEFAULT_WARM_UPS;
    int right = take_number(&text, &times) && times > 0 && (!*text || take_number(&text, &warm_ups)) && !*text;
    if (!right || loaded != TN_MODEL_INPUT_BYTES) {
        refuse(right ? "No input is loaded" : "infer takes how many, and how many before");
        return;
    }
    say_line("m-warmup-start-", warm_ups, "");
    run(warm_ups);
    say("m-warmup-done\r\n");
    say_line("m-infer-start-", times, "");
    say_time();
    run(times);
    say_time();
    say("m-infer-done\r\n");
    has_results = 1;
    say_results();
}

/* Whether a command begins so; what it says then stands behind it. */
static int begins(const char **command, const char *with) {
    size_t length = strlen(with);
    if (strncmp(*command, with, length) != 0) {
        return 0;
    }
    *command += length;
    return 1;
}

static int is(const char *command, const char *word) { return begins(&command, word) && !*command; }

static void execute(const char *command) {
    if (is(command, "name")) {
        say("m-name-dut-[" STRING(BOARD) "]\r\n");
    } else if (is(command, "profile")) {
        say("m-profile-[ULPMark for tinyML Firmware V0.0.1]\r\nm-model-[" STRING(MLPERF_MODEL) "]\r\n");
    } else if (is(command, "timestamp")) {
        say_time();
    } else if (is(command, "results") && has_results) {
        say_results();
    } else if (begins(&command, "db load ")) {
        begin_load(command);
    } else if (begins(&command, "db ")) {
        load(command);
    } else if (begins(&command, "infer ")) {
        infer(command);
    } else {
        say("e-[Unknown command: ");
        say(command);
        say("]\r\n");
    }
}

/* A command without its end; of one that is too long nothing. The core doesn't sleep: cycle
 * counters may stand still then. */
static const char *read_command(void) {
    static char command[LONGEST_COMMAND + 1]; /* one more than the longest tells that there were too many */
    size_t length = 0;
    for (;;) {
        while (!port_has_byte()) {
            (void)now();
        }
        char next = (char)port_read_byte();
        if (next == '%') {
            command[length <= LONGEST_COMMAND ? length : 0] = 0;
            return command;
        }
        if (next >= ' ' && next <= '~' && length <= LONGEST_COMMAND) { /* line ends and noise are passed over */
            command[length++] = next;
        }
    }
}

static void say_ready(void) { say("m-ready\r\n"); }

void serve_loop(void) {
    say("m-timestamp-mode-performance\r\n");
    say_time();
    say("m-init-done\r\n");
    for (;;) {
        say_ready();
        execute(read_command());
    }
}

void serve_fault_loop(const fault_t *fault) {
    for (;;) {
        say("e-[The core faulted at 0x");
        say_hexadecimal(fault->pc);
        say(", CFSR 0x");
        say_hexadecimal(fault->cfsr);
        say("]\r\n");
        say_ready();
        (void)read_command();
    }
}
