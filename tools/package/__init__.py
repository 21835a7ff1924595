"""A network's C sources as other build systems take them."""
