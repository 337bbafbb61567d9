//! Who the broker must be, and who the node is.
//!
//! embedded-tls leaves it to this module whether a broker is believed: it also takes a handshake in which the server shows no
//! certificate at all, so after each handshake [`Verifier::is_satisfied`] must be asked.

use super::der::{Certificate, private_key};
use crate::config::TlsFiles;
use core::net::Ipv4Addr;
use embedded_tls::{
    Aes128GcmSha256, Certificate as Shown, CertificateEntryRef, CertificateRef, CertificateVerifyRef,
    CryptoProvider, SignatureScheme, TlsError, TlsVerifier,
};
use p256::ecdsa::signature::{SignerMut, Verifier as _};
use p256::ecdsa::{DerSignature, SigningKey, VerifyingKey};
use p256::elliptic_curve::rand_core::{CryptoRng, CryptoRngCore, Error as RngError, RngCore};
use sha2::{Digest as _, Sha256};

/// The cipher suite; every TLS 1.3 server has it (RFC 8446, 9.1).
pub(super) type Suite = Aes128GcmSha256;

/// Why a broker is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// It showed no certificate, or did not prove that it has the key.
    #[error("it has not proved who it is")]
    Unproved,
    /// Not ECDSA P-256 with SHA-256, or no certificate.
    #[error("its certificate is not of a kind that this node understands: ECDSA P-256 with SHA-256")]
    Kind,
    /// Signed by somebody else.
    #[error("its certificate is not signed by this site's authority")]
    Authority,
    /// Such as another node's.
    #[error("its certificate is not one for servers")]
    Purpose,
    /// Another machine's.
    #[error("its certificate is not for the address that was dialled")]
    Address,
    /// It has not the certificate's key.
    #[error("its signature is wrong")]
    Signature,
}

/// Decides about one handshake.
pub(super) struct Verifier {
    authority: VerifyingKey,
    address: Ipv4Addr,
    state: State,
}

enum State {
    Start,
    /// A certificate that is believed: its key, and the transcript up to it.
    Shown {
        key: VerifyingKey,
        transcript: Sha256,
    },
    Proved,
    Refused(Distrust),
}

impl Verifier {
    /// Why the broker is not believed, if so. To be asked when the handshake has ended, however it ended.
    pub(super) const fn is_satisfied(&self) -> Result<(), Distrust> {
        match self.state {
            State::Proved => Ok(()),
            State::Refused(distrust) => Err(distrust),
            State::Start | State::Shown { .. } => Err(Distrust::Unproved),
        }
    }

    fn look_at(&self, shown: &CertificateRef<'_>) -> Result<VerifyingKey, Distrust> {
        // The authority signs what servers show itself: others in the chain, such as its own certificate, change nothing.
        let Some(CertificateEntryRef::X509(der)) = shown.entries.first() else {
            return Err(Distrust::Unproved);
        };
        let certificate = Certificate::parse(der).ok_or(Distrust::Kind)?;
        let signature = DerSignature::from_bytes(certificate.signature).map_err(|_| Distrust::Kind)?;
        self.authority.verify(certificate.signed, &signature).map_err(|_| Distrust::Authority)?;
        if !certificate.is_for_servers() {
            return Err(Distrust::Purpose);
        }
        if !certificate.is_of(self.address) {
            return Err(Distrust::Address);
        }
        VerifyingKey::from_sec1_bytes(certificate.public_key).map_err(|_| Distrust::Kind)
    }

    fn prove(&mut self, verify: &CertificateVerifyRef<'_>) -> Result<(), Distrust> {
        let State::Shown { key, transcript } = &self.state else { return Err(Distrust::Unproved) };
        if verify.signature_scheme != SignatureScheme::EcdsaSecp256r1Sha256 {
            return Err(Distrust::Kind);
        }
        let signature = DerSignature::from_bytes(verify.signature).map_err(|_| Distrust::Kind)?;
        // RFC 8446, 4.4.3.
        const PREFIX: &[u8; 98] = &{
            let text = b"TLS 1.3, server CertificateVerify\0";
            let mut prefix = [0x20; 98];
            let mut index = 0;
            while index < text.len() {
                prefix[64 + index] = text[index];
                index += 1;
            }
            prefix
        };
        let mut message = [0; 98 + 32];
        let (prefix, hash) = message.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(PREFIX);
        hash.copy_from_slice(&transcript.clone().finalize());
        key.verify(&message, &signature).map_err(|_| Distrust::Signature)
    }

    fn settle(&mut self, result: Result<State, Distrust>) -> Result<(), TlsError> {
        let is_refused = matches!(self.state, State::Refused(_));
        match result {
            Ok(state) if !is_refused => {
                self.state = state;
                Ok(())
            }
            Ok(_) => Err(TlsError::InvalidCertificate),
            Err(distrust) => {
                self.state = State::Refused(distrust);
                Err(TlsError::InvalidCertificate)
            }
        }
    }
}

impl TlsVerifier<Suite> for Verifier {
    fn set_hostname_verification(&mut self, _name: &str) -> Result<(), TlsError> {
        // No name is sent: brokers are dialled by address.
        Err(TlsError::Unimplemented)
    }

    fn verify_certificate(
        &mut self,
        transcript: &Sha256,
        certificate: CertificateRef<'_>,
    ) -> Result<(), TlsError> {
        let result = match self.state {
            State::Start => self.look_at(&certificate),
            // Only one may be shown.
            _ => Err(Distrust::Unproved),
        };
        self.settle(result.map(|key| State::Shown { key, transcript: transcript.clone() }))
    }

    fn verify_signature(&mut self, verify: CertificateVerifyRef<'_>) -> Result<(), TlsError> {
        let result = self.prove(&verify);
        self.settle(result.map(|()| State::Proved))
    }
}

/// The node's side of one handshake.
pub(super) struct Identity<'f, F> {
    pub(super) verifier: Verifier,
    random: Random<'f, F>,
    certificate: &'static [u8],
    key: SigningKey,
}

impl<'f, F: FnMut(&mut [u8])> Identity<'f, F> {
    /// `None` when the files are not what [`TlsFiles`] says.
    pub(super) fn new(files: &TlsFiles, address: Ipv4Addr, fill: &'f mut F) -> Option<Self> {
        let authority = Certificate::parse(files.ca_der)?;
        Some(Self {
            verifier: Verifier {
                authority: VerifyingKey::from_sec1_bytes(authority.public_key).ok()?,
                address,
                state: State::Start,
            },
            random: Random(fill),
            certificate: files.cert_der,
            key: SigningKey::from_slice(private_key(files.key_der)?).ok()?,
        })
    }
}

impl<F: FnMut(&mut [u8])> CryptoProvider for Identity<'_, F> {
    type CipherSuite = Suite;
    type Signature = DerSignature;

    fn rng(&mut self) -> impl CryptoRngCore {
        &mut self.random
    }

    fn verifier(&mut self) -> Result<&mut impl TlsVerifier<Suite>, TlsError> {
        Ok(&mut self.verifier)
    }

    fn signer(&mut self) -> Result<(impl SignerMut<DerSignature>, SignatureScheme), TlsError> {
        // Nothing is signed for somebody who is not believed.
        self.verifier.is_satisfied().map_err(|_| TlsError::InvalidCertificate)?;
        Ok((self.key.clone(), SignatureScheme::EcdsaSecp256r1Sha256))
    }

    fn client_cert(&mut self) -> Option<Shown<impl AsRef<[u8]>>> {
        Some(Shown::X509(self.certificate))
    }
}

/// The board's randomness as embedded-tls wants it.
struct Random<'f, F>(&'f mut F);

impl<F: FnMut(&mut [u8])> RngCore for Random<'_, F> {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        (self.0)(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), RngError> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl<F: FnMut(&mut [u8])> CryptoRng for Random<'_, F> {}
