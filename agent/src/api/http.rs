//! `/metrics`, `/health` and `/ready` over HTTP/1.1 (hyper), on a loopback port unless told otherwise. Nothing can be changed here,
//! no path leads to a file, and no request has a body that is read.
//!
//! | limit | value | when reached |
//! |---|---|---|
//! | connections | [`CONNECTIONS_MAX`] | further ones wait in the kernel's queue |
//! | a connection, from its first byte to the last of its one answer | [`CONNECTION_MAX`] | it is closed |
//! | bytes of a request's head | [`HEAD_LEN_MAX`] | answered with 431 and closed |
//! | series | `api.series_max` of sensors, nodes and alerts each | the others are told in sum |
//!
//! A port that is taken costs no data: the gateway says so, runs on without, and tries again.

use super::prometheus;
use super::watch::Watch;
use crate::config;
use crate::runtime::Stop;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Most connections at a time.
pub const CONNECTIONS_MAX: usize = 16;
/// Longest that a connection may take.
pub const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// Most bytes of a request's line and headers; hyper takes no less.
pub const HEAD_LEN_MAX: usize = 8192;
/// Pause before a port that is taken is tried again.
const BIND_PAUSE: Duration = Duration::from_secs(10);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const INDEX: &str = "Spindle gateway\n/metrics  Prometheus text\n/health   200 while it is live\n\
                     /ready    200 while it takes and keeps data\n";

/// A connection's work, to be spawned.
pub type ConnectionTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The server, bound or waiting for its port.
#[derive(Debug)]
pub struct Http {
    bind: SocketAddr,
    socket: Option<TcpListener>,
}

impl Http {
    /// Tries to bind. A port that is taken is told in the log, and tried again by [`Http::run`].
    pub async fn bind(config: &config::Api) -> Self {
        let bind = config.bind;
        let socket = match TcpListener::bind(bind).await {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::error!(
                    address = %bind,
                    %error,
                    "no /metrics, /health and /ready: the address of [api] cannot be had (another gateway on this machine?); \
                     the gateway runs on without and tries again; give each gateway its own port in [api] bind"
                );
                None
            }
        };
        let http = Self { bind, socket };
        http.say_where();
        http
    }

    /// Where it listens, when it does.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.socket.as_ref()?.local_addr().ok()
    }

    fn say_where(&self) {
        if let Some(address) = self.address() {
            tracing::info!(%address, "serving /metrics, /health and /ready");
        }
    }

    /// Works until `stop`. `spawn` starts a connection's work; `blocking` runs what waits for a disk.
    pub async fn run(
        mut self,
        watch: Arc<Watch>,
        stop: Stop,
        blocking: Handle,
        spawn: impl Fn(ConnectionTask) + Send,
    ) {
        tokio::select! {
            () = stop.wait() => {}
            () = self.work(watch, blocking, spawn) => {}
        }
    }

    async fn work(&mut self, watch: Arc<Watch>, blocking: Handle, spawn: impl Fn(ConnectionTask)) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Some(socket) = &self.socket else {
                sleep(BIND_PAUSE).await;
                self.socket = TcpListener::bind(self.bind).await.ok();
                self.say_where();
                continue;
            };
            // Never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match socket.accept().await {
                Ok((stream, _)) => {
                    let (watch, blocking) = (watch.clone(), blocking.clone());
                    spawn(Box::pin(async move {
                        let _ = timeout(CONNECTION_MAX, serve(stream, watch, blocking)).await;
                        drop(place);
                    }));
                }
                Err(error) => {
                    tracing::warn!(%error, "the address of [api] cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, watch: Arc<Watch>, blocking: Handle) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (watch, blocking) = (watch.clone(), blocking.clone());
        async move { Ok::<_, Infallible>(answer(&request, watch, &blocking).await) }
    });
    // One answer a connection: so one limit of time covers slow heads, slow readers and idle ones. A client that is gone needs none.
    let mut http = hyper::server::conn::http1::Builder::new();
    http.keep_alive(false).max_buf_size(HEAD_LEN_MAX);
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: &Request<Incoming>,
    watch: Arc<Watch>,
    blocking: &Handle,
) -> Response<Full<bytes::Bytes>> {
    watch.metrics.requests.increment();
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET and HEAD\n".into());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => metrics(watch, blocking).await,
        "/health" => judged(watch.health()),
        "/ready" => judged(watch.ready()),
        "/" => text(StatusCode::OK, "text/plain; charset=utf-8", INDEX.into()),
        _ => text(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", format!("not here; there is\n{INDEX}")),
    }
}

async fn metrics(watch: Arc<Watch>, blocking: &Handle) -> Response<Full<bytes::Bytes>> {
    let (observation, age) = watch.observe().await;
    let looking =
        blocking.spawn_blocking(move || prometheus::write(&watch, &observation, age, &watch.disk()));
    match looking.await {
        Ok(body) => text(StatusCode::OK, prometheus::CONTENT_TYPE, body),
        Err(_) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "the metrics could not be written\n".into())
        }
    }
}

fn judged((good, reasons): (bool, serde_json::Value)) -> Response<Full<bytes::Bytes>> {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    text(status, "application/json", format!("{reasons}\n"))
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<bytes::Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
