"""Sessions with devices and emulators, and the tests an artifact has to pass on them."""
