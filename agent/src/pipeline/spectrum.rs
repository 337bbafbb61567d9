//! From a sweep to its record.

use super::emit::{Emit, Head};
use super::json;
use super::lines::{self, Spectra};
use super::quality::{flag, write_flags};
use super::rate::Rate;
use super::sensor::Stream;
use super::settings::Cut;
use super::spectral::Sweep;
use crate::alert::Span;
use crate::config::Quantity;
use crate::record::OutputKind;
use spindle_common::dsp::{Average, Bin, Grid, LANES, Scale, Scaling, Window};
use std::fmt::Write;

impl Emit<'_> {
    /// Puts out a spectrum, averaged up to the end of its last window.
    pub(crate) fn spectrum(&mut self, stream: &Stream, sweep: &Sweep, cut: Cut, rate: Rate) {
        let filter_hz = stream.design().map_or(rate.hz, |(_, hz)| hz);
        let windows = sweep.last_window - sweep.first_window + 1;
        let len = windows.saturating_mul(cut.window_len);
        let end_ns = stream.time_of((sweep.last_window + 1).saturating_mul(cut.window_len), rate.hz);
        let length_ns = libm::round(len as f64 * 1e9 / rate.hz) as i64;
        let span = Span { start_ns: end_ns.saturating_sub(length_ns), end_ns };
        let (index, first_sample) = (sweep.last_window, sweep.first_window.saturating_mul(cut.window_len));
        let head = Head { stream, index, first_sample, len, rate, filter_hz, span };
        let grid = Grid { len: (sweep.bins() - 1) * 2, rate_hz: rate.hz };
        let id = self.id("spectrum", &stream.shape.source, index);
        let mut out = String::with_capacity(4096 + stream.shape.axes * sweep.bins() * 24);
        self.head(&mut out, "spindle.spectrum.v1", &id, &head);
        let good = sweep.flags & flag::BAD == 0;
        let _ = write!(out, ",\"good\":{good},\"flags\":");
        write_flags(&mut out, sweep.flags);
        let (scaling, quantity, unit) = match self.settings.pipeline.spectrum.quantity {
            Quantity::Psd => (Scaling::Density, "psd", "(m/s2)2/Hz"),
            Quantity::Amplitude => (Scaling::Peak, "amplitude", "m/s2"),
        };
        let _ = write!(out, ",\"quantity\":\"{quantity}\",\"unit\":\"{unit}\",\"bins\":{}", sweep.bins());
        let _ = write!(out, ",\"resolution_hz\":{},\"window_function\":\"hann\"", grid.step_hz());
        let _ = write!(out, ",\"enbw_hz\":{}", grid.step_hz() * Window::Hann.enbw_bins());
        let _ = write!(out, ",\"averaging\":\"linear\",\"overlap\":0.5,\"segments\":{}", sweep.segments);
        out.push_str(",\"axes\":[");
        let scale = Scale::new(scaling, Window::Hann, grid);
        let mut averages = vec![[0.0; LANES]; sweep.bins()];
        let mut peaks = averages.clone();
        for axis in 0..stream.shape.axes {
            let (group, lane) = (axis / LANES, axis % LANES);
            if lane == 0 {
                write_lines(sweep.averages.get(group), &scale, &mut averages);
                write_lines(sweep.peaks.get(group), &scale, &mut peaks);
            }
            out.push_str(if axis == 0 { "{\"axis\":" } else { ",{\"axis\":" });
            json::text(&mut out, self.judge.axes.get(axis).map_or("", String::as_str));
            out.push_str(",\"values\":");
            numbers(&mut out, &averages, lane);
            out.push_str(",\"peak_hold\":");
            if sweep.peaks.is_empty() {
                out.push_str("null");
            } else {
                numbers(&mut out, &peaks, lane);
            }
            out.push('}');
        }
        out.push_str("],\"lines\":");
        match self.settings.machine(self.key) {
            Some(machine) => lines::write(
                &mut out,
                &Spectra {
                    machine,
                    averages: &sweep.averages,
                    envelopes: sweep.envelopes.as_ref(),
                    grid,
                    rate_nominal_hz: stream.shape.rate_nominal_hz,
                    axes: &self.judge.axes,
                    channels: stream.shape.axes,
                },
            ),
            None => out.push_str("null"),
        }
        let _ = write!(out, ",\"config\":\"{}\"}}", self.settings.version);
        self.put(OutputKind::Spectrum, end_ns, id, out);
        self.stats.spectra += 1;
    }
}

fn write_lines(average: Option<&Average>, scale: &Scale, out: &mut [Bin]) {
    if let Some(average) = average {
        average.write(scale, out);
    }
}

fn numbers(out: &mut String, lines: &[Bin], lane: usize) {
    for (i, line) in lines.iter().enumerate() {
        out.push(if i == 0 { '[' } else { ',' });
        json::number_or_null(out, Some(line[lane] as f32));
    }
    out.push(']');
}
