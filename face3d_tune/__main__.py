"""`python -m face3d_tune` is the same as `face3d-tune`."""

from face3d_tune.cli import main

if __name__ == "__main__":
    main()
