/* The calls that concern the network: its input, its runs, its outputs. */
#ifndef THUMBNET_NETWORK_CALLS_H
#define THUMBNET_NETWORK_CALLS_H

#include <stdint.h>

/* Carry out a call of rpc.h whose arguments have the right length; its status. Results go to the reply. An output that
 * it leaves is known by `sequence`. */
uint8_t network_call(uint8_t command, const uint8_t *arguments, uint32_t length, uint32_t sequence);

/* The input and the output of before are no more. */
void network_forget(void);

#endif
