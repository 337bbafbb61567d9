"""Features of a recording, computed a second time with numpy and scipy from the definitions in agent/RECORDS.md.

    zstd -dc RECORDING | features.py --rate 2000 --channels 3 --scale 0.00980665 --window 2000

reads interleaved little-endian int16 samples from standard input and writes one JSON array: an object per whole window
with `first_sample` and, per channel, `rms`, `peak`, `peak_to_peak`, `crest`, `kurtosis`, `skewness`, `velocity_rms`, `displacement`,
`high_frequency`, `in_band`, `mean`.
Nothing here shares code with Spindle: filters come from scipy, all sums are in double precision.
"""

import argparse
import json
import sys

import numpy as np
from scipy import signal, stats


def velocity_mm_s(acceleration, rate, low, high):
    """m/s² to mm/s: third-order Butterworth band limits around Al-Alaoui's integrator.

    The corners lie at 0.85 and 1.176 times the band's edges (ISO 2954 tolerances); a low-pass corner above 0.45 of the
    sample rate is left out.
    """
    band = signal.sosfilt(signal.butter(3, 0.85 * low, "highpass", fs=rate, output="sos"), acceleration)
    if 1.176 * high <= 0.45 * rate:
        band = signal.sosfilt(signal.butter(3, 1.176 * high, "lowpass", fs=rate, output="sos"), band)
    integral = signal.lfilter([7 / 8 / rate, 1 / 8 / rate], [1, -1], band)
    return 1000 * integral


def displacement_um(acceleration, rate, low, high):
    """m/s² to µm: fourth-order Butterworth high-pass at 0.887 of the band's lower edge, the integrator twice, low-pass as above."""
    travel = signal.sosfilt(signal.butter(4, 0.887 * low, "highpass", fs=rate, output="sos"), acceleration)
    for _ in range(2):
        travel = signal.lfilter([7 / 8 / rate, 1 / 8 / rate], [1, -1], travel)
    if 1.176 * high <= 0.45 * rate:
        travel = signal.sosfilt(signal.butter(3, 1.176 * high, "lowpass", fs=rate, output="sos"), travel)
    return 1e6 * travel


def band_rms(part, rate, segment, low, high):
    """RMS in a band from Welch's density; a line counts as a rectangle from half a bin below it to half a bin above."""
    frequencies, density = signal.welch(part, fs=rate, window="hann", nperseg=segment)
    step = rate / segment
    below = np.clip(frequencies - step / 2, 0, rate / 2)
    above = np.clip(frequencies + step / 2, 0, rate / 2)
    # The half bins at both ends hold the whole power of their lines.
    share = np.clip(np.minimum(above, high) - np.maximum(below, low), 0, None) / (above - below)
    return np.sqrt(np.sum(density * share * step))


def features(samples, rate, scale, window, low, high, corner, segment, band):
    acceleration = samples.astype(np.float64) * scale
    windows = len(acceleration) // window
    result = [{"first_sample": index * window, "axes": []} for index in range(windows)]
    for channel in acceleration.T:
        # The filter starts as if the first window's mean had been there for ever.
        start = channel[:window].mean()
        velocity = velocity_mm_s(channel - start, rate, low, high)
        displacement = displacement_um(channel - start, rate, low, high)
        above = signal.sosfilt(signal.butter(4, corner, "highpass", fs=rate, output="sos"), channel - start)
        for index in range(windows):
            part = slice(index * window, (index + 1) * window)
            centred = channel[part] - channel[part].mean()
            rms = np.sqrt(np.mean(centred**2))
            peak = np.max(np.abs(centred))
            result[index]["axes"].append(
                {
                    "mean": channel[part].mean(),
                    "rms": rms,
                    "peak": peak,
                    "peak_to_peak": np.ptp(centred),
                    "crest": peak / rms,
                    "kurtosis": stats.kurtosis(centred, fisher=False, bias=True),
                    "skewness": stats.skew(centred, bias=True),
                    "displacement": np.ptp(displacement[part]),
                    "high_frequency": np.sqrt(np.mean(above[part] ** 2)),
                    "in_band": band_rms(channel[part], rate, segment, *band),
                    "velocity_rms": np.sqrt(np.mean(velocity[part] ** 2)),
                }
            )
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, required=True, help="samples a second")
    parser.add_argument("--channels", type=int, required=True)
    parser.add_argument("--scale", type=float, required=True, help="m/s² per count")
    parser.add_argument("--window", type=int, required=True, help="samples in a window")
    parser.add_argument("--band", type=float, nargs=2, default=(10.0, 1000.0), help="velocity and displacement band, Hz")
    parser.add_argument("--corner", type=float, required=True, help="of high-frequency acceleration, Hz")
    parser.add_argument("--segment", type=int, required=True, help="samples of a spectrum's segment")
    parser.add_argument("--user-band", type=float, nargs=2, required=True, help="band from the spectrum, Hz")
    args = parser.parse_args()
    samples = np.frombuffer(sys.stdin.buffer.read(), dtype="<i2").reshape(-1, args.channels)
    json.dump(features(samples, args.rate, args.scale, args.window, *args.band, args.corner, args.segment, args.user_band), sys.stdout)


if __name__ == "__main__":
    main()
