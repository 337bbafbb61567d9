//! The command's end of the gateway's control socket.

use super::ago;
use crate::api::control::{self, Request, Response};
use crate::cli::place::Place;
use crate::session::report::{AnswerReport, NodeReport, Order, OrderOutcome};
use anyhow::{Context as _, bail};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How often an answer is looked for.
const POLL: Duration = Duration::from_millis(50);
/// How long the gateway itself may take.
const GATEWAY_MAX: Duration = Duration::from_secs(10);

/// Which gateway, and how long to wait.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct Target {
    #[command(flatten)]
    pub(in crate::cli) place: Place,
    /// How long the answer may take
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(in crate::cli) timeout: Duration,
    /// Print one JSON object
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// A connection to a gateway.
#[derive(Debug)]
pub(in crate::cli) struct Client {
    stream: BufReader<UnixStream>,
    timeout: Duration,
}

impl Client {
    pub(in crate::cli) fn open(target: &Target) -> anyhow::Result<Self> {
        let path = control::path(&target.place.data_dir()?);
        let stream = match UnixStream::connect(&path) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                bail!(
                    "no gateway runs here ({} does not answer): it is needed for this, start `spindle run`",
                    path.display()
                )
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot reach the gateway at {}", path.display()));
            }
        };
        stream.set_read_timeout(Some(GATEWAY_MAX)).context("cannot set a time limit")?;
        Ok(Self { stream: BufReader::new(stream), timeout: target.timeout })
    }

    /// One request and its answer.
    pub(in crate::cli) fn ask(&mut self, request: &Request) -> anyhow::Result<Response> {
        let mut line = serde_json::to_vec(request).context("cannot write a request")?;
        line.push(b'\n');
        // A gateway with too many commands says so before it has read anything, and then takes nothing.
        let written = self.stream.get_mut().write_all(&line);
        let mut text = String::new();
        self.stream.read_line(&mut text).context("the gateway does not answer")?;
        if text.is_empty() {
            written.context("the gateway takes no request")?;
            bail!("the gateway has closed the connection: is it stopping?");
        }
        match serde_json::from_str(&text)
            .context("the gateway's answer is not understood: is it of this version?")?
        {
            Response::Error { reason } => bail!(reason),
            response => Ok(response),
        }
    }

    /// The time on the gateway, and all nodes or the named ones.
    pub(super) fn nodes(&mut self, node: Option<&str>) -> anyhow::Result<(i64, Vec<NodeReport>)> {
        match self.ask(&Request::Nodes { node: node.map(str::to_owned) })? {
            Response::Nodes { now_ns, nodes } => Ok((now_ns, nodes)),
            _ => bail!("the gateway answered something else"),
        }
    }

    /// The time on the gateway, and the one node of this name.
    pub(super) fn node(&mut self, name: &str) -> anyhow::Result<(i64, NodeReport)> {
        let (now_ns, nodes) = self.nodes(Some(name))?;
        let mut nodes = nodes.into_iter();
        match (nodes.next(), nodes.next()) {
            (Some(node), None) => Ok((now_ns, node)),
            (Some(node), Some(other)) => bail!("{name} is {} and {}: write which", node.key, other.key),
            (None, _) => bail!("there is no node {name}; `spindle node list` shows those that are known"),
        }
    }

    /// Sends an order; gives its id.
    pub(super) fn order(&mut self, node: &str, order: Order) -> anyhow::Result<u32> {
        match self.ask(&Request::Order { node: node.into(), order })? {
            Response::Sent { id } => Ok(id),
            _ => bail!("the gateway answered something else"),
        }
    }

    /// Looks at the node until `found` finds what is waited for.
    pub(super) fn wait<T>(
        &mut self,
        name: &str,
        what: &str,
        mut found: impl FnMut(&NodeReport) -> Option<T>,
    ) -> anyhow::Result<T> {
        let polls = self.timeout.as_millis().div_ceil(POLL.as_millis());
        for poll in 0.. {
            let (now_ns, report) = self.node(name)?;
            if let Some(found) = found(&report) {
                return Ok(found);
            }
            if poll >= polls {
                let heard = match report.heard_ns {
                    Some(heard_ns) => format!("last heard {} ago", ago(now_ns, heard_ns)),
                    None => "not heard since the gateway started".into(),
                };
                let link = if report.offline { "; its broker says that its connection is lost" } else { "" };
                bail!(
                    "{name} has not {what} within {}; {heard}{link}",
                    humantime::format_duration(self.timeout)
                );
            }
            std::thread::sleep(POLL);
        }
        bail!("waited too long")
    }

    /// Orders something and waits for the answer.
    pub(super) fn done(&mut self, name: &str, order: Order) -> anyhow::Result<AnswerReport> {
        let id = self.order(name, order)?;
        self.wait(name, "answered", |report| report.answers.iter().find(|answer| answer.id == id).cloned())
    }
}

/// An answer in words.
pub(super) fn words(answer: &AnswerReport) -> String {
    let outcome = match answer.outcome {
        OrderOutcome::Done => "done",
        OrderOutcome::Failed => "failed",
        OrderOutcome::Refused => "refused",
    };
    if answer.text.is_empty() { outcome.into() } else { format!("{outcome}: {}", answer.text) }
}
