//! The lossless form of samples: a fixed polynomial predictor and Rice codes. `WIRE.md` describes the bits.
//!
//! Per channel the encoder takes the order, 0 to 3, whose residuals have the smallest sum of magnitudes (one pass), then
//! writes the residuals in partitions of [`PARTITION`], each with the parameter that makes it shortest. All sums are
//! taken modulo 2^bits, so any bits decode to samples in range, residuals never need more bits than samples, and neither
//! side can overflow. Integers only, no allocation, 256 bytes of stack: meant for a Cortex-M.

use super::{DecodeError, Samples};

/// Residuals that share one Rice parameter.
const PARTITION: usize = 64;

/// As many zeros in place of a quotient say that the residual follows as it is.
const ESCAPE: u32 = 16;

/// Bits of a Rice parameter.
const PARAMETER_BITS: u32 = 5;

/// Bits of a predictor's order.
const ORDER_BITS: u32 = 2;

/// Writes the samples, `per_channel` of them a channel, in codes of `bits`-bit residuals, and returns the length in bytes;
/// nothing if they do not fit `out` or would not be shorter than raw.
pub(super) fn encode(samples: Samples<'_>, per_channel: usize, bits: u32, out: &mut [u8]) -> Option<usize> {
    let raw_len = samples.len() * (bits as usize / 8);
    let limit = out.len().min(raw_len.checked_sub(1)?);
    let mut writer = Writer { out: out.get_mut(..limit)?, at: 0, word: 0, used: 0 };
    match samples {
        Samples::I16(samples) => write_channels(samples, per_channel, bits, &mut writer)?,
        Samples::I32(samples) => write_channels(samples, per_channel, bits, &mut writer)?,
    }
    writer.end()
}

/// Decodes as many samples as `out` holds, `per_channel` of them a channel.
pub(super) fn decode<T: Copy>(
    bytes: &[u8],
    per_channel: usize,
    bits: u32,
    out: &mut [T],
    convert: impl Fn(i32) -> T + Copy,
) -> Result<(), DecodeError> {
    let mut reader = Reader { bytes, at: 0, word: 0, left: 0, taken: 0 };
    for channel in out.chunks_exact_mut(per_channel) {
        reader.refill();
        match reader.take(ORDER_BITS) {
            0 => read_channel::<0, T>(&mut reader, bits, channel, convert)?,
            1 => read_channel::<1, T>(&mut reader, bits, channel, convert)?,
            2 => read_channel::<2, T>(&mut reader, bits, channel, convert)?,
            _ => read_channel::<3, T>(&mut reader, bits, channel, convert)?,
        }
        if reader.taken > bytes.len() * 8 {
            return Err(DecodeError::Samples { reason: "Rice codes end early" });
        }
    }
    reader.end()
}

/// What the polynomial through the last samples (newest first) says of the next one.
const fn predict(order: u32, [newest, second, third]: [i32; 3]) -> i32 {
    match order {
        0 => 0,
        1 => newest,
        2 => 2 * newest - second,
        _ => 3 * (newest - second) + third,
    }
}

/// The value modulo 2^bits, in two's complement.
const fn wrap(value: i32, bits: u32) -> i32 {
    (value << (32 - bits)) >> (32 - bits)
}

const fn zigzag(residual: i32) -> u32 {
    ((residual << 1) ^ (residual >> 31)) as u32
}

const fn unzigzag(code: u32) -> i32 {
    (code >> 1) as i32 ^ -((code & 1) as i32)
}

fn best_order<S: Copy + Into<i32>>(channel: &[S], bits: u32) -> u32 {
    // Differences of order n are the residuals of predictor n; the first samples, where they are not all defined, are left out.
    let mut last = [0_i32; 3];
    let mut sums = [0_i64; 4];
    let (first, rest) = channel.split_at(channel.len().min(3));
    for &sample in first {
        differences(&mut last, sample.into());
    }
    // A third difference is below 2^(bits + 2): so many of them fit a 32-bit sum, which is all that a Cortex-M adds at once.
    for samples in rest.chunks(1 << (30 - bits)) {
        let before = last;
        // Order 0 by itself: all four in one loop would take more than a Cortex-M's registers, which costs more than a second load.
        let rise = |value: i32| value.max(0).cast_unsigned();
        let (total, zeroth) = samples.iter().fold((0, 0), |(total, positive), &sample| {
            let value = sample.into();
            (total + value, positive + rise(value))
        });
        let [mut first, mut second, mut third] = [0; 3];
        for &sample in samples {
            let found = differences(&mut last, sample.into());
            first += rise(found[1]);
            second += rise(found[2]);
            third += rise(found[3]);
        }
        let rises = [zeroth, first, second, third];
        // Magnitudes are twice what is positive less all of it, and all of a difference is how far the order below has come.
        let come = [total, last[0] - before[0], last[1] - before[1], last[2] - before[2]];
        for ((sum, rise), come) in sums.iter_mut().zip(rises).zip(come) {
            *sum += 2 * i64::from(rise) - i64::from(come);
        }
    }
    let orders_usable = channel.len().min(4);
    (0..orders_usable).min_by_key(|&order| sums[order]).unwrap_or(0) as u32
}

/// Differences of order 0 to 3 at a sample; `last` are those of order 0 to 2 at the one before.
fn differences(last: &mut [i32; 3], zeroth: i32) -> [i32; 4] {
    let first = zeroth - last[0];
    let second = first - last[1];
    let third = second - last[2];
    *last = [zeroth, first, second];
    [zeroth, first, second, third]
}

fn write_channels<S: Copy + Into<i32>>(
    samples: &[S],
    per_channel: usize,
    bits: u32,
    writer: &mut Writer<'_>,
) -> Option<()> {
    let mut codes = [0; PARTITION];
    samples.chunks_exact(per_channel).try_for_each(|channel| {
        // The order and the width are constants within the loops, so that they cost nothing there.
        match (best_order(channel, bits), bits) {
            (0, 16) => write_predicted::<0, 16, S>(channel, &mut codes, writer),
            (1, 16) => write_predicted::<1, 16, S>(channel, &mut codes, writer),
            (2, 16) => write_predicted::<2, 16, S>(channel, &mut codes, writer),
            (_, 16) => write_predicted::<3, 16, S>(channel, &mut codes, writer),
            (0, _) => write_predicted::<0, 24, S>(channel, &mut codes, writer),
            (1, _) => write_predicted::<1, 24, S>(channel, &mut codes, writer),
            (2, _) => write_predicted::<2, 24, S>(channel, &mut codes, writer),
            (_, _) => write_predicted::<3, 24, S>(channel, &mut codes, writer),
        }
    })
}

fn write_predicted<const ORDER: u32, const BITS: u32, S: Copy + Into<i32>>(
    channel: &[S],
    codes: &mut [u32; PARTITION],
    writer: &mut Writer<'_>,
) -> Option<()> {
    writer.put(ORDER, ORDER_BITS)?;
    let mut last = [0_i32; 3];
    let (first, rest) = channel.split_at(channel.len().min(ORDER as usize));
    for &sample in first {
        let sample = sample.into();
        writer.put(sample as u32 & mask(BITS), BITS)?;
        last = [sample, last[0], last[1]];
    }
    for partition in rest.chunks(PARTITION) {
        let codes = &mut codes[..partition.len()];
        // A sum of 64 codes of up to 25 bits fits 32 bits.
        let (mut sum, mut any) = (0, 0);
        for (&sample, code) in partition.iter().zip(codes.iter_mut()) {
            let sample = sample.into();
            *code = zigzag(wrap(sample - predict(ORDER, last), BITS));
            sum += *code;
            any |= *code;
            last = [sample, last[0], last[1]];
        }
        let mean = sum / partition.len() as u32;
        let parameter = best_parameter(codes, mean, any, BITS);
        writer.put(parameter, PARAMETER_BITS)?;
        writer.put_codes(codes, parameter, any, BITS)?;
    }
    Some(())
}

/// Starts at the parameter that the mean suggests and walks down while that is shorter: outliers raise the mean, but are
/// cheaper as escapes. `any` has every bit that a code has.
fn best_parameter(codes: &[u32], mean: u32, any: u32, bits: u32) -> u32 {
    let mut parameter = mean.checked_ilog2().unwrap_or(0).min(bits - 1);
    let mut cost;
    if parameter > 0 && any >> (parameter - 1) < ESCAPE {
        // The usual case, without escapes: both lengths in one go.
        let (mut quotients, mut below) = (0, 0);
        for &code in codes {
            let quotient = code >> (parameter - 1);
            below += quotient;
            quotients += quotient >> 1;
        }
        let count = codes.len() as u32;
        if below >= quotients + count {
            return parameter;
        }
        (parameter, cost) = (parameter - 1, below + count * parameter);
    } else {
        cost = length(codes, parameter, any, bits);
    }
    while parameter > 0 {
        let below = length(codes, parameter - 1, any, bits);
        if below >= cost {
            break;
        }
        (parameter, cost) = (parameter - 1, below);
    }
    parameter
}

/// Bits that the residuals take with this parameter.
fn length(codes: &[u32], parameter: u32, any: u32, bits: u32) -> u32 {
    if any >> parameter < ESCAPE {
        let quotients: u32 = codes.iter().map(|&code| code >> parameter).sum();
        return quotients + codes.len() as u32 * (parameter + 1);
    }
    codes
        .iter()
        .map(|&code| {
            let quotient = code >> parameter;
            if quotient < ESCAPE { quotient + 1 + parameter } else { ESCAPE + bits }
        })
        .sum()
}

fn read_channel<const ORDER: u32, T>(
    reader: &mut Reader<'_>,
    bits: u32,
    channel: &mut [T],
    convert: impl Fn(i32) -> T,
) -> Result<(), DecodeError> {
    let mut last = [0_i32; 3];
    let (first, rest) = channel.split_at_mut(channel.len().min(ORDER as usize));
    for out in first {
        reader.refill();
        let sample = wrap(reader.take(bits) as i32, bits);
        last = [sample, last[0], last[1]];
        *out = convert(sample);
    }
    for partition in rest.chunks_mut(PARTITION) {
        reader.refill();
        let parameter = reader.take(PARAMETER_BITS);
        if parameter >= bits {
            return Err(DecodeError::Samples { reason: "a Rice parameter is larger than a sample" });
        }
        for out in partition {
            let residual = unzigzag(reader.code(parameter, bits));
            let sample = wrap(predict(ORDER, last) + residual, bits);
            last = [sample, last[0], last[1]];
            *out = convert(sample);
        }
    }
    Ok(())
}

const fn mask(bits: u32) -> u32 {
    (1 << bits) - 1
}

/// Bits to bytes, most significant first, through a 32-bit word.
struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
    word: u32,
    /// Bits of `word` in use, from the top; below 32.
    used: u32,
}

impl Writer<'_> {
    /// Writes the lowest `count` (0 to 32) bits of `value`, whose others are zero.
    fn put(&mut self, value: u32, count: u32) -> Option<()> {
        let free = 32 - self.used;
        if count < free {
            self.word |= value << (free - count);
            self.used += count;
            return Some(());
        }
        let over = count - free;
        *self.out.get_mut(self.at..)?.first_chunk_mut::<4>()? = (self.word | (value >> over)).to_be_bytes();
        self.at += 4;
        self.word = value.checked_shl(32 - over).unwrap_or(0);
        self.used = over;
        Some(())
    }

    /// Writes a partition's codes; `any` has every bit that one of them has.
    fn put_codes(&mut self, codes: &[u32], parameter: u32, any: u32, bits: u32) -> Option<()> {
        let length_max = (any >> parameter) + 1 + parameter;
        let room = self.out.len().checked_sub(self.at)?;
        if any >> parameter >= ESCAPE || length_max > 31 || room / 4 < codes.len() + 1 {
            return codes.iter().try_for_each(|&code| self.put_code(code, parameter, bits));
        }
        // No escape, each code within 31 bits, and room for all of them at their longest: no further checks are needed.
        // The usual parameters are constants within the loop: that frees four registers of a Cortex-M's thirteen.
        match parameter {
            0 => self.put_short(codes, 0),
            1 => self.put_short(codes, 1),
            2 => self.put_short(codes, 2),
            3 => self.put_short(codes, 3),
            4 => self.put_short(codes, 4),
            5 => self.put_short(codes, 5),
            6 => self.put_short(codes, 6),
            7 => self.put_short(codes, 7),
            8 => self.put_short(codes, 8),
            9 => self.put_short(codes, 9),
            10 => self.put_short(codes, 10),
            11 => self.put_short(codes, 11),
            12 => self.put_short(codes, 12),
            _ => self.put_short(codes, parameter),
        }
    }

    /// Writes codes that all have 31 bits at most and no escape.
    #[inline(always)]
    fn put_short(&mut self, codes: &[u32], parameter: u32) -> Option<()> {
        let one = 1_u32 << parameter;
        let (mut word, mut used) = (self.word, self.used);
        let (places, _) = self.out.get_mut(self.at..)?.as_chunks_mut::<4>();
        let mut places = places.iter_mut();
        let places_before = places.len();
        let mut put = |code: u32| {
            let tail = one | (code & (one - 1));
            used += (code >> parameter) + (1 + parameter);
            // Its last bit is number `used` from the top. What does not fit comes out at the top again, for the next word.
            let turned = tail.rotate_right(used);
            if used <= 32 {
                word |= turned;
                return Some(());
            }
            used -= 32;
            let fits = tail >> used;
            *places.next()? = (word | fits).to_be_bytes();
            word = turned ^ fits;
            Some(())
        };
        // By eight, so that keeping count is little against it.
        let (eights, rest) = codes.as_chunks::<8>();
        for eight in eights {
            for &code in eight {
                put(code)?;
            }
        }
        for &code in rest {
            put(code)?;
        }
        if used == 32 {
            *places.next()? = word.to_be_bytes();
            (word, used) = (0, 0);
        }
        self.at += 4 * (places_before - places.len());
        (self.word, self.used) = (word, used);
        Some(())
    }

    fn put_code(&mut self, code: u32, parameter: u32, bits: u32) -> Option<()> {
        let quotient = code >> parameter;
        if quotient >= ESCAPE {
            self.put(0, ESCAPE)?;
            return self.put(code, bits);
        }
        let tail = (1 << parameter) | (code & mask(parameter));
        if quotient + 1 + parameter <= 32 {
            self.put(tail, quotient + 1 + parameter)
        } else {
            self.put(0, quotient)?;
            self.put(tail, 1 + parameter)
        }
    }

    /// Writes the last, partly used word and gives the length of all.
    fn end(self) -> Option<usize> {
        let len = self.used.div_ceil(8) as usize;
        let end = self.at + len;
        self.out.get_mut(self.at..end)?.copy_from_slice(&self.word.to_be_bytes()[..len]);
        Some(end)
    }
}

/// Bytes to bits, most significant first, through a 64-bit word. Behind the last byte come zeros; `taken` tells.
struct Reader<'a> {
    bytes: &'a [u8],
    /// The next byte to be loaded.
    at: usize,
    /// Bits loaded, from the top.
    word: u64,
    /// How many.
    left: u32,
    /// Bits taken so far.
    taken: usize,
}

impl Reader<'_> {
    /// Loads until at least 56 bits are there.
    fn refill(&mut self) {
        if let Some(chunk) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            // What is loaded beyond the whole bytes counted is loaded again, alike, next time.
            self.word |= u64::from_be_bytes(*chunk) >> self.left;
            self.at += ((63 - self.left) >> 3) as usize;
            self.left |= 56;
            return;
        }
        while self.left < 56 {
            let byte = self.bytes.get(self.at).copied().unwrap_or(0);
            self.word |= u64::from(byte) << (56 - self.left);
            self.at += 1;
            self.left += 8;
        }
    }

    /// The next `count` (1 to 32) bits, which must be loaded.
    fn take(&mut self, count: u32) -> u32 {
        let value = (self.word >> (64 - count)) as u32;
        self.skip(count);
        value
    }

    fn skip(&mut self, count: u32) {
        self.word <<= count;
        self.left -= count;
        self.taken += count as usize;
    }

    /// The next residual's code: at most 16 + 24 bits.
    fn code(&mut self, parameter: u32, bits: u32) -> u32 {
        self.refill();
        let quotient = self.word.leading_zeros();
        if quotient >= ESCAPE {
            self.skip(ESCAPE);
            return self.take(bits);
        }
        self.skip(quotient);
        (quotient << parameter) | (self.take(parameter + 1) & mask(parameter))
    }

    /// Whether everything was used: less than a byte left, and that zero.
    fn end(mut self) -> Result<(), DecodeError> {
        let total = self.bytes.len() * 8;
        if self.taken > total {
            return Err(DecodeError::Samples { reason: "Rice codes end early" });
        }
        self.refill();
        let padding = (total - self.taken) as u32;
        if total - self.taken >= 8 || (padding > 0 && self.take(padding) != 0) {
            return Err(DecodeError::Samples { reason: "bytes are left over behind the Rice codes" });
        }
        Ok(())
    }
}
