//! From a closed rollup to its record.

use super::emit::{Emit, Head};
use super::json;
use super::quality::{flag, write_flags};
use super::rate::Rate;
use super::sensor::Stream;
use super::settings::Cut;
use super::window::Rollup;
use crate::alert::Span;
use crate::record::OutputKind;
use std::fmt::Write;

impl Emit<'_> {
    pub(crate) fn rollup(&mut self, stream: &Stream, rollup: &Rollup, cut: Cut, rate: Rate, end_ns: i64) {
        let filter_hz = stream.design().map_or(rate.hz, |(_, hz)| hz);
        let span = Span { start_ns: rollup.start_ns, end_ns };
        let samples = rollup.samples();
        let coverage = samples as f64 / cut.rollup_len as f64;
        let mut out = String::with_capacity(4096);
        let id = self.id("rollup", &stream.shape.source, rollup.index);
        let (index, len) = (rollup.index, cut.rollup_len);
        let head = Head { stream, index, first_sample: index * len, len, rate, filter_hz, span };
        self.head(&mut out, "spindle.rollup.v1", &id, &head);
        out.push_str(",\"coverage\":");
        json::number_or_null(&mut out, Some(coverage as f32));
        let flags = rollup.flags | if samples < cut.rollup_len { flag::GAP } else { 0 };
        let _ = write!(out, ",\"count\":{samples},\"flags\":");
        write_flags(&mut out, flags);
        out.push_str(",\"unit\":\"m/s2\",\"band_hz\":[0,");
        let _ = write!(out, "{}],\"axes\":[", filter_hz / 2.0);
        for (axis, m) in rollup.moments.iter().enumerate() {
            out.push_str(if axis == 0 { "{\"axis\":" } else { ",{\"axis\":" });
            json::text(&mut out, self.judge.axes.get(axis).map_or("", String::as_str));
            let known = samples > 0;
            let rows = [
                ("min", f64::from(m.min)),
                ("max", f64::from(m.max)),
                ("mean", m.mean),
                ("rms", m.rms()),
                ("peak", m.peak()),
            ];
            for (name, value) in rows {
                let _ = write!(out, ",\"{name}\":");
                json::number_or_null(&mut out, known.then_some(value as f32));
            }
            out.push('}');
        }
        out.push_str("],\"downsampled\":");
        self.downsampled(&mut out, rollup, cut, rate);
        let _ = write!(out, ",\"config\":\"{}\"}}", self.settings.version);
        self.put(OutputKind::Rollup, end_ns, id, out);
        self.stats.rollups += 1;
    }

    fn downsampled(&self, out: &mut String, rollup: &Rollup, cut: Cut, rate: Rate) {
        let downsampled = &rollup.downsampled;
        let axes = rollup.moments.len();
        if downsampled.values.is_empty() || downsampled.overflowed {
            out.push_str("null");
            return;
        }
        let factor = f64::from(cut.factor);
        let _ = write!(out, "{{\"factor\":{},\"rate_hz\":{}", cut.factor, rate.hz / factor);
        let _ =
            write!(out, ",\"pass_band_hz\":{}", rate.hz / factor * spindle_common::dsp::decimate::PASS_BAND);
        let _ = write!(out, ",\"start_ns\":{},\"first_sample\":{}", downsampled.first_ns, downsampled.first);
        out.push_str(",\"axes\":[");
        for axis in 0..axes {
            out.push_str(if axis == 0 { "[" } else { ",[" });
            for (i, row) in downsampled.values.chunks_exact(axes).enumerate() {
                if i > 0 {
                    out.push(',');
                }
                json::number_or_null(out, Some(row[axis]));
            }
            out.push(']');
        }
        out.push_str("]}");
    }
}
