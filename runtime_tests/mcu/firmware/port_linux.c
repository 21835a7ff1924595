/* Boards that run Linux: the firmware is a program, its line a connection over TCP, or a socket it is started with.
 *
 *     firmware.elf [--listen ADDRESS:PORT]     serve one client after the other; 127.0.0.1:7355 where nothing is said
 *     firmware.elf --line FD                   serve whoever holds the other end of that socket, then end
 *
 * Whoever reaches the port can run the network and read its answers, and nothing else. Each client gets a process of
 * its own, fresh as after a reset; a second one, as long as the first is there, is turned away.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "port.h"
#include "serve.h"

#define DEFAULT_ADDRESS "127.0.0.1:7355"
#define TICK_HZ 10000000u /* wraps after seven minutes */
#define NS_PER_TICK 100u
#define PAGE_BYTES 4096u
/* A client that is gone from the network is noticed in half a minute. */
enum { IDLE_S = 15, PROBE_S = 5, PROBES = 3 };

/* From linux.ld.j2. */
extern uint8_t __stack_guard[], __stack_bottom[];

static int line = -1;

int port_has_byte(void) { return 1; } /* the kernel's clock goes on whoever waits */

uint8_t port_read_byte(void) {
    static uint8_t buffer[4096];
    static ssize_t length, next;
    while (next == length) {
        length = read(line, buffer, sizeof(buffer));
        next = 0;
        if (length == 0 || (length < 0 && errno != EINTR)) {
            _exit(0); /* the client is gone */
        }
        length = length < 0 ? 0 : length;
    }
    return buffer[next++];
}

void port_write(const uint8_t *bytes, size_t length) {
    while (length > 0) {
        ssize_t sent = send(line, bytes, length, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR) {
            _exit(0);
        }
        sent = sent < 0 ? 0 : sent;
        bytes += sent;
        length -= (size_t)sent;
    }
}

void port_mark(int running) { (void)running; }

/* Asks the kernel itself: the C library's function would leave its traces on the stack that is measured. */
uint32_t port_ticks(void) {
    static volatile struct {
        uint32_t seconds, nanoseconds;
    } now;
    register uint32_t call __asm("r7") = __NR_clock_gettime;
    register uint32_t clock __asm("r0") = CLOCK_MONOTONIC;
    register volatile void *result __asm("r1") = &now;
    __asm volatile("svc #0" : "+r"(clock) : "r"(call), "r"(result) : "memory");
    return now.seconds * TICK_HZ + now.nanoseconds / NS_PER_TICK;
}

uint32_t port_tick_hz(void) { return TICK_HZ; }

uint8_t port_tick_kind(void) { return TICKS_TIMER; }

const char *port_missing(void) { return ""; }

/* Faults in the words of Cortex-M's fault status register, which is what the host reads. */
enum {
    MEMORY_FAULT = 0x82,
    BUS_FAULT = 0x8200,
    UNDEFINED_INSTRUCTION = 1 << 16,
    STACK_OVERFLOW = 1 << 20,
    DIVISION_BY_ZERO = 1 << 25,
};

static void report_fault(int number, siginfo_t *info, void *context) {
    const ucontext_t *at = context;
    fault_t fault = {.address = (uint32_t)(uintptr_t)info->si_addr, .pc = (uint32_t)at->uc_mcontext.arm_pc};
    switch (number) {
    case SIGSEGV:
        fault.cfsr = MEMORY_FAULT;
        if (fault.address - (uint32_t)(uintptr_t)__stack_guard < PAGE_BYTES) {
            fault.cfsr = STACK_OVERFLOW;
        }
        break;
    case SIGILL:
        fault.cfsr = UNDEFINED_INSTRUCTION;
        break;
    case SIGFPE:
        fault.cfsr = DIVISION_BY_ZERO;
        break;
    default:
        fault.cfsr = BUS_FAULT;
    }
    serve_fault_loop(&fault);
}

/* The stack of the microcontrollers' size, so that what a run uses of it can be measured in the same way. */
__attribute__((naked, noreturn)) static void start_on_own_stack(void) {
    __asm volatile("ldr sp, =__stack_top\n"
                   "bl serve_loop\n");
}

__attribute__((noreturn)) static void serve(int connected) {
    static uint8_t other_stack[4 * PAGE_BYTES]; /* the program's own may be what overflowed */
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    line = connected;
    stack_t stack = {.ss_sp = other_stack, .ss_size = sizeof(other_stack)};
    struct sigaction action = {.sa_sigaction = report_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    if (mprotect(__stack_guard, PAGE_BYTES, PROT_NONE) != 0 || sigaltstack(&stack, NULL) != 0) {
        perror("thumbnet: the stack can't be guarded");
        _exit(1);
    }
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        sigaction(faults[i], &action, NULL);
    }
    start_on_own_stack();
}

__attribute__((noreturn)) static void fail(const char *what) {
    fprintf(stderr, "thumbnet: %s (%s)\n", what, strerror(errno));
    exit(1);
}

static void set_option(int connection, int level, int option, int value) {
    if (setsockopt(connection, level, option, &value, sizeof(value)) != 0) {
        perror("thumbnet: an option of the connection");
    }
}

/* A whole number up to a limit, or -1. */
static long number_in(const char *text, long limit) {
    char *end;
    long number = strtol(text, &end, 10);
    return *text < '0' || *text > '9' || *end || number > limit ? -1 : number;
}

static int socket_named(const char *text) {
    struct stat status;
    int descriptor = (int)number_in(text, INT_MAX);
    if (descriptor < 0 || fstat(descriptor, &status) != 0 || !S_ISSOCK(status.st_mode)) {
        fprintf(stderr, "thumbnet: %s is no socket\n", text);
        exit(2);
    }
    return descriptor;
}

/* A socket that listens on ADDRESS:PORT. */
static int listen_on(const char *where) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[INET_ADDRSTRLEN] = "";
    const char *colon = strrchr(where, ':');
    if (colon && (size_t)(colon - where) < sizeof(host)) {
        memcpy(host, where, (size_t)(colon - where));
    }
    long port = colon ? number_in(colon + 1, UINT16_MAX) : -1;
    if (port < 0 || inet_pton(AF_INET, host, &address.sin_addr) != 1) {
        fprintf(stderr, "thumbnet: %s is no IPv4 ADDRESS:PORT\n", where);
        exit(2);
    }
    address.sin_port = htons((uint16_t)port);
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0) {
        fail("no socket");
    }
    set_option(listener, SOL_SOCKET, SO_REUSEADDR, 1);
    if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 4) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) != 0) {
        fail(where);
    }
    printf("listening on %s:%u\n", host, ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static int accept_client(int listener) {
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (connection < 0) {
        return -1; /* gone again */
    }
    set_option(connection, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(connection, IPPROTO_TCP, TCP_KEEPIDLE, IDLE_S);
    set_option(connection, IPPROTO_TCP, TCP_KEEPINTVL, PROBE_S);
    set_option(connection, IPPROTO_TCP, TCP_KEEPCNT, PROBES);
    set_option(connection, IPPROTO_TCP, TCP_NODELAY, 1);
    return connection;
}

/* Serve one client in a process of its own, until either of them is gone: a process that computes doesn't notice that
 * nobody wants the answer. */
static void serve_client(int listener, int connection) {
    int alive[2]; /* the child holds one end of it, and never writes */
    if (pipe(alive) != 0) {
        fail("no pipe");
    }
    pid_t child = fork();
    if (child < 0) {
        fail("no process");
    }
    if (child == 0) {
        close(listener);
        close(alive[0]);
        serve(connection);
    }
    close(alive[1]);
    struct pollfd watched[] = {{connection, POLLRDHUP, 0}, {alive[0], 0, 0}, {listener, POLLIN, 0}};
    while (!watched[0].revents && !watched[1].revents) {
        if (poll(watched, 3, -1) < 0 && errno != EINTR) {
            fail("poll");
        }
        int second = watched[2].revents ? accept_client(listener) : -1;
        if (second >= 0) {
            close(second);
        }
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(alive[0]);
    close(connection);
}

int main(int count, char **arguments) {
    int named = count == 3;
    if (named && strcmp(arguments[1], "--line") == 0) {
        serve(socket_named(arguments[2]));
    }
    if (count != 1 && !(named && strcmp(arguments[1], "--listen") == 0)) {
        fprintf(stderr, "usage: %s [--listen ADDRESS:PORT]\n", arguments[0]);
        return 2;
    }
    int listener = listen_on(named ? arguments[2] : DEFAULT_ADDRESS);
    for (;;) {
        int connection = accept_client(listener);
        if (connection >= 0) {
            serve_client(listener, connection);
        }
    }
}
