"""Which layers are computed together, how, and where their tensors lie: from the integer network to a lowered one."""
