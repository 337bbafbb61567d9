"""Checks the golden messages of common/golden both ways with a second implementation, written from common/WIRE.md.

For every message: its bytes decode to its JSON, and its JSON encodes to its bytes. For every frame: both ways too. All
bytes that must be refused are; so is every golden message with any one bit flipped or cut at any length. Prints a line
per failure and, last, `N passed, N failed`.
"""

import json
import pathlib
import struct
import sys

import spindle_wire as wire

GOLDEN = pathlib.Path(__file__).resolve().parents[3] / "common" / "golden"


def as_f32(value):
    """Floats as single precision has them, so that decimal and binary forms compare equal."""
    if isinstance(value, float):
        return struct.unpack("<f", struct.pack("<f", value))[0]
    if isinstance(value, dict):
        return {name: as_f32(part) for name, part in value.items()}
    if isinstance(value, list):
        return [as_f32(part) for part in value]
    return value


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def is_refused(data):
    try:
        wire.decode(data)
    except wire.Refused:
        return True
    return False


def check_message(path):
    data = bytes.fromhex(path.with_suffix(".hex").read_text())
    message = json.loads(path.read_text())
    wanted = message.pop("wanted", None)
    expect(wire.decode(data) == as_f32(message), "decodes to something else than the JSON")
    expect(wire.encode(message, wanted) == data, "encodes to something else than the bytes")
    expect(wire.unframe(wire.frame(data)) == data, "does not survive framing")
    for length in range(len(data)):
        expect(is_refused(data[:length]), f"is accepted when cut to {length} bytes")
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        expect(is_refused(bytes(flipped)), f"is accepted with bit {bit} flipped")


def check_frame(case):
    message, framed = bytes.fromhex(case["message"]), bytes.fromhex(case["frame"])
    expect(wire.frame(message) == framed, "is framed differently")
    expect(wire.unframe(framed) == message, "comes back differently")


def check_refused(case):
    expect(is_refused(bytes.fromhex(case["hex"])), "is accepted")


def checks():
    yield "CRC-32C", lambda: expect(wire.crc32c(b"123456789") == 0xE3069283, "check value differs")
    listed = {"refused.json", "frames.json"}
    for path in sorted(GOLDEN.glob("v*/*.json")):
        if path.name not in listed:
            yield path.stem, lambda path=path: check_message(path)
    for case in json.loads((GOLDEN / "v1" / "frames.json").read_text()):
        yield f"frame of {len(case['message']) // 2} bytes", lambda case=case: check_frame(case)
    for case in json.loads((GOLDEN / "v1" / "refused.json").read_text()):
        yield f"refused: {case['why']}", lambda case=case: check_refused(case)


def main():
    passed = failed = 0
    for name, check in checks():
        try:
            check()
            passed += 1
        except (AssertionError, wire.Refused) as error:
            failed += 1
            print(f"FAILED {name}: {error}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
