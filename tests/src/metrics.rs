//! What a gateway tells over HTTP, read as a scraper would: a request written by hand, and a parser of Prometheus's text that
//! knows nothing of the gateway.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The head, as it came.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Sends `request` as it is and reads to the end of the connection.
///
/// # Errors
/// When the connection fails, or the answer is none of HTTP.
pub fn ask(address: SocketAddr, request: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect(address).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("read the answer")?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no head in {text:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Answer { status: status.context("no status")?, head: head.into(), body: body.into() })
}

/// GET.
///
/// # Errors
/// See [`ask`].
pub fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n"))
}

/// Samples by name and labels, as they are written.
#[derive(Debug, Clone)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Scrapes `/metrics`.
    ///
    /// # Errors
    /// When it is not served or not well formed.
    pub fn of(address: SocketAddr) -> Result<Self> {
        let answer = get(address, "/metrics")?;
        ensure!(answer.status == 200, "{} {}", answer.head, answer.body);
        Self::parse(&answer.body)
    }

    /// Reads Prometheus's text. Each sample must belong to the family whose HELP and TYPE stand before it.
    ///
    /// # Errors
    /// A line that is not so, or comes twice.
    pub fn parse(text: &str) -> Result<Self> {
        let mut samples = BTreeMap::new();
        let (mut family, mut kind) = (String::new(), String::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split(' ').next().unwrap_or_default().to_owned();
                kind.clear();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, of) = rest.split_once(' ').with_context(|| format!("no type in {line:?}"))?;
                ensure!(name == family && kind.is_empty(), "{line:?} does not follow its HELP");
                kind = of.to_owned();
            } else {
                let (name, value) = line.rsplit_once(' ').with_context(|| format!("no value in {line:?}"))?;
                let base = name.split('{').next().unwrap_or_default();
                let part = base
                    .strip_prefix(family.as_str())
                    .with_context(|| format!("{line:?} is of no family"))?;
                let fits =
                    part.is_empty() || kind == "histogram" && ["_bucket", "_sum", "_count"].contains(&part);
                ensure!(fits, "{line:?} is in the family {family}");
                ensure!(
                    kind != "counter" || base.ends_with("_total"),
                    "counter {base} does not end in _total"
                );
                let value: f64 = value.parse().with_context(|| format!("no number in {line:?}"))?;
                ensure!(samples.insert(name.to_owned(), value).is_none(), "{name} comes twice");
            }
        }
        Ok(Self(samples))
    }

    /// The value of a sample, by its name and labels as they are written.
    ///
    /// # Errors
    /// When there is none.
    pub fn value(&self, sample: &str) -> Result<f64> {
        self.0.get(sample).copied().with_context(|| format!("no sample {sample}"))
    }

    /// The value of the histogram `name` that the share `quantile` of its entries does not exceed: the upper bound of its class.
    ///
    /// # Errors
    /// When there is no such histogram, or it is empty.
    pub fn quantile(&self, name: &str, quantile: f64) -> Result<f64> {
        let prefix = format!("{name}_bucket{{le=\"");
        let classes = self.0.iter().filter_map(|(key, count)| {
            let bound = key.strip_prefix(&prefix)?.strip_suffix("\"}")?;
            Some((bound.parse::<f64>().ok()?, *count))
        });
        let due = self.value(&format!("{name}_count"))? * quantile;
        ensure!(due > 0.0, "{name} is empty");
        let reached = classes.filter(|(_, count)| *count >= due).map(|(bound, _)| bound);
        reached.reduce(f64::min).context("no class reaches it")
    }

    /// Samples of the family `name`.
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        self.0.keys().filter(|key| key.split('{').next() == Some(name)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn text_that_is_not_prometheus_is_refused() {
        assert!(Metrics::parse("# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"y z\"} 1\n").is_ok());
        for bad in [
            "a 1\n# HELP b B.",
            "# HELP a A.\n# TYPE b gauge\nb 1\n",
            "# HELP a A.\n# TYPE a gauge\nb 1\n",
            "# HELP a A.\n# TYPE a counter\na 1\n",
            "# HELP a A.\n# TYPE a gauge\na 1\na 1\n",
            "# HELP a A.\n# TYPE a gauge\na one\n",
        ] {
            assert!(Metrics::parse(bad).is_err(), "{bad}");
        }
    }
}
