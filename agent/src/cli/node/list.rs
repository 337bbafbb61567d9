//! `spindle node list`.

use super::client::Client;
use super::{Target, ago};
use crate::cli::Outcome;
use crate::session::report::NodeReport;

/// List the nodes that the gateway knows
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  spindle node list --config gateway.toml\n  spindle node list --json | jq '.nodes[] | select(.offline) | .key'"
)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let (now_ns, nodes) = Client::open(&self.target)?.nodes(None)?;
        if self.target.json {
            println!("{}", serde_json::json!({ "now_ns": now_ns, "nodes": nodes }));
        } else {
            print!("{}", table(now_ns, &nodes));
        }
        Ok(Outcome::Done)
    }
}

/// The nodes as a table.
fn table(now_ns: i64, nodes: &[NodeReport]) -> String {
    let heads = ["node", "board", "firmware", "heard", "ring", "step", "set", "clock", "reset"];
    let mut rows = vec![heads.map(str::to_owned)];
    for node in nodes {
        let none = || "-".to_owned();
        let birth = node.birth.as_ref();
        let heard = match node.heard_ns {
            _ if node.offline => "offline".into(),
            Some(heard_ns) if node.twins.is_some() => format!("{}, two boards!", ago(now_ns, heard_ns)),
            Some(heard_ns) => ago(now_ns, heard_ns),
            None => none(),
        };
        let ring =
            node.status.as_ref().zip(birth).map(|(s, b)| format!("{}/{}", s.ring_used, b.ring_capacity));
        let mut steps: Vec<_> = node.streams.iter().filter_map(|stream| stream.step).collect();
        steps.dedup();
        let steps: Vec<_> = steps.iter().map(|step| format!("{step:?}").to_lowercase()).collect();
        rows.push([
            node.key.clone(),
            birth.map_or_else(none, |birth| birth.board.clone()),
            birth.map_or_else(none, |birth| birth.firmware.clone()),
            heard,
            ring.unwrap_or_else(none),
            if steps.is_empty() { none() } else { steps.join(",") },
            birth.map_or_else(none, |birth| birth.settings_version.to_string()),
            node.clock.as_ref().map_or_else(none, |clock| super::show::time_text(clock.error_ns.into())),
            birth.map_or_else(none, |birth| birth.reset_cause.clone()),
        ]);
    }
    let widths: Vec<usize> = (0..heads.len())
        .map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    if nodes.is_empty() {
        text.push_str("no node has been heard yet\n");
    }
    text
}
