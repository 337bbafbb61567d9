//! The site's certificate authority, and what it has signed: `issued.txt` lists each certificate's serial number, so that those
//! of a rotated or withdrawn name can be revoked.

use super::folder::Folder;
use super::password::random;
use crate::source::tls::provider;
use anyhow::{Context as _, bail, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier as _;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, sign::CertifiedKey};

const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";
const ISSUED: &str = "issued.txt";
const SERIAL_LEN: usize = 16;
/// How long authority, certificates and revocation list are good for. Boards do not fetch new ones by themselves.
const YEARS: i16 = 10;
/// A certificate that ends sooner is made anew.
const RENEWAL: Duration = Duration::from_secs(60 * 24 * 3600);

/// What a certificate is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose<'a> {
    /// Logging in at the broker.
    Client,
    /// Being the broker, under all of these names and addresses.
    Server(&'a [String]),
}

/// A certificate and its key, both in PEM.
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Pair {
    /// The certificate in DER.
    pub(super) fn certificate_der(&self) -> anyhow::Result<CertificateDer<'static>> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).context("the certificate is no PEM")
    }

    /// The key in DER: PKCS#8.
    pub(super) fn key_der(&self) -> anyhow::Result<PrivateKeyDer<'static>> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).context("the key is no PEM")
    }
}

/// Whether a certificate still counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Revoked,
}

/// The authority.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    now: jiff::Timestamp,
    roots: Arc<RootCertStore>,
    /// Serial number in hex: whose, and whether it counts.
    issued: BTreeMap<String, (String, State)>,
    /// Whether this run has made it.
    pub(super) is_new: bool,
}

impl Authority {
    /// The one in `folder`; makes it when there is none.
    pub(super) fn open(folder: &Folder, now: jiff::Timestamp) -> anyhow::Result<Self> {
        let place = folder.path().display();
        let (pair, is_new) = match (folder.read(CERTIFICATE)?, folder.read(KEY)?) {
            (Some(certificate), Some(key)) => (Pair { certificate, key }, false),
            (None, None) => (create(now)?, true),
            // Its key is written first: so far nothing has been signed.
            (None, Some(_)) if folder.read(ISSUED)?.is_none() => (create(now)?, true),
            (there, _) => {
                let missing = if there.is_some() { KEY } else { CERTIFICATE };
                bail!("{place} has lost {missing}: restore it, or begin in another folder");
            }
        };
        let certificate_der = pair.certificate_der().with_context(|| format!("{place}/{CERTIFICATE}"))?;
        let key_der = pair.key_der().with_context(|| format!("{place}/{KEY}"))?;
        CertifiedKey::from_der(vec![certificate_der.clone()], key_der, &provider())
            .with_context(|| format!("{KEY} and {CERTIFICATE} in {place} do not belong together"))?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate_der).with_context(|| format!("{place}/{CERTIFICATE}"))?;
        let key = KeyPair::from_pem(&pair.key).with_context(|| format!("{place}/{KEY}"))?;
        let issuer = Issuer::new(params_of_authority(&key, now)?, key);
        let issued = parse_issued(&folder.read(ISSUED)?.unwrap_or_default())
            .with_context(|| format!("{place}/{ISSUED}"))?;
        if is_new {
            folder.write(KEY, &pair.key)?;
            folder.write(CERTIFICATE, &pair.certificate)?;
        }
        Ok(Self { issuer, certificate: pair.certificate, now, roots: Arc::new(roots), issued, is_new })
    }

    /// Its certificate in PEM.
    pub(super) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its certificate in DER.
    pub(super) fn certificate_der(&self) -> anyhow::Result<CertificateDer<'static>> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).context(CERTIFICATE)
    }

    /// Signs a certificate for a new key; its serial number is on disk before it is handed out.
    pub(super) fn issue(
        &mut self,
        folder: &Folder,
        name: &str,
        purpose: Purpose<'_>,
    ) -> anyhow::Result<Pair> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let names = match purpose {
            Purpose::Client => Vec::new(),
            Purpose::Server(names) => names.to_vec(),
        };
        let mut serial = random::<SERIAL_LEN>()?;
        // A positive number of the full length, whatever was drawn.
        serial[0] = serial[0] & 0x3f | 0x40;
        let mut params = valid_from(self.now)?;
        let names = CertificateParams::new(names).context("names of the certificate")?;
        params.subject_alt_names = names.subject_alt_names;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name.push(DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match purpose {
            Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Purpose::Server(_) => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        let certificate = params.signed_by(&key, &self.issuer).context("cannot sign a certificate")?;
        let hex = serial.iter().map(|byte| format!("{byte:02x}")).collect();
        self.issued.insert(hex, (name.to_owned(), State::Good));
        self.write_issued(folder)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Revokes what was signed for `name`; says whether there was anything.
    pub(super) fn revoke(&mut self, folder: &Folder, name: &str) -> anyhow::Result<bool> {
        let good = |entry: &&mut (String, State)| entry.0 == name && entry.1 == State::Good;
        let revoked = self.issued.values_mut().filter(good).map(|entry| entry.1 = State::Revoked).count();
        self.write_issued(folder)?;
        Ok(revoked > 0)
    }

    /// The list of revoked certificates in PEM, new each time.
    pub(super) fn revocations(&self) -> anyhow::Result<String> {
        let valid = valid_from(self.now)?;
        let revoked = self.issued.iter().filter(|(_, (_, state))| *state == State::Revoked);
        let revoked_certs = revoked
            .map(|(serial, _)| RevokedCertParams {
                serial_number: SerialNumber::from_slice(&bytes_of(serial).unwrap_or_default()),
                revocation_time: valid.not_before,
                reason_code: None,
                invalidity_date: None,
            })
            .collect();
        let params = CertificateRevocationListParams {
            this_update: valid.not_before,
            next_update: valid.not_after,
            crl_number: SerialNumber::from_slice(&self.now.as_second().to_be_bytes()),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).context("cannot sign the revocation list")?;
        list.pem().context("cannot write the revocation list")
    }

    /// Why a certificate and key cannot stay, in words.
    pub(super) fn trouble_with(&self, pair: &Pair, purpose: Purpose<'_>) -> Option<String> {
        self.try_use(pair, purpose).err().map(|error| format!("{error:#}"))
    }

    fn try_use(&self, pair: &Pair, purpose: Purpose<'_>) -> anyhow::Result<()> {
        let certificate = pair.certificate_der()?;
        CertifiedKey::from_der(vec![certificate.clone()], pair.key_der()?, &provider())?;
        ensure!(!self.is_revoked(&certificate), "is revoked");
        let since = Duration::from_secs(u64::try_from(self.now.as_second())?);
        let then = UnixTime::since_unix_epoch(since + RENEWAL);
        match purpose {
            Purpose::Client => {
                let builder = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider());
                builder.build()?.verify_client_cert(&certificate, &[], then)?;
            }
            Purpose::Server(names) => {
                let builder = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider());
                let verifier = builder.build()?;
                for name in names {
                    let name = ServerName::try_from(name.as_str())?;
                    verifier.verify_server_cert(&certificate, &[], &name, &[], then)?;
                }
            }
        }
        Ok(())
    }

    /// Whether a revoked serial number stands in it; 16 random bytes stand nowhere else.
    fn is_revoked(&self, certificate: &[u8]) -> bool {
        let revoked = self.issued.iter().filter(|(_, (_, state))| *state == State::Revoked);
        let mut serials = revoked.filter_map(|(serial, _)| bytes_of(serial));
        serials.any(|serial| certificate.windows(SERIAL_LEN).any(|part| part == serial))
    }

    fn write_issued(&self, folder: &Folder) -> anyhow::Result<()> {
        let mut text =
            String::from("# Certificates that this authority has signed: serial number, name, state.\n");
        for (serial, (name, state)) in &self.issued {
            let state = if *state == State::Good { "good" } else { "revoked" };
            text.push_str(&format!("{serial} {name} {state}\n"));
        }
        folder.write(ISSUED, text)
    }
}

fn create(now: jiff::Timestamp) -> anyhow::Result<Pair> {
    let key = KeyPair::generate().context("cannot make the authority's key")?;
    let certificate =
        params_of_authority(&key, now)?.self_signed(&key).context("cannot sign the authority")?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// All but the validity follows from the key, so the issuer's name need not be read out of the certificate.
fn params_of_authority(key: &KeyPair, now: jiff::Timestamp) -> anyhow::Result<CertificateParams> {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.public_key_raw());
    let id: String = digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut params = valid_from(now)?;
    params.distinguished_name.push(DnType::CommonName, format!("Spindle site authority {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// A nameless certificate's parameters, valid from the day before, for clocks differ, to [`YEARS`] later.
fn valid_from(now: jiff::Timestamp) -> anyhow::Result<CertificateParams> {
    let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
    let first = today.yesterday().context("the clock is far off")?;
    let last = today.checked_add(jiff::Span::new().years(YEARS)).context("the clock is far off")?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (moment, date) in [(&mut params.not_before, first), (&mut params.not_after, last)] {
        let (month, day) = (u8::try_from(date.month())?, u8::try_from(date.day())?);
        *moment = rcgen::date_time_ymd(date.year().into(), month, day);
    }
    Ok(params)
}

fn parse_issued(text: &str) -> anyhow::Result<BTreeMap<String, (String, State)>> {
    let mut issued = BTreeMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        let entry = match fields[..] {
            [serial, name, "good"] if bytes_of(serial).is_some() => (serial, name, State::Good),
            [serial, name, "revoked"] if bytes_of(serial).is_some() => (serial, name, State::Revoked),
            _ => bail!("line {}: is not a serial number, a name and a state", index + 1),
        };
        issued.insert(entry.0.to_owned(), (entry.1.to_owned(), entry.2));
    }
    Ok(issued)
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digits =
        hex.bytes().map(|digit| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()));
    let digits = digits.collect::<Option<Vec<u8>>>().filter(|digits| digits.len() == 2 * SERIAL_LEN)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
