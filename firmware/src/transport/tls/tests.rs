//! Which certificates are believed; they are made by rcgen, as those of `spindle provision` are.

use super::der::{Certificate, private_key};
use super::verify::{Distrust, Identity};
use crate::config::TlsFiles;
use core::net::Ipv4Addr;
use embedded_tls::{CertificateEntryRef, CertificateRef, TlsVerifier as _};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519,
};
use sha2::{Digest as _, Sha256};
use std::vec::Vec;

const BROKER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

struct Authority {
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "a site's authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { der, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, params: &CertificateParams) -> (Vec<u8>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().der().to_vec(), key)
    }
}

fn server(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_string()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, "10.0.2.2");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// What comes of it when a broker shows these certificates.
fn shown(authority: &Authority, chain: &[&[u8]]) -> Result<(), Distrust> {
    let node = KeyPair::generate().unwrap();
    let leak = |bytes: &[u8]| -> &'static [u8] { bytes.to_vec().leak() };
    let files =
        TlsFiles { ca_der: leak(&authority.der), cert_der: &[], key_der: leak(&node.serialize_der()) };
    let mut fill = |_: &mut [u8]| ();
    let mut identity = Identity::new(&files, BROKER, &mut fill).unwrap();
    let mut certificates = CertificateRef::with_context(&[]);
    for der in chain {
        certificates.add(CertificateEntryRef::X509(der)).unwrap();
    }
    let result = identity.verifier.verify_certificate(&Sha256::new(), certificates);
    let satisfied = identity.verifier.is_satisfied();
    // A certificate alone proves nothing: the key's signature must follow.
    assert_eq!(result.is_ok(), satisfied == Err(Distrust::Unproved) && !chain.is_empty());
    if result.is_ok() { Ok(()) } else { satisfied }
}

#[test]
fn a_server_of_the_site_at_its_own_address_is_believed_and_no_other() {
    let (site, stranger) = (Authority::new(), Authority::new());
    let good = server(&["broker.plant", "192.168.1.10", "10.0.2.2"]);
    let mut client = good.clone();
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let mut signing = good.clone();
    signing.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let mut strange = good.clone();
    let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    extension.set_criticality(true);
    strange.custom_extensions = vec![extension];
    let mut silent = good.clone();
    silent.extended_key_usages.clear();
    silent.key_usages.clear();
    let elsewhere = server(&["10.0.2.3", "broker.plant"]);
    for (params, expected) in [
        (&good, Ok(())),
        (&silent, Ok(())),
        (&client, Err(Distrust::Purpose)),
        (&signing, Err(Distrust::Purpose)),
        (&strange, Err(Distrust::Purpose)),
        // Its common name is the address, and does not count.
        (&elsewhere, Err(Distrust::Address)),
        (&server(&[]), Err(Distrust::Address)),
    ] {
        let (der, _) = site.sign(params);
        assert_eq!(shown(&site, &[&der]), expected, "{params:?}");
        assert_eq!(shown(&site, &[&der, &site.der]), expected);
    }
    let (forged, _) = stranger.sign(&good);
    assert_eq!(shown(&site, &[&forged]), Err(Distrust::Authority));
    assert_eq!(shown(&site, &[&forged, &stranger.der]), Err(Distrust::Authority));
    assert_eq!(shown(&site, &[]), Err(Distrust::Unproved));
}

#[test]
fn a_node_cannot_vouch_for_a_server_with_its_own_certificate() {
    let site = Authority::new();
    let mut node = CertificateParams::default();
    node.distinguished_name.push(DnType::CommonName, "node");
    let (node_der, node_key) = site.sign(&node);
    let key = KeyPair::generate().unwrap();
    let forged = server(&["10.0.2.2"]).signed_by(&key, &Issuer::new(node, node_key)).unwrap();
    assert_eq!(shown(&site, &[forged.der(), &node_der, &site.der]), Err(Distrust::Authority));
}

#[test]
fn damaged_certificates_and_keys_of_other_kinds_are_refused() {
    let site = Authority::new();
    let (der, key) = site.sign(&server(&["10.0.2.2"]));
    for len in 0..der.len() {
        assert_eq!(Certificate::parse(&der[..len]), None, "{len}");
    }
    for index in 0..der.len() {
        let mut damaged = der.clone();
        damaged[index] ^= 1;
        assert!(shown(&site, &[&damaged]).is_err(), "{index}");
    }
    let key_der = key.serialize_der();
    assert_eq!(private_key(&key_der).map(<[u8]>::len), Some(32));
    for len in 0..key_der.len() {
        assert_eq!(private_key(&key_der[..len]), None, "{len}");
    }
    let edwards = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    assert_eq!(private_key(&edwards.serialize_der()), None);
    let other = server(&["10.0.2.2"]).signed_by(&edwards, &site.issuer).unwrap();
    assert_eq!(shown(&site, &[other.der()]), Err(Distrust::Kind));
}
