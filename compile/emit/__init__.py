"""C sources and shared libraries, and what compilers make of them: code size, stack."""
