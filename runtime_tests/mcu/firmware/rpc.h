/* The remote procedure calls of the firmware: see protocol.py for the other end. Numbers are little-endian. */
#ifndef THUMBNET_RPC_H
#define THUMBNET_RPC_H

#include <stdint.h>

#define RPC_VERSION 5u
#define RPC_CHUNK 1024u /* most data bytes in a request or reply */

/* header: version u8, command u8, session u32, sequence u32. request: header, arguments; reply: the header of its
 * request, status u8, results.
 *
 * The host opens a session under a number of its choice, never 0, and counts its calls in it from 1. A firmware that
 * was reset has no session, and says so to whatever it is asked; so no result of before the reset can be missed. A
 * request that is repeated is answered again and not executed again; one that is older than the last is not answered.
 *
 * RUN, RUN_LAYER and PROFILE leave an output and reply with
 *     ticks u32, stack u32, bytes of the output u32, its address u32, its CRC-32 u32.
 * It is read under the call's sequence number until the network or its input is touched again. */
enum {
    RPC_OPEN = 1,         /* -> sizes, names: see reply_identity() */
    RPC_WRITE_INPUT = 2,  /* offset u32, bytes */
    RPC_INPUT_PLACED = 3, /* crc u32 of the input that a debugger has written to memory */
    RPC_RUN = 4,          /* -> as above; the output is the network's */
    RPC_RUN_LAYER = 5,    /* layer u32 -> as above; the layer's */
    RPC_PROFILE = 6,      /* -> as above; a u32 for the ticks of each layer */
    RPC_READ_OUTPUT = 7,  /* sequence u32 of the call that left it, offset u32, length u32 -> bytes */
    RPC_SELF_TEST = 8,    /* -> golden vectors u32, first mismatch u32 (RPC_NONE: all equal), output byte u32 */
    RPC_CALIBRATE = 9,    /* -> ticks u32 of an empty call */
    RPC_CLOCK = 10,       /* -> ticks u32 now; until the next call the core doesn't sleep */
};

enum {
    RPC_OK = 0,
    RPC_ACCEPTED = 1,    /* a call that runs the network has begun; its reply follows */
    RPC_BAD_VERSION = 2, /* the version in the reply's header is the firmware's */
    RPC_NO_SESSION = 3,  /* the session isn't open: the firmware was reset, or another host has opened one */
    RPC_UNKNOWN = 4,
    RPC_BAD_LENGTH = 5,
    RPC_BAD_RANGE = 6,
    RPC_BAD_CRC = 7,   /* the placed input has another CRC */
    RPC_NO_INPUT = 8,  /* a run needs an input written since the last one: a run may overwrite it */
    RPC_NO_OUTPUT = 9, /* that call left no output, or the network was touched since */
    /* The network wrote outside its arena: behind u32 (else before), reach in bytes u32, the layer after which it was
     * seen u32 (RPC_NONE: after the whole inference). */
    RPC_ARENA_OVERRUN = 10,
    RPC_FAULT = 11, /* cfsr, hfsr, address, pc: u32 each; the firmware answers nothing else until a reset */
};

#define RPC_NONE 0xFFFFFFFFu

#endif
