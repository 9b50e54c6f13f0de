//! The root of trust of a cluster, and the signing of node certificates.
//!
//! A node certificate is made from scratch: of the request only the public key is used, so nothing
//! a node asks for (CA rights, names, usages, lifetime) can end up in it.

mod cross_sign;
mod forms;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
    string::Ia5String,
};
use rustls::pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, pem::PemObject as _,
};
use time::OffsetDateTime;
use x509_parser::{
    certificate::X509Certificate, certification_request::X509CertificationRequest,
    oid_registry as oid, prelude::FromDer as _,
};

pub use forms::canonical_pem;
pub(crate) use forms::pem_of;
use forms::pkcs8_of;

use crate::{
    Error, Identity, Role,
    crypto::{MAX_PEM_BYTES, certificates, hex, sha256},
};

/// Life of a node certificate unless the cluster says otherwise: 90 days.
pub const DEFAULT_NODE_CERT_EXPIRY: Duration = Duration::from_secs(2160 * 3600);

/// Shorter lives than this are replaced by [`DEFAULT_NODE_CERT_EXPIRY`], as SwarmKit does.
const MIN_NODE_CERT_EXPIRY: Duration = Duration::from_secs(3600);

/// How far back a node certificate begins, so that nodes whose clocks lag accept it.
const NODE_BACKDATE: Duration = Duration::from_secs(3600);

/// Life of a root certificate: 20 years of 365 days.
const ROOT_EXPIRY: Duration = Duration::from_secs(630_720_000);

/// How far back a root certificate begins.
const ROOT_BACKDATE: Duration = Duration::from_secs(5 * 60);

/// A signing request is about 500 bytes; RSA ones stay below 4 KiB.
const MAX_CSR_BYTES: usize = 64 << 10;

const ROOT_CN: &str = "swarm-ca";
const WHAT: &str = "root certificate";

/// A root certificate (or a bundle of them, of which the first one signs), and its key if this
/// node holds it. Cheap to clone.
#[derive(Clone)]
pub struct RootCa {
    certs: Arc<[CertificateDer<'static>]>,
    cert_pem: Bytes,
    key_pem: Option<Bytes>,
    signer: Option<Arc<Signer>>,
    /// PEM that goes after each certificate it signs.
    intermediate: Bytes,
}

/// What tells whether a certificate was issued by a root, as nodes report it of theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerInfo {
    /// The subject, DER.
    pub subject: Bytes,
    /// The SubjectPublicKeyInfo, DER.
    pub public_key: Bytes,
}

struct Signer {
    issuer: Issuer<'static, KeyPair>,
    /// The root's subject as DER: what must stand as issuer in all it signs.
    subject: Vec<u8>,
}

impl RootCa {
    /// A new root: subject `CN=swarm-ca`, ECDSA P-256, valid for 20 years from five minutes ago.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(|error| Error::unusable("root key", error))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, ROOT_CN);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(random_serial());
        (params.not_before, params.not_after) =
            window(SystemTime::now(), ROOT_BACKDATE, ROOT_EXPIRY)?;
        let cert = params
            .self_signed(&key)
            .map_err(|error| Error::unusable(WHAT, error))?;
        Self::from_pem(cert.pem().as_bytes(), Some(key.serialize_pem().as_bytes()))
    }

    /// A root from stored or received PEM, kept byte for byte: its digest is in every join token.
    ///
    /// # Errors
    /// When a certificate is not self-signed by RSA or ECDSA with SHA-2, or the key (PKCS#8) does
    /// not belong to the first certificate.
    pub fn from_pem(cert_pem: &[u8], key_pem: Option<&[u8]>) -> Result<Self, Error> {
        let certs = certificates(WHAT, cert_pem)?;
        for cert in &certs {
            check_root(cert)?;
        }
        let signer = match key_pem {
            Some(key_pem) => Some(Arc::new(Signer::new(&certs[0], key_pem)?)),
            None => None,
        };
        Ok(Self {
            certs: certs.into(),
            cert_pem: Bytes::copy_from_slice(cert_pem),
            key_pem: key_pem.map(Bytes::copy_from_slice),
            signer,
            intermediate: Bytes::new(),
        })
    }

    /// The same CA, which puts this PEM after each certificate that it issues: during a rotation
    /// the cross-signed certificate of the new root, so that who trusts the old one trusts the node.
    #[must_use]
    pub fn with_intermediate(mut self, pem: Bytes) -> Self {
        self.intermediate = pem;
        self
    }

    /// The certificate of `new`, signed by this root's key: subject, key and validity are those of
    /// `new`. Returns PEM.
    ///
    /// # Errors
    /// [`Error::NoSigningKey`], or when `new` is no certificate of version 3.
    pub fn cross_sign(&self, new: &Self) -> Result<Bytes, Error> {
        let (own, parsed) = (parse(WHAT, &self.certs[0])?, parse(WHAT, &new.certs[0])?);
        let der = cross_sign::cross_sign(self.signing_key()?, &own, &parsed)?;
        Ok(pem_of("CERTIFICATE", der).into())
    }

    /// Whether `cert` says of this root's subject and key what `issuer` has signed.
    pub(crate) fn is_certified_by(
        &self,
        cert: &CertificateDer<'_>,
        issuer: &Self,
    ) -> Result<bool, Error> {
        let (cert, own) = (parse(WHAT, cert)?, parse(WHAT, &self.certs[0])?);
        let issuer = parse(WHAT, &issuer.certs[0])?;
        Ok(cert.subject().as_raw() == own.subject().as_raw()
            && cert.public_key().raw == own.public_key().raw
            && cert.is_ca()
            && cert.issuer().as_raw() == issuer.subject().as_raw()
            && cert.verify_signature(Some(issuer.public_key())).is_ok())
    }

    pub(crate) fn signing_key(&self) -> Result<&KeyPair, Error> {
        Ok(self
            .signer
            .as_deref()
            .ok_or(Error::NoSigningKey)?
            .issuer
            .key())
    }

    /// The attributes of the subject: object identifier in dotted form, and text.
    pub(crate) fn subject_parts(&self) -> Result<Vec<(String, String)>, Error> {
        let cert = parse(WHAT, &self.certs[0])?;
        let attributes = cert.subject().iter_attributes();
        Ok(attributes
            .filter_map(|part| {
                Some((
                    part.attr_type().to_id_string(),
                    part.as_str().ok()?.to_owned(),
                ))
            })
            .collect())
    }

    /// How many certificates the bundle has, at least one.
    pub fn certificate_count(&self) -> usize {
        self.certs.len()
    }

    /// When the first certificate of the bundle ceases to be valid.
    ///
    /// # Errors
    /// When that is before 1970.
    pub fn expires_at(&self) -> Result<SystemTime, Error> {
        let not_after = parse(WHAT, &self.certs[0])?
            .validity()
            .not_after
            .timestamp();
        let seconds = u64::try_from(not_after).map_err(|_| out_of_range())?;
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(seconds))
            .ok_or_else(out_of_range)
    }

    /// What nodes report whose certificate the first root of the bundle has issued.
    ///
    /// # Errors
    /// None for a root that was made: the certificate was parsed before.
    pub fn issuer_info(&self) -> Result<IssuerInfo, Error> {
        let cert = parse(WHAT, &self.certs[0])?;
        Ok(IssuerInfo {
            subject: Bytes::copy_from_slice(cert.subject().as_raw()),
            public_key: Bytes::copy_from_slice(cert.public_key().raw),
        })
    }

    /// The certificate bundle, as it came.
    pub fn cert_pem(&self) -> &Bytes {
        &self.cert_pem
    }

    /// The signing key, as it came.
    pub fn key_pem(&self) -> Option<&Bytes> {
        self.key_pem.as_ref()
    }

    /// SHA-256 of the bundle's exact bytes, as `sha256:<hex>`.
    pub fn hash(&self) -> String {
        format!("sha256:{}", hex(&self.digest()))
    }

    /// SHA-256 of the bundle's exact bytes.
    pub(crate) fn digest(&self) -> [u8; 32] {
        sha256(&self.cert_pem)
    }

    /// Signs a certificate for `who` with the public key of the request, valid from one hour
    /// before `now` until `validity` after it (less than an hour means
    /// [`DEFAULT_NODE_CERT_EXPIRY`]), in whole minutes. Returns PEM.
    ///
    /// # Errors
    /// [`Error::NoSigningKey`], or when the request is malformed, its self-signature is wrong or
    /// its key is of a kind that cannot be certified.
    pub fn issue(
        &self,
        csr_pem: &[u8],
        who: &Identity,
        validity: Duration,
        now: SystemTime,
    ) -> Result<Bytes, Error> {
        let signer = self.signer.as_deref().ok_or(Error::NoSigningKey)?;
        let csr = csr_der(csr_pem)?;
        let request = CertificateSigningRequestParams::from_der(&csr)
            .map_err(|error| Error::unusable("certificate request", error))?;
        let validity = if validity < MIN_NODE_CERT_EXPIRY {
            DEFAULT_NODE_CERT_EXPIRY
        } else {
            validity
        };

        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, who.cluster_id.as_str());
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, who.role.as_ou());
        params
            .distinguished_name
            .push(DnType::CommonName, who.node_id.as_str());
        params.subject_alt_names = server_names(who)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(random_serial());
        let span = validity
            .checked_add(NODE_BACKDATE)
            .ok_or_else(out_of_range)?;
        (params.not_before, params.not_after) = window(now, NODE_BACKDATE, span)?;

        let cert = params
            .signed_by(&request.public_key, &signer.issuer)
            .map_err(|error| Error::unusable("certificate request", error))?;
        signer.check_issued(cert.der(), &csr)?;
        let leaf = pem_of("CERTIFICATE", cert.der().to_vec());
        Ok([leaf.as_bytes(), &self.intermediate].concat().into())
    }
}

impl fmt::Debug for RootCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootCa")
            .field("hash", &self.hash())
            .field("has_key", &self.signer.is_some())
            .finish()
    }
}

impl Signer {
    fn new(cert: &CertificateDer<'_>, key_pem: &[u8]) -> Result<Self, Error> {
        let unusable = |reason: &dyn fmt::Display| Error::unusable("root key", reason);
        if key_pem.len() > MAX_PEM_BYTES {
            return Err(unusable(&"it is larger than 1 MiB"));
        }
        let der = PrivateKeyDer::from_pem_slice(key_pem)
            .map_err(|error| unusable(&format!("no PEM private key: {error}")))?;
        let parsed = parse(WHAT, cert)?;
        let key = KeyPair::try_from(&pkcs8_of(der, &parsed)?).map_err(|error| {
            unusable(&format!(
                "{error} (RSA of 2048 bits or more, or ECDSA P-256 or P-384 is needed)"
            ))
        })?;
        if rcgen::PublicKeyData::subject_public_key_info(&key) != parsed.public_key().raw {
            return Err(unusable(&"it does not belong to the root certificate"));
        }
        let subject = parsed.subject().as_raw().to_vec();
        let issuer =
            Issuer::from_ca_cert_der(cert, key).map_err(|error| Error::unusable(WHAT, error))?;
        Ok(Self { issuer, subject })
    }

    /// rcgen rebuilds two things from their parts, the issuer's name and the subject's key. Where
    /// it cannot rebuild them exactly (a name with two values of one kind, P-384 signing with
    /// SHA-256) the certificate would be useless: better to say so.
    fn check_issued(
        &self,
        cert: &CertificateDer<'_>,
        csr: &CertificateSigningRequestDer<'_>,
    ) -> Result<(), Error> {
        let cert = parse("issued certificate", cert)?;
        if cert.issuer().as_raw() != self.subject {
            return Err(Error::unusable(
                WHAT,
                "its subject cannot be written as an issuer",
            ));
        }
        let (_, csr) = X509CertificationRequest::from_der(csr)
            .map_err(|error| Error::unusable("certificate request", error))?;
        if cert.public_key().raw != csr.certification_request_info.subject_pki.raw {
            return Err(Error::unusable(
                "certificate request",
                "unsupported kind of key",
            ));
        }
        Ok(())
    }
}

/// The DNS names a node may be dialled by: its role, its ID, and for managers the name under
/// which the CA is called.
pub(crate) fn certificate_names(who: &Identity) -> Vec<&str> {
    let mut names = vec![who.role.as_ou(), who.node_id.as_str()];
    if who.role == Role::Manager {
        names.push(ROOT_CN);
    }
    names
}

fn server_names(who: &Identity) -> Result<Vec<SanType>, Error> {
    certificate_names(who)
        .into_iter()
        .map(|name| {
            let name = Ia5String::try_from(name)
                .map_err(|error| Error::unusable("node id", format!("{name:?}: {error}")))?;
            Ok(SanType::DnsName(name))
        })
        .collect()
}

pub(crate) fn csr_der(pem: &[u8]) -> Result<CertificateSigningRequestDer<'static>, Error> {
    if pem.len() > MAX_CSR_BYTES {
        return Err(Error::unusable(
            "certificate request",
            "it is larger than 64 KiB",
        ));
    }
    CertificateSigningRequestDer::from_pem_slice(pem)
        .map_err(|error| Error::unusable("certificate request", format!("not valid PEM: {error}")))
}

fn parse<'a>(
    what: &'static str,
    cert: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, Error> {
    match X509Certificate::from_der(cert) {
        Ok((_, cert)) => Ok(cert),
        Err(error) => Err(Error::unusable(what, error)),
    }
}

/// A root must be signed by itself, with an algorithm that is still good.
fn check_root(cert: &CertificateDer<'_>) -> Result<(), Error> {
    let accepted = [
        oid::OID_PKCS1_SHA256WITHRSA,
        oid::OID_PKCS1_SHA384WITHRSA,
        oid::OID_PKCS1_SHA512WITHRSA,
        oid::OID_SIG_ECDSA_WITH_SHA256,
        oid::OID_SIG_ECDSA_WITH_SHA384,
        oid::OID_SIG_ECDSA_WITH_SHA512,
    ];
    let cert = parse(WHAT, cert)?;
    if !accepted.contains(&cert.signature_algorithm.algorithm) {
        let algorithm = &cert.signature_algorithm.algorithm;
        return Err(Error::unusable(
            WHAT,
            format!("unsupported signature algorithm {algorithm}"),
        ));
    }
    if cert.subject().as_raw() != cert.issuer().as_raw() || cert.verify_signature(None).is_err() {
        return Err(Error::unusable(WHAT, "it is not self-signed"));
    }
    Ok(())
}

/// The validity of a certificate made `now`, in whole minutes: begins `backdate` ago and lasts
/// `span`.
fn window(
    now: SystemTime,
    backdate: Duration,
    span: Duration,
) -> Result<(OffsetDateTime, OffsetDateTime), Error> {
    let seconds = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| out_of_range())?
        .as_secs();
    let minute = seconds.checked_add(30).ok_or_else(out_of_range)? / 60 * 60;
    let from = minute
        .checked_sub(backdate.as_secs())
        .ok_or_else(out_of_range)?;
    let to = from.checked_add(span.as_secs()).ok_or_else(out_of_range)?;
    let date = |seconds: u64| {
        let seconds = i64::try_from(seconds).map_err(|_| out_of_range())?;
        OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| out_of_range())
    };
    Ok((date(from)?, date(to)?))
}

fn out_of_range() -> Error {
    Error::unusable(
        "certificate validity",
        "it reaches beyond the dates a certificate can hold",
    )
}

/// 159 random bits: unique without a record of what was issued, within the 20 bytes of RFC 5280.
fn random_serial() -> SerialNumber {
    let mut bytes: [u8; 20] = rand::random();
    // Positive, and never shortened to nothing.
    bytes[0] = bytes[0] & 0x7f | 0x01;
    SerialNumber::from_slice(&bytes)
}

#[cfg(test)]
mod rotation_tests;
#[cfg(test)]
mod tests;
