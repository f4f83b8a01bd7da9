"""Where studies and checkpoints lie, and which worker may change them."""
