"""Spectra, envelopes, bands, kurtosis, integration and resampling as scipy and endaq compute them, for common/tests/oracles.rs.

    spectra.py > common/golden/spectra.json      writes the numbers
    spectra.py --check                           compares them with the file, and prints `N passed, N failed`

Signals are made by formulas that both sides can follow: tones, a bearing's impacts, noise of a known spectrum, a sweep, a clipped
and a gapped signal. Each is rounded to single precision, as samples are. How near Spindle must come, and why, stands beside each
comparison in the Rust test.
"""

import json
import pathlib
import sys

import numpy as np
import pandas as pd
from endaq.calc import integrate, psd
from scipy import signal, stats

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "common" / "golden" / "spectra.json"
RATE = 26667.3
COUNT = 32768
LEN = 2048
GRAVITY = 9.80665
LIMIT = 20.0
GAP = [9000, 11500]
WINDOWS = {"rectangular": "boxcar", "hann": "hann", "flat-top": "flattop"}
BEARING = [3.5848, 29.95]


def random(count):
    state, out = 1, np.empty(count)
    for index in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        out[index] = (state >> 16) / 65536 - 0.5
    return out


def single(x):
    return np.asarray(x, dtype=np.float32).astype(np.float64)


def signals():
    noise = random(COUNT)
    time = np.arange(COUNT) / RATE
    tone = lambda hz: np.sin(2 * np.pi * hz * time)
    tones = 12 * tone(97.3) + 5 * tone(480.0) + 2 * tone(3170.7) + 0.5 * noise + GRAVITY
    since = np.mod(time, 1 / (BEARING[0] * BEARING[1]))
    impacts = 15 * np.sin(2 * np.pi * 5000 * since) * np.exp(-since / 0.0005) + 2 * tone(BEARING[1]) + 3 * noise
    coloured = np.zeros(COUNT)
    one = two = 0.0
    for index in range(COUNT):
        value = 1.6 * one - 0.8 * two + noise[index]
        coloured[index], one, two = value, value, one
    sweep = 4 * np.sin(2 * np.pi * (20 * time + (8000 - 20) / (2 * COUNT / RATE) * time**2))
    made = {"tones": tones, "impacts": impacts, "coloured": coloured, "sweep": sweep}
    made = {name: single(x) for name, x in made.items()}
    made["clipped"] = np.clip(made["tones"], -LIMIT, LIMIT)
    return made


def kept(values, step=29):
    return [float(value) for value in np.asarray(values)[::step]]


def welch(x, window, scaling):
    return signal.welch(x, RATE, WINDOWS[window], LEN, LEN // 2, detrend="constant", scaling=scaling)[1]


def gapped(x):
    """Segments on both sides of the gap, none across it."""
    spectra = []
    for part in [x[: GAP[0]], x[GAP[1] :]]:
        for start in range(0, len(part) - LEN + 1, LEN // 2):
            spectra.append(signal.periodogram(part[start : start + LEN], RATE, "hann", detrend="constant")[1])
    return np.mean(spectra, axis=0)


def frame(x):
    return pd.DataFrame({"x": x}, index=pd.Index(np.arange(len(x)) / RATE, name="time"))


def by_endaq(x):
    table = psd.welch(frame(x), bin_width=RATE / LEN, scaling="density", window="hann", noverlap=LEN // 2, detrend="constant")
    return table["x"].to_numpy()


def octaves(x):
    """Third octaves by filters of high order instead of by bins."""
    out = []
    for index in range(23, 38):
        centre, edge = 10 ** (index / 10), 10 ** (1 / 20)
        band = signal.butter(8, [centre / edge, centre * edge], "bandpass", fs=RATE, output="sos")
        filtered = signal.sosfilt(band, x - np.mean(x))[COUNT // 4 :]
        out.append([float(centre), float(np.sqrt(np.mean(filtered**2)))])
    return out


def envelope(x, low, high, count):
    """Squared envelope at the full rate, by the Hilbert transform of the band."""
    part = x[:count] - np.mean(x[:count])
    bins = np.fft.rfft(part)
    hz = np.arange(len(bins)) * RATE / count
    bins[(hz < low) | (hz > high)] = 0
    squared = np.abs(signal.hilbert(np.fft.irfft(bins, count))) ** 2
    windowed = (squared - np.mean(squared)) * signal.get_window("hann", count)
    return np.abs(np.fft.rfft(windowed)) * 2 / (count * 0.5)


def band_kurtosis(x, bands, count):
    """Of the analytic signal at the full rate, a sixteenth left out at each end."""
    bins = np.fft.rfft(x[:count] - np.mean(x[:count]))
    width = (count // 2 - 1) // bands
    out = []
    for band in range(bands):
        only = np.zeros_like(bins)
        only[1 + band * width : 1 + (band + 1) * width] = bins[1 + band * width : 1 + (band + 1) * width]
        square = np.abs(signal.hilbert(np.fft.irfft(only, count))) ** 2
        square = square[count // 16 : -count // 16]
        out.append(float(np.mean(square**2) / np.mean(square) ** 2 - 2))
    return out


def integrals(x):
    """Velocity in mm/s RMS and displacement in µm peak to peak, by a zero-phase high-pass at 10 Hz and trapezoids."""
    _, velocity, place = integrate.integrals(frame(x), n=2, zero="mean", highpass_cutoff=10.0)
    middle = slice(COUNT // 4, 3 * COUNT // 4)
    velocity, place = velocity["x"].to_numpy()[middle], place["x"].to_numpy()[middle]
    return [float(1000 * np.std(velocity)), float(1e6 * np.ptp(place))]


def numbers():
    made = signals()
    spectra = [
        {"signal": name, "window": window, "density": kept(welch(x, window, "density")), "power": kept(welch(x, window, "spectrum"))}
        for name, x in made.items()
        for window in WINDOWS
    ]
    windows = []
    for name, known in WINDOWS.items():
        w = signal.get_window(known, LEN)
        windows.append({"window": name, "values": kept(w, 97), "gain": float(np.mean(w)), "enbw": float(LEN * np.sum(w**2) / np.sum(w) ** 2)})
    clipped = made["clipped"]
    up, down = 24, 25
    resampled = signal.resample_poly(made["tones"] - GRAVITY, up, down, window=("kaiser", 9.0))
    return {
        "rate_hz": RATE,
        "count": COUNT,
        "len": LEN,
        "keep": 29,
        "limit": LIMIT,
        "gap": GAP,
        "windows": windows,
        "spectra": spectra,
        "endaq_density": kept(by_endaq(made["coloured"])),
        "gapped_density": kept(gapped(made["tones"])),
        "third_octaves": octaves(made["coloured"]),
        "envelope": {"low_hz": 4000.0, "high_hz": 6000.0, "len": 16384, "peak": kept(envelope(made["impacts"], 4000.0, 6000.0, 16384)[:1200])},
        "kurtosis": {"len": 16384, "bands": {str(bands): band_kurtosis(made["impacts"], bands, 16384) for bands in [2, 3, 8]}},
        "integrals": integrals(made["tones"]),
        "resampled": {"up": up, "down": down, "values": kept(resampled, 101)},
        "clipped": {
            "saturated": int(np.sum(np.abs(clipped) >= LIMIT)),
            "rms": float(np.std(clipped)),
            "kurtosis": float(stats.kurtosis(clipped, fisher=False)),
        },
    }


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
    # Double precision on another machine or by another version: the last digits.
    same = [a == b or (not isinstance(a, str) and abs(a - b) < 1e-9 * abs(a) + 1e-11) for a, b in zip(old, new)]
    failed = same.count(False) + abs(len(old) - len(new))
    print(f"{same.count(True)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
