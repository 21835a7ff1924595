"""Layers as TIR, with their constants laid out as the TIR reads them."""
