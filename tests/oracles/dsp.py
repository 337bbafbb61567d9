"""Filters, velocity and moments as scipy computes them, for common/tests/scipy.rs.

    dsp.py > common/golden/dsp.json      writes the numbers
    dsp.py --check                       compares them with the file, and prints `N passed, N failed`

The input is a sequence that both sides can make: single-precision noise of a linear congruential generator, around
gravity. Filters start as if the first sample had been there for ever.
"""

import json
import pathlib
import sys

import numpy as np
from scipy import signal, stats

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "common" / "golden" / "dsp.json"
COUNT = 4000
KEEP = 97
GRAVITY = 9.80665


def noise():
    state, out = 1, []
    for _ in range(COUNT):
        state = (state * 1664525 + 1013904223) % 2**32
        out.append(np.float32(np.float32((state >> 16) / 65536 - 0.5) + np.float32(GRAVITY)))
    return np.array(out, dtype=np.float64)


def kept(values):
    return [float(value) for value in values[::KEEP]]


def butterworth(x, kind, order, corner, rate):
    sections = signal.butter(order, corner, kind, fs=rate, output="sos")
    settled = x[0] if kind == "lowpass" else 0.0
    output = signal.sosfilt(sections, x - x[0]) + settled
    return {"pass": kind, "order": order, "corner_hz": corner, "rate_hz": rate, "output": kept(output)}


def velocity(x, low, high, rate):
    band = signal.sosfilt(signal.butter(3, 0.85 * low, "highpass", fs=rate, output="sos"), x - x[0])
    if 1.176 * high <= 0.45 * rate:
        band = signal.sosfilt(signal.butter(3, 1.176 * high, "lowpass", fs=rate, output="sos"), band)
    output = 1000 * signal.lfilter([7 / 8 / rate, 1 / 8 / rate], [1, -1], band)
    return {"low_hz": low, "high_hz": high, "rate_hz": rate, "energy": float(np.sum(output**2))}


def numbers():
    x = noise()
    filters = [
        butterworth(x, "highpass", 8, 10.0, 26667.0),
        butterworth(x, "highpass", 3, 8.5, 25900.0),
        butterworth(x, "highpass", 1, 2.0, 2000.0),
        butterworth(x, "lowpass", 4, 1000.0, 26667.0),
        butterworth(x, "lowpass", 7, 900.0, 2000.0),
        butterworth(x, "lowpass", 16, 5000.0, 26667.0),
    ]
    velocities = [
        velocity(x, 10.0, 1000.0, 26667.0),
        velocity(x, 10.0, 1000.0, 2000.0),
        velocity(x, 2.0, 1000.0, 25900.0),
    ]
    moments = {
        "mean": float(np.mean(x)),
        "rms": float(np.std(x)),
        "skewness": float(stats.skew(x)),
        "kurtosis": float(stats.kurtosis(x, fisher=False)),
    }
    return {"count": COUNT, "keep": KEEP, "filters": filters, "velocities": velocities, "moments": moments}


def flat(value):
    if isinstance(value, dict):
        return [part for name in sorted(value) for part in flat(value[name])]
    if isinstance(value, list):
        return [part for element in value for part in flat(element)]
    return [value]


def main():
    if sys.argv[1:] != ["--check"]:
        json.dump(numbers(), sys.stdout, indent=1)
        print()
        return 0
    old, new = flat(json.loads(GOLDEN.read_text())), flat(numbers())
    same = [a == b or (not isinstance(a, str) and abs(a - b) < 1e-9 * max(1, abs(a))) for a, b in zip(old, new)]
    failed = same.count(False) + abs(len(old) - len(new))
    print(f"{same.count(True)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
