"""One thread for NumPy's BLAS, which reads how many it may have as it is loaded: import this before NumPy.

Threads that multiply small matrices wait for each other, busily, and take their core from the other worker's tests.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"
