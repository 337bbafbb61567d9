//! As much of X.509 (RFC 5280) and PKCS#8 (RFC 5958) in DER as a node needs: certificates signed with ECDSA P-256 and SHA-256,
//! and keys of that curve. What is written otherwise is not understood, and so refused. The build reads its files with it too.

use core::net::Ipv4Addr;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// `[0]` around the version.
const VERSION: u8 = 0xA0;
/// `[1]` and `[2]`, unique ids that nobody writes any more.
const UNIQUE_IDS: [u8; 2] = [0x81, 0x82];
/// `[3]` around the extensions.
const EXTENSIONS: u8 = 0xA3;
/// `[7]`, an IP address among alternative names.
const IP_ADDRESS: u8 = 0x87;

/// ecdsa-with-SHA256, 1.2.840.10045.4.3.2 (RFC 5758), as a whole algorithm identifier's contents.
const ECDSA_SHA256: &[u8] = &[OBJECT_ID, 8, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02];
/// id-ecPublicKey on secp256r1 (RFC 5480): the same.
const EC_P256: &[u8] = &[
    OBJECT_ID, 7, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, OBJECT_ID, 8, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03,
    0x01, 0x07,
];
/// id-ce, 2.5.29: each extension that is looked at has one more byte.
const ID_CE: [u8; 2] = [0x55, 0x1D];
const KEY_USAGE: u8 = 15;
const ALTERNATIVE_NAMES: u8 = 17;
const BASIC_CONSTRAINTS: u8 = 19;
const EXTENDED_KEY_USAGE: u8 = 37;
/// id-kp-serverAuth, 1.3.6.1.5.5.7.3.1.
const SERVER_AUTH: &[u8] = &[0x2B, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
/// digitalSignature, the first bit of a key usage.
const DIGITAL_SIGNATURE: u8 = 0x80;

/// An uncompressed point of P-256 (SEC 1).
const POINT_LEN: usize = 65;
/// A private key of P-256.
const SCALAR_LEN: usize = 32;

/// One value after the other.
struct Reader<'a>(&'a [u8]);

struct Value<'a> {
    tag: u8,
    /// With tag and length.
    whole: &'a [u8],
    content: &'a [u8],
}

impl<'a> Reader<'a> {
    fn value(&mut self) -> Option<Value<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7F => (usize::from(first), rest),
            0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
            0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), rest.get(2..)?),
            _ => return None,
        };
        let content = rest.get(..len)?;
        let after = rest.get(len..)?;
        let whole = self.0.get(..self.0.len() - after.len())?;
        self.0 = after;
        Some(Value { tag, whole, content })
    }

    /// The next value, which must have this tag.
    fn take(&mut self, tag: u8) -> Option<Value<'a>> {
        self.value().filter(|value| value.tag == tag)
    }

    /// The next value's contents, if it has one of these tags; else nothing is taken.
    fn optional(&mut self, tags: &[u8]) -> Option<&'a [u8]> {
        let next = self.0.first()?;
        if tags.contains(next) { Some(self.value()?.content) } else { None }
    }
}

/// The contents of the one value that `bytes` are.
fn only(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let mut reader = Reader(bytes);
    let value = reader.take(tag)?;
    reader.0.is_empty().then_some(value.content)
}

/// A bit string of whole bytes.
fn bits(content: &[u8]) -> Option<&[u8]> {
    content.strip_prefix(&[0])
}

/// What is of interest in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Certificate<'a> {
    /// What is signed.
    pub(crate) signed: &'a [u8],
    /// The signature: ECDSA P-256 over SHA-256, in DER.
    pub(crate) signature: &'a [u8],
    /// The owner's key: a point of P-256, uncompressed.
    pub(crate) public_key: &'a [u8],
    extensions: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Takes a certificate apart. `None` when it is none, or of another kind.
    pub(crate) fn parse(der: &'a [u8]) -> Option<Self> {
        let mut certificate = Reader(only(der, SEQUENCE)?);
        let signed = certificate.take(SEQUENCE)?;
        let algorithm = certificate.take(SEQUENCE)?.content;
        let signature = bits(certificate.take(BIT_STRING)?.content)?;
        let mut fields = Reader(signed.content);
        fields.optional(&[VERSION]);
        fields.take(INTEGER)?;
        let algorithm_signed = fields.take(SEQUENCE)?.content;
        let _issuer = fields.take(SEQUENCE)?;
        let _validity = fields.take(SEQUENCE)?;
        let _subject = fields.take(SEQUENCE)?;
        let mut key = Reader(fields.take(SEQUENCE)?.content);
        let key_algorithm = key.take(SEQUENCE)?.content;
        let public_key = bits(key.take(BIT_STRING)?.content)?;
        while fields.optional(&UNIQUE_IDS).is_some() {}
        let extensions = match fields.optional(&[EXTENSIONS]) {
            Some(extensions) => only(extensions, SEQUENCE)?,
            None => &[],
        };
        let is_known = algorithm == ECDSA_SHA256 && algorithm_signed == ECDSA_SHA256;
        let is_p256 = key_algorithm == EC_P256 && public_key.len() == POINT_LEN;
        let is_whole = certificate.0.is_empty() && fields.0.is_empty();
        (is_known && is_p256 && is_whole).then_some(Self {
            signed: signed.whole,
            signature,
            public_key,
            extensions,
        })
    }

    /// Whether its owner may be a server, as far as the certificate says what it is for.
    pub(crate) fn is_for_servers(&self) -> bool {
        let mut extensions = Reader(self.extensions);
        while !extensions.0.is_empty() {
            let Some(extension) = Extension::next(&mut extensions) else { return false };
            let is_fine = match extension.id {
                Some(KEY_USAGE) => only(extension.value, BIT_STRING)
                    .and_then(|bits| bits.get(1))
                    .is_some_and(|first| first & DIGITAL_SIGNATURE != 0),
                Some(EXTENDED_KEY_USAGE) => {
                    let mut purposes = Reader(only(extension.value, SEQUENCE).unwrap_or_default());
                    core::iter::from_fn(|| purposes.take(OBJECT_ID))
                        .any(|purpose| purpose.content == SERVER_AUTH)
                }
                Some(ALTERNATIVE_NAMES | BASIC_CONSTRAINTS) => true,
                _ => !extension.is_critical,
            };
            if !is_fine {
                return false;
            }
        }
        true
    }

    /// Whether its owner has this address. The common name does not count.
    pub(crate) fn is_of(&self, address: Ipv4Addr) -> bool {
        let mut extensions = Reader(self.extensions);
        let mut names = core::iter::from_fn(|| Extension::next(&mut extensions))
            .filter(|extension| extension.id == Some(ALTERNATIVE_NAMES))
            .filter_map(|extension| only(extension.value, SEQUENCE));
        names.any(|names| {
            let mut names = Reader(names);
            core::iter::from_fn(|| names.value())
                .any(|name| name.tag == IP_ADDRESS && name.content == address.octets())
        })
    }
}

struct Extension<'a> {
    /// The last byte of an id in id-ce.
    id: Option<u8>,
    is_critical: bool,
    value: &'a [u8],
}

impl<'a> Extension<'a> {
    fn next(extensions: &mut Reader<'a>) -> Option<Self> {
        let mut fields = Reader(extensions.take(SEQUENCE)?.content);
        let id = match fields.take(OBJECT_ID)?.content {
            [a, b, id] if [*a, *b] == ID_CE => Some(*id),
            _ => None,
        };
        let is_critical = fields.optional(&[BOOLEAN]).is_some_and(|value| value != [0]);
        let value = fields.take(OCTET_STRING)?.content;
        fields.0.is_empty().then_some(Self { id, is_critical, value })
    }
}

/// The key in PKCS#8: a number of 32 bytes. `None` when it is none of P-256.
pub(crate) fn private_key(der: &[u8]) -> Option<&[u8]> {
    let mut fields = Reader(only(der, SEQUENCE)?);
    fields.take(INTEGER)?;
    let is_p256 = fields.take(SEQUENCE)?.content == EC_P256;
    // SEC 1: ECPrivateKey.
    let mut key = Reader(only(fields.take(OCTET_STRING)?.content, SEQUENCE)?);
    key.take(INTEGER)?;
    let scalar = key.take(OCTET_STRING)?.content;
    (is_p256 && scalar.len() == SCALAR_LEN).then_some(scalar)
}
