//! The demo's screen; drawn for 80 columns and 24 lines, wider ones get longer trends.

use super::view::{Event, MachineView, View, grouped};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Table};

/// What changes with time beside the view.
pub(super) struct Clockwork {
    pub(super) elapsed_s: u64,
    /// When it ends by itself.
    pub(super) ends_s: Option<u64>,
    /// Samples per second and channel, all machines.
    pub(super) samples_per_s: u64,
    pub(super) dir: String,
    pub(super) ending: bool,
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, clockwork: &Clockwork) {
    let machines_height = u16::try_from(view.machines.len()).unwrap_or(3) + 4;
    let [head, machines, flow, events, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(machines_height),
        Constraint::Length(6),
        Constraint::Min(4),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, head, clockwork);
    draw_machines(frame, machines, view);
    draw_flow(frame, flow, view, clockwork);
    draw_events(frame, events, view);
    let foot_text = if clockwork.ending {
        " ending: boards, gateway, Kafka, books ...".to_owned()
    } else {
        " q quit and balance the books".to_owned()
    };
    frame.render_widget(Paragraph::new(foot_text).style(Style::new().add_modifier(Modifier::REVERSED)), foot);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, clockwork: &Clockwork) {
    let time = match clockwork.ends_s {
        Some(ends_s) => format!("{} of {ends_s} s", clockwork.elapsed_s),
        None => format!("{} s", clockwork.elapsed_s),
    };
    let title = Line::from(vec![
        " Spindle demo ".bold().reversed(),
        format!("  {time}   boards > gateway > Kafka (mock, in this process)").into(),
    ]);
    let dir = Line::from(format!(" data in {}", clockwork.dir)).dim();
    frame.render_widget(Paragraph::new(vec![title, dir]), area);
}

fn draw_machines(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let head = Row::new(["machine", "link", "rms", "peak", "kurt.", "velocity", "trend of rms"]).bold();
    let units = Row::new(["", "", "m/s2", "m/s2", "", "mm/s", ""]).dim();
    let rows = view.machines.iter().map(machine_row);
    let widths = [
        Constraint::Length(9),
        Constraint::Length(5),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(8),
        Constraint::Fill(1),
    ];
    let table = Table::new(std::iter::once(units).chain(rows), widths)
        .header(head)
        .block(Block::bordered().title(" Machines, as read back from Kafka "));
    frame.render_widget(table, area);
}

fn machine_row(machine: &MachineView) -> Row<'static> {
    let link = if machine.link_down { "DOWN".red().bold() } else { "up".green() };
    let style = if machine.alert { Style::new().fg(Color::Red).bold() } else { Style::new() };
    let number =
        |value: Option<f64>, digits: usize| value.map_or_else(|| "-".into(), |v| format!("{v:.digits$}"));
    let levels = machine.levels.as_ref();
    Row::new(vec![
        Line::from(Span::styled(machine.name.clone(), style)),
        Line::from(link),
        Line::from(Span::styled(number(levels.map(|l| l.rms), 2), style)),
        Line::from(number(levels.map(|l| l.peak), 1)),
        Line::from(number(levels.map(|l| l.kurtosis), 1)),
        Line::from(number(levels.map(|l| l.velocity), 2)),
        Line::from(trend(machine)),
    ])
}

/// A line of bars, scaled to the machine's own highest level.
fn trend(machine: &MachineView) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = machine.trend.iter().copied().fold(1.0_f64, f64::max);
    let bar = |level: &f64| {
        let eighth = (level / highest * 8.0).ceil().clamp(1.0, 8.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 8")]
        BARS[eighth as usize - 1]
    };
    let skip = machine.trend.len().saturating_sub(super::view::TREND_LEN);
    machine.trend.iter().skip(skip).map(bar).collect()
}

fn draw_flow(frame: &mut Frame<'_>, area: Rect, view: &View, clockwork: &Clockwork) {
    let line = |name: &str, text: String| Line::from(vec![format!(" {name:<10}").dim(), text.into()]);
    let differing = if view.different + view.missing == 0 {
        "none differs".green()
    } else {
        format!("{} differ, {} missing", grouped(view.different), grouped(view.missing)).red().bold()
    };
    let compared = Line::from(vec![
        " compared  ".dim(),
        format!("{} samples x 3 axes with the models: ", grouped(view.compared)).into(),
        differing,
    ]);
    let lines = vec![
        line("flow", format!("{} samples/s x 3 axes", grouped(clockwork.samples_per_s))),
        line("under way", format!("{} samples between sensor and Kafka", grouped(view.waiting()))),
        line(
            "in Kafka",
            format!(
                "{} raw blocks, {} features and rollups, {} alert changes",
                grouped(view.raw),
                grouped(view.features),
                view.alerts
            ),
        ),
        compared,
    ];
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" Flow ")), area);
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let room = usize::from(area.height.saturating_sub(2));
    let skip = view.events.len().saturating_sub(room);
    let lines: Vec<Line<'_>> = view.events.iter().skip(skip).map(event_line).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" Events ")), area);
}

fn event_line(event: &Event) -> Line<'static> {
    let style = if event.important { Style::new().fg(Color::Red).bold() } else { Style::new() };
    Line::from(vec![format!(" {:>4} s  ", event.at_s).dim(), Span::styled(event.text.clone(), style)])
}
