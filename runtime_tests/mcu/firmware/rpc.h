/* The remote procedure calls of the firmware: see protocol.py for the other end. Numbers are little-endian. */
#ifndef THUMBNET_RPC_H
#define THUMBNET_RPC_H

#include <stdint.h>

#define RPC_VERSION 2u
#define RPC_CHUNK 1024u /* most data bytes in a request or reply */

/* request: sequence u8, command u8, arguments; reply: sequence u8, command u8, status u8, results */
enum {
    RPC_IDENTIFY = 1,      /* -> version, sizes, names: see reply_identity() */
    RPC_WRITE_INPUT = 2,   /* offset u32, bytes */
    RPC_RUN = 3,           /* -> ticks u32, stack u32 */
    RPC_READ_OUTPUT = 4,   /* offset u32, length u32 -> bytes */
    RPC_RUN_LAYER = 5,     /* layer u32 -> ticks u32, stack u32, output bytes u32, their address u32 */
    RPC_READ_LAYER = 6,    /* layer u32, offset u32, length u32 -> bytes */
    RPC_PROFILE = 7,       /* first u32 -> ticks u32 of each layer from first on, as many as fit; run by first = 0 */
    RPC_SELF_TEST = 8,     /* -> golden vectors u32, first mismatch u32 (RPC_NONE: all equal), output byte u32 */
    RPC_CALIBRATE = 9,     /* -> ticks u32 of an empty call */
    RPC_INPUT_PLACED = 10, /* crc u32 of the input that a debugger has written to memory */
};

enum {
    RPC_OK = 0,
    RPC_DAMAGED = 1, /* the request's CRC was wrong: send it again */
    RPC_UNKNOWN = 2,
    RPC_BAD_LENGTH = 3,
    RPC_BAD_RANGE = 4,
    RPC_NO_INPUT = 5, /* a run needs an input written since the last one: a run may overwrite it */
    RPC_BAD_CRC = 8,  /* the placed input has another CRC */
    RPC_FAULT = 6,    /* cfsr, hfsr, address, pc: u32 each; the firmware answers nothing else until a reset */
    RPC_ACCEPTED = 7, /* a long call has begun; its reply follows */
    /* The network wrote outside its arena: behind u32 (else before), reach in bytes u32, the layer after which it was
     * seen u32 (RPC_NONE: after the whole inference). */
    RPC_ARENA_OVERRUN = 9,
};

#define RPC_NONE 0xFFFFFFFFu

typedef struct {
    uint32_t cfsr, hfsr, address, pc;
} rpc_fault_t;

__attribute__((noreturn)) void rpc_loop(void);
__attribute__((noreturn)) void rpc_fault_loop(const rpc_fault_t *fault);

#endif
