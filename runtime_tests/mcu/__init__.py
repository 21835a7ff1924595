"""Sessions with microcontrollers: the firmware with the network in it, spoken to in frames over a serial line."""
