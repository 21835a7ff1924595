"""From a PyTorch module to an artifact for one board; `README.md` walks through the folders in order."""
