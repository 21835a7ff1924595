"""One file a board; `thumbnet.targets.registry` lists them."""
