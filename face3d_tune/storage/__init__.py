"""The storage of studies and checkpoints, and which worker may change them."""
