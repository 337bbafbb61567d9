//! MQTT packets as a server needs them: 3.1.1 and 5 in one set of types. Reading borrows from the buffer and allocates
//! nothing; it checks all lengths, the UTF-8 of topics and each property that a server must not be sent.
//! OASIS: MQTT Version 3.1.1 (2014), MQTT Version 5.0 (2019); sections of the latter are given.

/// Protocol version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// 3.1.1, protocol level 4.
    V3,
    /// 5, protocol level 5.
    V5,
}

/// Quality of service that the listener grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Qos {
    AtMostOnce,
    AtLeastOnce,
}

/// Why a connection is ended by the listener. The text goes to the log, to a client of MQTT 5 as the reason string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    #[error("a packet of {len} bytes is larger than {max}")]
    TooLarge { len: usize, max: usize },
    #[error("QoS 2 is not supported: publish with QoS 0 or 1")]
    QosTwo,
    #[error("protocol level {0} is not supported: use MQTT 3.1.1 or 5")]
    Version(u8),
    #[error("enhanced authentication is not supported")]
    Authentication,
    #[error("MQTT 3.1.1 allows an empty client id only with a clean session")]
    ClientId,
    #[error("too many clients: {0}")]
    Clients(usize),
    #[error("nothing heard for 1.5 times the keep-alive")]
    KeepAlive,
    #[error("another client came with the same id")]
    TakenOver,
    #[error("the gateway stops")]
    Stopping,
    #[error("no CONNECT in time")]
    Silent,
}

impl Refusal {
    /// Reason code of MQTT 5 (2.4), for CONNACK and DISCONNECT.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Malformed(_) => 0x81,
            Self::Protocol(_) | Self::Silent => 0x82,
            Self::Version(_) => 0x84,
            Self::ClientId => 0x85,
            Self::Clients(_) => 0x97,
            Self::Stopping => 0x8B,
            Self::Authentication => 0x8C,
            Self::KeepAlive => 0x8D,
            Self::TakenOver => 0x8E,
            Self::TooLarge { .. } => 0x95,
            Self::QosTwo => 0x9B,
        }
    }

    /// Return code of CONNACK in MQTT 3.1.1 (3.2.2.3).
    pub(super) const fn code_v3(self) -> u8 {
        match self {
            Self::Version(_) => 1,
            Self::ClientId => 2,
            _ => 3,
        }
    }
}

/// A packet from a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    Connect(Box<Connect<'a>>),
    Publish(Publish<'a>),
    /// A client's acknowledgement, with the packet id.
    PubAck(u16),
    Subscribe(u16, Filters<'a>),
    Unsubscribe(u16, Filters<'a>),
    PingReq,
    /// `will`: the client wants its last will published all the same (MQTT 5).
    Disconnect {
        will: bool,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Connect<'a> {
    pub(super) version: Version,
    pub(super) clean: bool,
    /// Seconds; 0 switches it off.
    pub(super) keep_alive: u16,
    pub(super) client_id: &'a str,
    pub(super) will: Option<Publish<'a>>,
    /// Messages of QoS 1 that the client takes at a time.
    pub(super) receive_max: u16,
    /// Largest packet that the client takes.
    pub(super) packet_len_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publish<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a [u8],
    /// Properties of MQTT 5 as they stand on the wire, without their length: they go on to subscribers unchanged, which
    /// is right because those that hold for one connection only (alias, subscription id) are not let in.
    pub(super) properties: &'a [u8],
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) duplicate: bool,
    /// 0 with QoS 0.
    pub(super) id: u16,
}

/// Filters of a SUBSCRIBE or UNSUBSCRIBE, not yet read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filters<'a> {
    rest: Reader<'a>,
    /// Whether an options byte follows each.
    options: bool,
}

impl<'a> Filters<'a> {
    /// The next filter and its options (bits: 0-1 QoS, 2 no local, 3 retain as published, 4-5 retain handling).
    pub(super) fn next(&mut self) -> Result<Option<(&'a str, u8)>, Refusal> {
        if self.rest.0.is_empty() {
            return Ok(None);
        }
        let filter = self.rest.text()?;
        let options = if self.options { self.rest.u8()? } else { 0 };
        if options & 3 == 3 {
            return Err(Refusal::Malformed("a subscription's QoS is 3"));
        }
        Ok(Some((filter, options)))
    }
}

/// Where a packet lies in a buffer: first byte and body's place. `None` when more bytes are needed.
pub(super) fn frame(buffer: &[u8], len_max: usize) -> Result<Option<(u8, std::ops::Range<usize>)>, Refusal> {
    let Some(&first) = buffer.first() else { return Ok(None) };
    let mut len = 0;
    for index in 0..4 {
        let Some(&byte) = buffer.get(1 + index) else { return Ok(None) };
        len |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let start = index + 2;
            if start + len > len_max {
                return Err(Refusal::TooLarge { len: start + len, max: len_max });
            }
            return Ok((buffer.len() >= start + len).then_some((first, start..start + len)));
        }
    }
    Err(Refusal::Malformed("length of more than four bytes"))
}

/// Reads a packet from its first byte and its body.
pub(super) fn decode(version: Version, first: u8, body: &[u8]) -> Result<Packet<'_>, Refusal> {
    let mut reader = Reader(body);
    if first >> 4 != 3 && first & 0xF != expected_flags(first >> 4) {
        return Err(Refusal::Malformed("flags of the fixed header"));
    }
    Ok(match first >> 4 {
        1 => Packet::Connect(Box::new(connect(reader)?)),
        3 => Packet::Publish(publish(version, first, reader)?),
        4 => Packet::PubAck(reader.id()?),
        kind @ (8 | 10) => {
            let id = reader.id()?;
            if version == Version::V5 {
                let mut properties = reader.properties()?;
                while let Some((property, _)) = properties.property()? {
                    if property == 0x0B {
                        return Err(Refusal::Protocol("subscription identifiers are not supported"));
                    }
                }
            }
            let filters = Filters { rest: reader, options: kind == 8 };
            if filters.rest.0.is_empty() {
                return Err(Refusal::Protocol("no topic filter"));
            }
            if kind == 8 { Packet::Subscribe(id, filters) } else { Packet::Unsubscribe(id, filters) }
        }
        12 => Packet::PingReq,
        14 => Packet::Disconnect { will: version == Version::V5 && reader.0.first() == Some(&4) },
        5..=7 => return Err(Refusal::QosTwo),
        15 => return Err(Refusal::Authentication),
        _ => return Err(Refusal::Protocol("a packet that only servers send")),
    })
}

const fn expected_flags(kind: u8) -> u8 {
    // PUBREL, SUBSCRIBE, UNSUBSCRIBE (2.1.3).
    if matches!(kind, 6 | 8 | 10) { 2 } else { 0 }
}

fn connect(mut reader: Reader<'_>) -> Result<Connect<'_>, Refusal> {
    let name = reader.bytes()?;
    let level = reader.u8()?;
    let version = match (name, level) {
        (b"MQTT", 4) => Version::V3,
        (b"MQTT", 5) => Version::V5,
        (b"MQTT" | b"MQIsdp", other) => return Err(Refusal::Version(other)),
        _ => return Err(Refusal::Malformed("the protocol's name is not MQTT")),
    };
    let flags = reader.u8()?;
    if flags & 1 != 0 || flags >> 3 & 3 == 3 || (flags & 4 == 0 && flags & 0x38 != 0) {
        return Err(Refusal::Malformed("flags of CONNECT"));
    }
    let keep_alive = reader.u16()?;
    let (mut receive_max, mut packet_len_max) = (u16::MAX, usize::MAX);
    if version == Version::V5 {
        let mut properties = reader.properties()?;
        while let Some((property, value)) = properties.property()? {
            match (property, value) {
                (0x15 | 0x16, _) => return Err(Refusal::Authentication),
                (0x21 | 0x27, 0) => return Err(Refusal::Protocol("a maximum of 0")),
                (0x21, value) => receive_max = u16::try_from(value).unwrap_or(u16::MAX),
                (0x27, value) => packet_len_max = usize::try_from(value).unwrap_or(usize::MAX),
                _ => {}
            }
        }
    }
    let client_id = reader.text()?;
    let will = if flags & 4 == 0 { None } else { Some(will(version, flags, &mut reader)?) };
    // User name and password are not asked for, but must be well-formed.
    if flags & 0x80 != 0 {
        reader.text()?;
    }
    if flags & 0x40 != 0 {
        reader.bytes()?;
    }
    let clean = flags & 2 != 0;
    Ok(Connect { version, clean, keep_alive, client_id, will, receive_max, packet_len_max })
}

fn will<'a>(version: Version, flags: u8, reader: &mut Reader<'a>) -> Result<Publish<'a>, Refusal> {
    // A will of QoS 2 is published with 1. Its own properties are read and left: the delay is over when the connection
    // is, because no session outlives it, and nobody asked for the others yet.
    if version == Version::V5 {
        let mut properties = reader.properties()?;
        while properties.property()?.is_some() {}
    }
    let topic = topic(reader.text()?)?;
    let payload = reader.bytes()?;
    let qos = if flags & 0x18 == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce };
    let retain = flags & 0x20 != 0;
    Ok(Publish { topic, payload, properties: &[], qos, retain, duplicate: false, id: 0 })
}

fn publish(version: Version, first: u8, mut reader: Reader<'_>) -> Result<Publish<'_>, Refusal> {
    let qos = match first >> 1 & 3 {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        2 => return Err(Refusal::QosTwo),
        _ => return Err(Refusal::Malformed("a message's QoS is 3")),
    };
    let topic = topic(reader.text()?)?;
    let id = if qos == Qos::AtMostOnce { 0 } else { reader.id()? };
    let mut properties: &[u8] = &[];
    if version == Version::V5 {
        let mut all = reader.properties()?;
        properties = all.0;
        while let Some((property, _)) = all.property()? {
            if property == 0x23 || property == 0x0B {
                return Err(Refusal::Protocol("topic alias or subscription id, which were not offered"));
            }
        }
    }
    let (retain, duplicate) = (first & 1 != 0, first & 8 != 0);
    Ok(Publish { topic, payload: reader.0, properties, qos, retain, duplicate, id })
}

fn topic(topic: &str) -> Result<&str, Refusal> {
    if topic.is_empty() || topic.contains(['+', '#']) {
        return Err(Refusal::Protocol("a topic that is empty or has wildcards"));
    }
    Ok(topic)
}

/// Bytes still to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Refusal::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, len: usize) -> Result<u32, Refusal> {
        Ok(self.take(len)?.iter().fold(0, |number, &byte| number << 8 | u32::from(byte)))
    }

    fn u8(&mut self) -> Result<u8, Refusal> {
        Ok(self.number(1)? as u8)
    }

    fn u16(&mut self) -> Result<u16, Refusal> {
        Ok(self.number(2)? as u16)
    }

    fn id(&mut self) -> Result<u16, Refusal> {
        match self.u16()? {
            0 => Err(Refusal::Protocol("packet id 0")),
            id => Ok(id),
        }
    }

    fn variable(&mut self) -> Result<u32, Refusal> {
        let mut number = 0;
        for index in 0..4 {
            let byte = self.u8()?;
            number |= u32::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Refusal::Malformed("a number of more than four bytes"))
    }

    fn bytes(&mut self) -> Result<&'a [u8], Refusal> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    fn text(&mut self) -> Result<&'a str, Refusal> {
        let text =
            std::str::from_utf8(self.bytes()?).map_err(|_| Refusal::Malformed("text that is not UTF-8"))?;
        if text.contains('\0') {
            return Err(Refusal::Malformed("text with a NUL"));
        }
        Ok(text)
    }

    fn properties(&mut self) -> Result<Self, Refusal> {
        let len = self.variable()?;
        Ok(Self(self.take(len as usize)?))
    }

    /// The next property's id and its value if that is a number (2.2.2.2).
    fn property(&mut self) -> Result<Option<(u32, u32)>, Refusal> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let property = self.variable()?;
        let value = match property {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => self.number(1)?,
            0x13 | 0x21 | 0x22 | 0x23 => self.number(2)?,
            0x02 | 0x11 | 0x18 | 0x27 => self.number(4)?,
            0x0B => self.variable()?,
            0x03 | 0x08 | 0x12 | 0x15 | 0x1A | 0x1C | 0x1F => self.text().map(|_| 0)?,
            0x09 | 0x16 => self.bytes().map(|_| 0)?,
            0x26 => self.text().and_then(|_| self.text()).map(|_| 0)?,
            _ => return Err(Refusal::Malformed("an unknown property")),
        };
        Ok(Some((property, value)))
    }
}
