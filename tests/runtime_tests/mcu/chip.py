"""A chip's registers."""


class Registers:
    """Registers that keep what is written to them; chips change what some of them say and do."""

    def __init__(self, board):
        self.board, self.values = board, {}

    def get(self, address):
        return self.values.get(address, 0)

    def on_read(self, address):
        return self.get(address)

    def on_write(self, address, value):
        self.values[address] = value

    def map(self, core, base, size=1 << 20):
        """Let a part of a core's memory be these registers: a megabyte where nothing else is said."""
        core.mmio_map(
            base,
            size,
            lambda _core, offset, _size, _data: self.on_read(base + offset) & 0xFFFF_FFFF,
            None,
            lambda _core, offset, _size, value, _data: self.on_write(base + offset, value),
            None,
        )
