"""The Rice form of samples, written from common/WIRE.md, section 3."""

PARTITION = 64
ESCAPE = 16


def signed(value, bits):
    value %= 1 << bits
    return value - (1 << bits) if value >= 1 << (bits - 1) else value


def predict(order, x, i):
    if order == 0:
        return 0
    if order == 1:
        return x[i - 1]
    if order == 2:
        return 2 * x[i - 1] - x[i - 2]
    return 3 * x[i - 1] - 3 * x[i - 2] + x[i - 3]


class Bits:
    def __init__(self, data):
        self.text = "".join(f"{byte:08b}" for byte in data)
        self.at = 0

    def take(self, count):
        if self.at + count > len(self.text):
            raise ValueError("Rice codes end early")
        self.at += count
        return int("0" + self.text[self.at - count : self.at], 2)


def rice_read(data, axes, count, width):
    bits = Bits(data)
    channels = [read_channel(bits, count, width) for _ in range(axes)]
    rest = bits.text[bits.at :]
    if len(rest) >= 8 or "1" in rest:
        raise ValueError("bits are left over")
    return channels


def read_channel(bits, n, width):
    p = bits.take(2)
    m = min(p, n)
    x = [signed(bits.take(width), width) for _ in range(m)]
    for i in range(m, n):
        if (i - m) % PARTITION == 0:
            k = bits.take(5)
            if k >= width:
                raise ValueError("Rice parameter too large")
        q = 0
        while q < ESCAPE and bits.take(1) == 0:
            q += 1
        u = bits.take(width) if q == ESCAPE else (q << k) + bits.take(k)
        r = u // 2 if u % 2 == 0 else -(u + 1) // 2
        x.append(signed(predict(p, x, i) + r, width))
    return x


def rice_write(channels, width):
    text = "".join(write_channel(channel, width) for channel in channels)
    text += "0" * (-len(text) % 8)
    return int("1" + text, 2).to_bytes(len(text) // 8 + 1, "big")[1:] if text else b""


def write_channel(x, width):
    p = best_order(x)
    parts = [f"{p:02b}"] + [f"{value % (1 << width):0{width}b}" for value in x[:p]]
    codes = []
    for i in range(p, len(x)):
        r = signed(x[i] - predict(p, x, i), width)
        codes.append(2 * r if r >= 0 else -2 * r - 1)
    for start in range(0, len(codes), PARTITION):
        partition = codes[start : start + PARTITION]
        k = best_parameter(partition, width)
        parts.append(f"{k:05b}" + "".join(code_word(u, k, width) for u in partition))
    return "".join(parts)


def best_order(x):
    if len(x) < 4:
        return 0
    sums = [sum(abs(x[i] - predict(p, x, i)) for i in range(3, len(x))) for p in range(4)]
    return sums.index(min(sums))


def code_word(u, k, width):
    q = u >> k
    if q >= ESCAPE:
        return "0" * ESCAPE + f"{u:0{width}b}"
    low = f"{u & ((1 << k) - 1):0{k}b}" if k else ""
    return "0" * q + "1" + low


def best_parameter(codes, width):
    def length(k):
        return sum(len(code_word(u, k, width)) for u in codes)

    mean = sum(codes) // len(codes)
    k = min(mean.bit_length() - 1, width - 1) if mean else 0
    while k > 0 and length(k - 1) < length(k):
        k -= 1
    return k
