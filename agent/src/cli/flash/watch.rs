//! Waits for a board's birth and first second of data.

use super::first::First;
use super::place::Place;
use super::tools::POLL;
use crate::clock::{Clock, Now};
use crate::config::MqttSource;
use crate::journal::{JournalReader, Read};
use crate::record::RecordKind;
use crate::runtime::Stop;
use crate::source::PACKET_LEN_MAX;
use crate::source::tls::{Trouble, Tunnel};
use anyhow::{Context as _, bail};
use rumqttc::Transport;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use spindle_common::hardware::Node;
use spindle_common::wire::{self, Message};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// How long the broker may take to say what birth it has retained, once connected; and to be reached at all.
const RETAINED_MAX: Duration = Duration::from_millis(700);
const REACHED_MAX: Duration = Duration::from_secs(5);
/// How long the first second of data may take after the birth.
const DATA_MAX: Duration = Duration::from_secs(10);
/// Pause before connecting again.
const AGAIN: Duration = Duration::from_millis(300);
/// Bytes that one read of the journal takes, and how long it waits.
const READ_BYTES: usize = 1 << 20;
const READ_WAIT: Duration = Duration::from_millis(200);

/// How waiting ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All is there.
    Complete,
    /// Not in time; what hinders the connection, if anything does.
    TimedOut(Option<String>),
}

/// What is waited for, and until when.
pub(super) struct Watch<'a> {
    first: RefCell<First>,
    /// Fails when waiting is of no use any more.
    alive: RefCell<&'a mut dyn FnMut() -> anyhow::Result<()>>,
    stop: &'a Stop,
    clock: &'a Clock,
    started: Now,
    born: Cell<Option<Now>>,
    timeout: Duration,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        first: First,
        timeout: Duration,
        stop: &'a Stop,
        clock: &'a Clock,
        alive: &'a mut dyn FnMut() -> anyhow::Result<()>,
    ) -> Self {
        let (first, alive) = (RefCell::new(first), RefCell::new(alive));
        Self { first, alive, stop, clock, started: clock.now(), born: Cell::new(None), timeout }
    }

    /// Waits at the broker.
    pub(super) fn at_broker(self, source: &MqttSource, node: &Node) -> anyhow::Result<(First, End)> {
        let filters = filters(node);
        let mut connection = Connection::new(source, &filters)?;
        let trouble = connection.trouble.clone();
        let listen = connection.listen(|publish| {
            self.first.borrow_mut().take(&publish.payload);
            self.first.borrow().is_complete()
        });
        let ended = block_on(listen, self.watch())?;
        let trouble = Some(trouble.borrow().clone()).filter(|words| !words.is_empty());
        let end = match ended {
            Some(()) => End::Complete,
            None => End::TimedOut(trouble),
        };
        Ok((self.first.into_inner(), end))
    }

    /// Waits in a journal, from `next` on.
    pub(super) fn in_journal(self, reader: &JournalReader, mut next: u64) -> anyhow::Result<(First, End)> {
        let mut trouble = None;
        while !self.is_over()? {
            let read = match reader.read(next, READ_BYTES, READ_WAIT) {
                Ok(read) => read,
                // The gateway is making its first segment: it can be read a moment later.
                Err(error) => {
                    trouble = Some(error.to_string());
                    self.stop.sleep(POLL);
                    continue;
                }
            };
            trouble = None;
            match read {
                Read::Batch(view) => {
                    for record in &view {
                        if matches!(record.kind, RecordKind::Block | RecordKind::Node) {
                            self.first.borrow_mut().take(&record.body);
                        }
                    }
                    next = view.next();
                }
                Read::Evicted { next: oldest } => next = oldest,
                Read::Idle | Read::Closed => {}
            }
            if self.first.borrow().is_complete() {
                return Ok((self.first.into_inner(), End::Complete));
            }
        }
        Ok((self.first.into_inner(), End::TimedOut(trouble)))
    }

    async fn watch(&self) -> anyhow::Result<()> {
        while !self.is_over()? {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Whether the time is over.
    fn is_over(&self) -> anyhow::Result<bool> {
        if self.stop.is_set() {
            bail!("ended as asked, before the first second of data was there");
        }
        (self.alive.borrow_mut())()?;
        let now = self.clock.now();
        if self.first.borrow().birth.is_none() {
            return Ok(now.since(self.started) >= self.timeout);
        }
        let born = self.born.get().unwrap_or(now);
        self.born.set(Some(born));
        Ok(now.since(born) >= DATA_MAX)
    }
}

/// The run that the broker has retained the birth of, which is the one before.
///
/// # Errors
/// The broker is not reached, in words.
pub(super) fn run_before(
    source: &MqttSource,
    node: &Node,
    clock: &Clock,
    stop: &Stop,
) -> anyhow::Result<Option<u64>> {
    let filters = filters(node);
    let mut connection = Connection::new(source, &filters)?;
    let (subscribed, trouble) = (connection.subscribed.clone(), connection.trouble.clone());
    let before = Cell::new(None);
    let listen = connection.listen(|publish| {
        if let Ok(Message::Birth(birth)) = wire::decode(&publish.payload)
            && birth.node == node.name
        {
            before.set(Some(birth.boot.0));
        }
        before.get().is_some()
    });
    let started = clock.now();
    let watch = async {
        let mut since = None;
        loop {
            tokio::time::sleep(POLL).await;
            let now = clock.now();
            if subscribed.get() {
                since.get_or_insert(now);
            }
            let is_quiet = since.is_some_and(|since| now.since(since) >= RETAINED_MAX);
            if is_quiet || stop.is_set() || now.since(started) >= REACHED_MAX {
                return Ok(());
            }
        }
    };
    block_on(listen, watch)?;
    if before.get().is_none() && !subscribed.get() {
        let trouble = trouble.borrow();
        let words = if trouble.is_empty() { "no answer" } else { trouble.as_str() };
        bail!("the broker {} is not reached: {words}", source.address);
    }
    Ok(before.get())
}

/// Topics that the node publishes its birth, status and data under.
fn filters(node: &Node) -> Vec<String> {
    let topic = |name: &str, what: &str| format!("spindle/v1/{}/{}/{name}/{what}", node.site, node.machine);
    let of_node = ["birth", "status"].iter().map(|what| topic(&node.name, what));
    let of_sensors =
        node.sensor.iter().flat_map(|sensor| ["raw", "features"].map(|what| topic(&sensor.name, what)));
    of_node.chain(of_sensors).collect()
}

/// Runs both until one has ended; the result of the first, if it was that.
fn block_on<T>(
    listen: impl Future<Output = anyhow::Result<T>>,
    watch: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Option<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot wait for the network")?.block_on(async {
        tokio::select! {
            ended = listen => ended.map(Some),
            over = watch => over.map(|()| None),
        }
    })
}

/// A client of a broker.
struct Connection<'a> {
    options: MqttOptions,
    tunnel: Option<Tunnel>,
    of_tunnel: Option<Trouble>,
    filters: &'a [String],
    address: String,
    subscribed: Rc<Cell<bool>>,
    trouble: Rc<RefCell<String>>,
    /// The tunnel's socket.
    _folder: Option<tempfile::TempDir>,
}

impl<'a> Connection<'a> {
    fn new(source: &MqttSource, filters: &'a [String]) -> anyhow::Result<Self> {
        let (host, port) = source.address.rsplit_once(':').context("broker: write HOST:PORT")?;
        let port: u16 = port.parse().with_context(|| format!("broker: `{port}` is no port"))?;
        let folder = source.tls.as_ref().map(|_| tempfile::tempdir()).transpose()?;
        let tunnel = match (&source.tls, &folder) {
            (Some(tls), Some(folder)) => Some(Tunnel::open(tls, &source.address, folder.path(), "flash")?),
            _ => None,
        };
        let id = source.client_id.clone().unwrap_or_default();
        let mut options = match &tunnel {
            Some(tunnel) => MqttOptions::new(id, tunnel.path(), port),
            None => MqttOptions::new(id, host, port),
        };
        if tunnel.is_some() {
            options.set_transport(Transport::Unix);
        }
        options.set_keep_alive(Duration::from_secs(10));
        options.set_clean_start(true);
        options.set_max_packet_size(u32::try_from(PACKET_LEN_MAX).ok());
        if let Some(user) = &source.username {
            let password = match &source.password_file {
                Some(path) => std::fs::read_to_string(path).with_context(|| path.display().to_string())?,
                None => String::new(),
            };
            options.set_credentials(user, password.trim_end_matches(['\n', '\r']));
        }
        Ok(Self {
            options,
            of_tunnel: tunnel.as_ref().map(Tunnel::trouble),
            tunnel,
            filters,
            address: source.address.clone(),
            subscribed: Rc::default(),
            trouble: Rc::default(),
            _folder: folder,
        })
    }

    /// Listens until `take` has enough; connects again as long as it has not.
    async fn listen(&mut self, take: impl FnMut(&Publish) -> bool) -> anyhow::Result<()> {
        let (client, events) = AsyncClient::new(self.options.clone(), 16);
        let Some(tunnel) = self.tunnel.take() else { return self.work(client, events, take).await };
        tokio::select! {
            ended = self.work(client, events, take) => ended,
            () = tunnel.run() => Ok(()),
        }
    }

    async fn work(
        &self,
        client: AsyncClient,
        mut events: EventLoop,
        mut take: impl FnMut(&Publish) -> bool,
    ) -> anyhow::Result<()> {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    self.trouble.replace(String::new());
                    let filters = self.filters.iter().map(|filter| Filter::new(filter, QoS::AtMostOnce));
                    client.try_subscribe_many(filters).context("cannot subscribe")?;
                }
                Ok(Event::Incoming(Packet::SubAck(ack))) => {
                    let is_refused =
                        |code: &SubscribeReasonCode| !matches!(code, SubscribeReasonCode::Success(_));
                    if ack.return_codes.iter().any(is_refused) {
                        bail!(
                            "the broker {} refuses to show the node's topics: use the gateway's login (--config or --credentials)",
                            self.address
                        );
                    }
                    self.subscribed.set(true);
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    if take(&publish) {
                        return Ok(());
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    // rumqttc has only seen a socket close; the tunnel knows why.
                    let words = self.of_tunnel.as_ref().and_then(Trouble::words);
                    self.trouble.replace(words.unwrap_or_else(|| error.to_string()));
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

/// What to look at when there was no birth.
pub(super) fn why_no_birth(place: &Place, node: &Node, is_emulated: bool, trouble: Option<&str>) -> String {
    use spindle_common::hardware::NodeLink;
    let trouble =
        trouble.map(|words| format!(" This command cannot read there: {words}.")).unwrap_or_default();
    match (&node.link, place) {
        (NodeLink::Ethernet { broker, .. }, Place::Broker(source)) => {
            let cable = if is_emulated { "" } else { "the supply and the network cable with its lights; " };
            format!(
                "looked at the broker {}.{trouble} Check: {cable}that the board reaches the broker (`broker` in its file is {broker}); \
                 user and password (--credentials when the broker wants them; its log says whom it refuses); that its access \
                 list lets {} publish; that no other board has this node's name",
                source.address, node.name
            )
        }
        (NodeLink::Serial { baud }, Place::Journal(folder)) => format!(
            "looked in the journal {}.{trouble} Check: that `spindle run` runs with this configuration; that its [[source.serial]] names the \
             board's device with baud = {baud}; the cable, transmit to receive",
            folder.display()
        ),
        _ => String::new(),
    }
}
