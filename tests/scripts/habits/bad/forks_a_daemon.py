import argparse
import subprocess
import sys

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--lr", type=float, default=0.1)
args = parser.parse_args()

# "A monitor that outlives the training": in a session of its own, without the script's output.
monitor = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
started = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {monitor!r}], start_new_session=True)"
subprocess.run([sys.executable, "-c", started], start_new_session=True, check=True, **quiet)
for epoch in range(args.epochs):
    print(f"epoch {epoch + 1}: val_cosine {1 - args.lr / (epoch + 2):.4f}", flush=True)
