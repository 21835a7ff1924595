"""The integer network: layers, exact arithmetic with one rounding, reference, forms on disk and in Relax."""
