"""Cycles predicted from what an emulator executes: blocks counted, priced by the core's published timing."""
