"""Spindle's wire format, written from common/WIRE.md alone; standard library only.

A message is a dictionary: {"kind": name, "fields": {...}} and for blocks and bursts "samples": one list a channel.
"""

import math
import struct

from rice import rice_read, rice_write

MESSAGE_LEN_MAX = 65536
COUNT_MAX = 2**62
FLAGS_ALL = 31


class Refused(Exception):
    """The bytes are no message, or the message cannot be written."""


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _crc_of_byte(byte):
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


CRC_TABLE = [_crc_of_byte(byte) for byte in range(256)]


# Types of fields: each has read(reader) -> value, write(value) -> bytes; both check the value's range.


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise Refused("header ends early")
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self, bits):
        value = 0
        for position in range((bits + 6) // 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << (7 * position)
            if byte < 0x80:
                if value >= 1 << bits:
                    raise Refused("varint too large")
                return value
        raise Refused("varint too long")


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value):
    return value * 2 if value >= 0 else -value * 2 - 1


def unzigzag(value):
    return value // 2 if value % 2 == 0 else -(value + 1) // 2


class Checked:
    """A type with a range; `accepts` judges a value read or to be written."""

    def __init__(self, accepts=lambda value: True):
        self.accepts = accepts

    def check(self, value):
        if not self.accepts(value):
            raise Refused(f"value {value!r} is out of range")
        return value

    def read(self, reader):
        return self.check(self.get(reader))

    def write(self, value):
        return self.put(self.check(value))


class U8(Checked):
    def get(self, reader):
        return reader.take(1)[0]

    def put(self, value):
        return bytes([value])


class Bool(Checked):
    def get(self, reader):
        byte = reader.take(1)[0]
        if byte > 1:
            raise Refused("neither true nor false")
        return byte == 1

    def put(self, value):
        return bytes([value])


class Unsigned(Checked):
    def __init__(self, bits, accepts=lambda value: True):
        super().__init__(lambda value: 0 <= value < 1 << bits and accepts(value))
        self.bits = bits

    def get(self, reader):
        return reader.varint(self.bits)

    def put(self, value):
        return varint(value)


class Signed(Checked):
    def __init__(self, bits):
        super().__init__(lambda value: -(1 << bits - 1) <= value < 1 << bits - 1)
        self.bits = bits

    def get(self, reader):
        return unzigzag(reader.varint(self.bits))

    def put(self, value):
        return varint(zigzag(value))


class F32(Checked):
    def __init__(self, accepts=lambda value: True):
        super().__init__(lambda value: math.isfinite(value) and accepts(value))

    def get(self, reader):
        return struct.unpack("<f", reader.take(4))[0]

    def put(self, value):
        return struct.pack("<f", value)


class Text(Checked):
    def get(self, reader):
        raw = reader.take(reader.varint(64))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Refused("text is not UTF-8") from error

    def put(self, value):
        raw = value.encode("utf-8")
        return varint(len(raw)) + raw


class Enum:
    """Variants by number: a name, or a pair of a name and its fields."""

    def __init__(self, *variants):
        self.variants = variants

    def read(self, reader):
        number = reader.varint(32)
        if number >= len(self.variants):
            raise Refused("unknown variant")
        variant = self.variants[number]
        return variant if isinstance(variant, str) else {variant[0]: variant[1].read(reader)}

    def write(self, value):
        for number, variant in enumerate(self.variants):
            if variant == value:
                return varint(number)
            if not isinstance(variant, str) and isinstance(value, dict) and variant[0] in value:
                return varint(number) + variant[1].write(value[variant[0]])
        raise Refused(f"unknown variant {value!r}")


class Record:
    def __init__(self, **fields):
        self.fields = fields

    def read(self, reader):
        return {name: kind.read(reader) for name, kind in self.fields.items()}

    def write(self, value):
        if set(value) != set(self.fields):
            raise Refused(f"fields {sorted(value)} for {sorted(self.fields)}")
        return b"".join(kind.write(value[name]) for name, kind in self.fields.items())


class List:
    def __init__(self, element, least, most, unique=None):
        self.element, self.least, self.most, self.unique = element, least, most, unique

    def check(self, values):
        keys = [value[self.unique] for value in values] if self.unique else []
        if not self.least <= len(values) <= self.most or len(set(keys)) != len(keys):
            raise Refused("list too short, too long or with repetitions")
        return values

    def read(self, reader):
        count = reader.varint(64)
        if count > self.most:
            raise Refused("list too long")
        return self.check([self.element.read(reader) for _ in range(count)])

    def write(self, values):
        return varint(len(self.check(values))) + b"".join(self.element.write(value) for value in values)


def is_name(text):
    allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
    return 1 <= len(text) <= 32 and all(letter in allowed for letter in text) and text not in (".", "..")


def at_most(length):
    return Text(lambda text: len(text.encode("utf-8")) <= length)


U16, U32, U64 = Unsigned(16), Unsigned(32), Unsigned(64)
NOT_ZERO = Unsigned(32, lambda value: value > 0)
COUNT = Unsigned(64, lambda value: value <= COUNT_MAX)
NAME = Text(is_name)
STREAM = U8(lambda value: value < 8)
POSITIVE = F32(lambda value: value > 0)
BITS = U8(lambda value: 2 <= value <= 24)
SAMPLES = Unsigned(16, lambda value: 1 <= value <= 8192)
FLAGS = Unsigned(16, lambda value: value <= FLAGS_ALL)
ENCODING = Enum("Raw16", "Raw24", "Rice16", "Rice24")
AXES = Text(lambda text: 1 <= len(text) <= 8 and text.isascii() and text.isalnum())

BLOCK = Record(
    node=NAME, boot=U64, stream=STREAM, seq=U32, first_sample=COUNT, tick=U64, tick_hz=NOT_ZERO,
    rate_nominal_mhz=NOT_ZERO, rate_measured_mhz=U32, scale=POSITIVE, bits=BITS,
    axes=U8(lambda value: 1 <= value <= 8), samples=SAMPLES, flags=FLAGS, encoding=ENCODING,
)
STREAM_INFO = Record(
    stream=STREAM, sensor=NAME, model=NAME, axes=AXES, rate_nominal_mhz=NOT_ZERO, scale=POSITIVE, bits=BITS,
    block_samples=SAMPLES, encoding=ENCODING,
)
AXIS_FEATURES = Record(rms=F32(), peak=F32(), peak_to_peak=F32(), kurtosis=F32(), velocity_rms=F32(), mean=F32())
STREAM_STATUS = Record(
    stream=STREAM, taken=COUNT, lost_overrun=COUNT, lost_ring=COUNT, bus_errors=U32, temperature_centi_c=Signed(16)
)
TRIGGER = Record(
    kind=Enum("Level", "Command", "Periodic"), sample=COUNT, level=F32(lambda value: value >= 0)
)

LIFETIME = Record(
    boots=U32, watchdog_resets=U32, panics=U32, brown_outs=U32, software_resets=U32, hung_tasks=U32, dropped_before=U32,
    unacknowledged_before=U32,
)
STEP = Enum("raw", "decimated", "features")
MORE_STATUS = Record(
    answers_dropped=U32, inbox_dropped=U32, line_errors=U32,
    steps=List(Record(step=STEP, withheld=COUNT, bursts=U32, bursts_missed=U32), 0, 8),
)
PERIOD = Unsigned(16, lambda value: 1 <= value <= 3600)
BURST_TRIGGER = Record(level=F32(lambda value: value >= 0), every_s=U32, before=U16, after=U16, rest_s=U16)
STREAM_SETTINGS = Record(
    stream=STREAM, step=STEP, may_degrade=Bool(), axes=U8(lambda value: value != 0),
    decimation=Unsigned(16, lambda value: 2 <= value <= 256), codec=Enum("raw", "rice"), block_samples=SAMPLES,
    trigger=BURST_TRIGGER,
)
SETTINGS = Record(
    version=U32, status_every_s=PERIOD, time_every_s=PERIOD, streams=List(STREAM_SETTINGS, 0, 8, unique="stream")
)

KINDS = {
    1: ("Block", BLOCK),
    2: ("Birth", Record(
        node=NAME, boot=U64, site=NAME, machine=NAME, board=NAME, firmware=at_most(32), tick_hz=NOT_ZERO,
        reset_cause=Enum("Unknown", "PowerOn", "Pin", "Software", "Watchdog", "BrownOut", "Panic"),
        last_panic=at_most(160), settings_version=U32, ring_capacity=U16,
        streams=List(STREAM_INFO, 0, 8, unique="stream"),
    )),
    3: ("Features", Record(
        node=NAME, boot=U64, stream=STREAM, seq=U32, first_sample=COUNT, samples=NOT_ZERO, tick=U64,
        tick_hz=NOT_ZERO, rate_measured_mhz=U32, flags=FLAGS, axes=List(AXIS_FEATURES, 1, 8),
    )),
    4: ("Burst", Record(trigger=TRIGGER, block=BLOCK)),
    5: ("Status", Record(
        node=NAME, boot=U64, tick=U64, oldest=U32, next=U32, ring_used=U16, dropped=U32, resent=U32, connects=U32,
        streams=List(STREAM_STATUS, 0, 8, unique="stream"),
    )),
    6: ("TimePair", Record(
        node=NAME, boot=U64, tick=U64, tick_hz=NOT_ZERO, utc_ns=Signed(64), error_ns=U32,
        source=Enum("Host", "Sntp", "Gateway", "Ptp"),
    )),
    7: ("Ack", Record(node=NAME, boot=U64, next=U32)),
    8: ("Command", Record(
        node=NAME, id=U32, request=Enum("Report", "Identify", ("SelfTest", Record(stream=STREAM)), "Reboot")
    )),
    9: ("Answer", Record(
        node=NAME, boot=U64, id=U32, outcome=Enum("Done", "Failed", "Refused"), text=at_most(160)
    )),
    10: ("Offline", Record(node=NAME, boot=U64)),
    11: ("Set", Record(node=NAME, id=U32, settings=SETTINGS)),
    12: ("InForce", Record(node=NAME, boot=U64, settings=SETTINGS)),
    13: ("TimeAsk", Record(node=NAME, boot=U64, id=U32, tick=U64)),
    14: ("TimeTell", Record(
        node=NAME, boot=U64, id=U32, tick=U64, received_ns=Signed(64), sent_ns=Signed(64), error_ns=U32
    )),
}
# Version 2's fields of kinds that version 1 has: before and behind the old ones.
ADDED = {
    "Block": (Record(decimation=Unsigned(16, lambda value: 2 <= value <= 256)), Record()),
    "Birth": (Record(), Record(lifetime=LIFETIME)),
    "Status": (Record(), Record(more=MORE_STATUS)),
}
NUMBERS = {name: number for number, (name, _) in KINDS.items()}


def block_header(message):
    """The fields of Block within a message, if it has them."""
    return {"Block": message["fields"], "Burst": message["fields"].get("block")}.get(message["kind"])


def width(encoding):
    return 16 if encoding.endswith("16") else 24


def check_whole(message):
    """Rules that concern more than one field."""
    fields = message["fields"]
    if message["kind"] == "Status" and 1 <= (fields["oldest"] - fields["next"]) % 2**32 < 2**31:
        raise Refused("oldest lies after next")
    if "more" in fields and len(fields["more"]["steps"]) != len(fields["streams"]):
        raise Refused("not one step a stream")
    if message["kind"] == "TimeTell" and fields["sent_ns"] < fields["received_ns"]:
        raise Refused("sent before it was received")
    of_bits = fields["streams"] if message["kind"] == "Birth" else [block_header(message)]
    for header in of_bits:
        if header and header["bits"] > width(header["encoding"]):
            raise Refused("bits do not fit the encoding")


def decode(data):
    if not 6 <= len(data) <= MESSAGE_LEN_MAX:
        raise Refused("length")
    version = data[0]
    if version not in (1, 2):
        raise Refused("unknown version")
    if data[1] not in KINDS or (version == 1 and data[1] > 10):
        raise Refused("unknown kind")
    if crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise Refused("checksum")
    kind, record = KINDS[data[1]]
    reader = Reader(data[2:-4])
    if version == 2 and data[1] <= 10:
        if kind not in ADDED:
            raise Refused("unknown version for this kind")
        before, behind = ADDED[kind]
        fields = before.read(reader) | record.read(reader) | behind.read(reader)
    else:
        fields = record.read(reader)
    message = {"kind": kind, "fields": fields}
    check_whole(message)
    rest = reader.data[reader.at :]
    header = block_header(message)
    if header:
        message["samples"] = decode_samples(header, rest)
    elif rest:
        raise Refused("bytes are left over")
    return message


def encode(message, wanted=None):
    """The message's bytes. `wanted` is the encoding to try first; a Rice one may give way to raw."""
    kind = message["kind"]
    header = block_header(message)
    samples = b""
    if header:
        encoding, samples = encode_samples(wanted or header["encoding"], message["samples"])
        if encoding != header["encoding"]:
            raise Refused(f"samples become {encoding}, but the header says {header['encoding']}")
    check_whole(message)
    number, fields = NUMBERS[kind], dict(message["fields"])
    record = KINDS[number][1]
    if number <= 10 and any(name in fields for name in ("decimation", "lifetime", "more")):
        before, behind = ({name: fields.pop(name) for name in part.fields} for part in ADDED[kind])
        header = ADDED[kind][0].write(before) + record.write(fields) + ADDED[kind][1].write(behind)
        version = 2
    else:
        header, version = record.write(fields), 1 if number <= 10 else 2
    data = bytes([version, number]) + header + samples
    data += crc32c(data).to_bytes(4, "little")
    if len(data) > MESSAGE_LEN_MAX:
        raise Refused("too long")
    return data


def decode_samples(header, data):
    axes, count, bits = header["axes"], header["samples"], width(header["encoding"])
    size = bits // 8
    if header["encoding"].startswith("Rice"):
        if len(data) >= axes * count * size:
            raise Refused("a Rice form must be shorter than raw")
        try:
            return rice_read(data, axes, count, bits)
        except ValueError as error:
            raise Refused(str(error)) from error
    if len(data) != axes * count * size:
        raise Refused("length of samples")
    flat = [int.from_bytes(data[at : at + size], "little", signed=True) for at in range(0, len(data), size)]
    return [flat[axis * count : (axis + 1) * count] for axis in range(axes)]


def encode_samples(wanted, channels):
    bits = width(wanted)
    raw = b"".join(value.to_bytes(bits // 8, "little", signed=True) for channel in channels for value in channel)
    if wanted.startswith("Rice"):
        packed = rice_write(channels, bits)
        if len(packed) < len(raw):
            return wanted, packed
    return f"Raw{bits}", raw


def frame(message):
    """COBS, with its final zero."""
    out = bytearray()
    runs = message.split(b"\0")
    for index, run in enumerate(runs):
        while len(run) >= 254:
            out += b"\xff" + run[:254]
            run = run[254:]
            if not run and index == len(runs) - 1:
                return bytes(out) + b"\0"
        out += bytes([len(run) + 1]) + run
    return bytes(out) + b"\0"


def unframe(framed):
    """One frame with its final zero back to the message."""
    if framed[-1:] != b"\0" or 0 in framed[:-1]:
        raise Refused("not one frame")
    out, at, end = bytearray(), 0, len(framed) - 1
    while at < end:
        code = framed[at]
        if at + code > end:
            raise Refused("frame ends in the middle of a group")
        out += framed[at + 1 : at + code]
        at += code
        if code != 0xFF and at < end:
            out.append(0)
    return bytes(out)
