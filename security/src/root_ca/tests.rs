use std::sync::LazyLock;

use proptest::prelude::*;
use rcgen::CustomExtension;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::*;
use crate::{
    CertificateRequest, JoinToken,
    testing::{CLUSTER, identity, leaf},
};

/// 2025-01-02 03:04:31 UTC: rounds up to the next minute.
const NOW: u64 = 1_735_787_071;
const MINUTE: i64 = 1_735_787_100;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

fn issue(ca: &RootCa, csr: &[u8], role: Role, validity: Duration) -> Bytes {
    ca.issue(csr, &identity("node1", role), validity, now())
        .unwrap()
}

fn dns_names(cert: &X509Certificate<'_>) -> Vec<String> {
    let Some(san) = cert.subject_alternative_name().unwrap() else {
        return Vec::new();
    };
    let names = san.value.general_names.iter().map(|name| match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        other => panic!("unexpected name {other}"),
    });
    names.collect()
}

/// Everything a node certificate must say, whatever the request said.
fn check_node_certificate(pem: &[u8], ca: &RootCa, role: Role, expected_names: &[&str]) {
    let (der, root) = (leaf(pem), leaf(ca.cert_pem()));
    let (_, cert) = X509Certificate::from_der(&der).unwrap();
    let (_, root) = X509Certificate::from_der(&root).unwrap();

    let subject = cert.subject().to_string();
    assert_eq!(
        subject,
        format!("O={CLUSTER}, OU={}, CN=node1", role.as_ou())
    );
    assert_eq!(Identity::from_der(&der).unwrap(), identity("node1", role));
    assert_eq!(cert.issuer().as_raw(), root.subject().as_raw());
    cert.verify_signature(Some(root.public_key())).unwrap();
    assert_eq!(dns_names(&cert), expected_names);

    let constraints = cert.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && !constraints.value.ca);
    let usage = cert.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    // digitalSignature is bit 0, keyEncipherment bit 2.
    assert_eq!(usage.value.flags, 0b101);
    let extended = cert.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any);
    assert!(!extended.code_signing && extended.other.is_empty());

    let key_id = |cert: &X509Certificate<'_>| {
        cert.extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            })
    };
    let authority =
        cert.extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    id.key_identifier.as_ref().map(|id| id.0.to_vec())
                }
                _ => None,
            });
    assert!(key_id(&cert).is_some());
    assert_eq!(authority, key_id(&root));
    assert_eq!(cert.extensions().len(), 6);
}

#[test]
fn a_root_has_the_fields_of_a_swarm_root() {
    let ca = RootCa::generate().unwrap();
    let der = leaf(ca.cert_pem());
    let (_, cert) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(cert.subject().to_string(), "CN=swarm-ca");
    assert!(cert.is_ca() && cert.basic_constraints().unwrap().unwrap().critical);
    let usage = cert.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
    assert!(!usage.value.digital_signature());
    assert!(cert.extended_key_usage().unwrap().is_none());
    let (from, to) = (
        cert.validity().not_before.timestamp(),
        cert.validity().not_after.timestamp(),
    );
    assert_eq!(to - from, 630_720_000);
    let age = OffsetDateTime::now_utc().unix_timestamp() - from;
    assert!(
        (265..=340).contains(&age),
        "five minutes back, rounded: {age}"
    );
    assert_eq!(
        cert.signature_algorithm.algorithm,
        oid::OID_SIG_ECDSA_WITH_SHA256
    );
}

#[test]
fn the_pem_is_canonical_and_kept_verbatim() {
    let ca = RootCa::generate().unwrap();
    let pem = std::str::from_utf8(ca.cert_pem()).unwrap();
    let lines: Vec<_> = pem.split('\n').collect();
    assert_eq!(lines[0], "-----BEGIN CERTIFICATE-----");
    assert_eq!(lines[lines.len() - 2..], ["-----END CERTIFICATE-----", ""]);
    assert!(
        lines[1..lines.len() - 3]
            .iter()
            .all(|line| line.len() == 64)
    );

    let padded = [ca.cert_pem().as_ref(), b"\n"].concat();
    let other = RootCa::from_pem(&padded, ca.key_pem().map(AsRef::as_ref)).unwrap();
    assert_eq!(other.cert_pem().as_ref(), padded);
    assert_ne!(other.hash(), ca.hash());
    assert_eq!(
        ca.hash(),
        format!("sha256:{}", hex(&sha256(pem.as_bytes())))
    );
    let digest = |ca| JoinToken::generate(ca).to_string()[9..59].to_owned();
    assert_ne!(digest(&other), digest(&ca));
}

#[test]
fn node_certificates_have_the_fields_of_swarm_nodes() {
    let ca = RootCa::generate().unwrap();
    let request = CertificateRequest::generate().unwrap();
    let worker = issue(&ca, request.csr_pem(), Role::Worker, Duration::ZERO);
    check_node_certificate(&worker, &ca, Role::Worker, &["swarm-worker", "node1"]);
    let manager = issue(&ca, request.csr_pem(), Role::Manager, Duration::ZERO);
    check_node_certificate(
        &manager,
        &ca,
        Role::Manager,
        &["swarm-manager", "node1", "swarm-ca"],
    );

    let serial = |pem: &[u8]| {
        X509Certificate::from_der(&leaf(pem))
            .unwrap()
            .1
            .raw_serial()
            .to_vec()
    };
    assert_ne!(
        serial(&worker),
        serial(&manager),
        "same key, another certificate"
    );
}

#[test]
fn the_validity_window_is_rounded_and_backdated() {
    let ca = RootCa::generate().unwrap();
    let request = CertificateRequest::generate().unwrap();
    let hour = 3600;
    for (asked, after) in [
        (0, 2160 * hour),
        (3599, 2160 * hour),
        (3600, hour),
        (86_400, 86_400),
    ] {
        let pem = issue(
            &ca,
            request.csr_pem(),
            Role::Worker,
            Duration::from_secs(asked),
        );
        let der = leaf(&pem);
        let validity = X509Certificate::from_der(&der)
            .unwrap()
            .1
            .validity()
            .clone();
        assert_eq!(validity.not_before.timestamp(), MINUTE - 3600);
        assert_eq!(validity.not_after.timestamp(), MINUTE + after as i64);
    }
    let who = identity("node1", Role::Worker);
    assert!(
        ca.issue(request.csr_pem(), &who, Duration::MAX, now())
            .is_err()
    );
    assert!(
        ca.issue(
            request.csr_pem(),
            &who,
            Duration::ZERO,
            SystemTime::UNIX_EPOCH
        )
        .is_err()
    );
}

#[test]
fn what_a_request_asks_for_is_overridden() {
    let ca = RootCa::generate().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params =
        CertificateParams::new(vec!["swarm-manager".to_owned(), "swarm-ca".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    params
        .distinguished_name
        .push(DnType::OrganizationalUnitName, "swarm-manager");
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    assert!(
        format!(
            "{:?}",
            CertificateSigningRequestParams::from_pem(&csr)
                .unwrap()
                .params
                .is_ca
        )
        .contains("Ca("),
        "the request does ask for it"
    );
    let pem = issue(&ca, csr.as_bytes(), Role::Worker, Duration::ZERO);
    check_node_certificate(&pem, &ca, Role::Worker, &["swarm-worker", "node1"]);
}

#[test]
fn unusable_requests_are_refused() {
    let ca = RootCa::generate().unwrap();
    let who = identity("node1", Role::Worker);
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let mut broken = csr.der().to_vec();
    *broken.last_mut().unwrap() ^= 1;
    let mut unknown = CertificateParams::default();
    let extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    unknown.custom_extensions.push(extension);
    let garbage = [
        Vec::new(),
        b"hello".to_vec(),
        ca.cert_pem().to_vec(),
        csr_pem(b"nonsense"),
        csr_pem(&broken),
        unknown
            .serialize_request(&key)
            .unwrap()
            .pem()
            .unwrap()
            .into_bytes(),
        vec![b'x'; MAX_CSR_BYTES + 1],
    ];
    for csr in garbage {
        let result = ca.issue(&csr, &who, Duration::ZERO, now());
        assert!(matches!(
            result,
            Err(Error::Unusable {
                what: "certificate request",
                ..
            })
        ));
    }
    let keyless = RootCa::from_pem(ca.cert_pem(), None).unwrap();
    let result = keyless.issue(csr.pem().unwrap().as_bytes(), &who, Duration::ZERO, now());
    assert!(matches!(result, Err(Error::NoSigningKey)));
}

fn csr_pem(der: &[u8]) -> Vec<u8> {
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap());
    let label = csr.unwrap().pem().unwrap();
    let (head, foot) = (label.lines().next().unwrap(), label.lines().last().unwrap());
    let body: String = der.chunks(48).map(|chunk| base64(chunk) + "\n").collect();
    format!("{head}\n{body}{foot}\n").into_bytes()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for index in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * index)) as usize & 63];
            text.push(if index <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    text
}

#[test]
fn unusable_roots_are_refused() {
    let (ca, other) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    let error = RootCa::from_pem(ca.cert_pem(), other.key_pem().map(AsRef::as_ref)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does not belong to the root certificate")
    );

    let csr = CertificateRequest::generate().unwrap();
    let node = issue(&ca, csr.csr_pem(), Role::Manager, Duration::ZERO);
    let error = RootCa::from_pem(&node, None).unwrap_err();
    assert!(error.to_string().contains("not self-signed"), "{error}");
    let bundle = [ca.cert_pem().as_ref(), &node].concat();
    assert!(
        RootCa::from_pem(&bundle, None).is_err(),
        "every certificate counts"
    );
    assert!(RootCa::from_pem(b"", None).is_err());
    assert!(RootCa::from_pem(ca.cert_pem(), Some(b"")).is_err());
    assert!(RootCa::from_pem(&vec![b'-'; MAX_PEM_BYTES + 1], None).is_err());

    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let weird = CertificateParams::default()
        .self_signed(&key)
        .unwrap()
        .pem();
    let error = RootCa::from_pem(weird.as_bytes(), None).unwrap_err();
    assert!(error.to_string().contains("signature algorithm"), "{error}");
}

#[test]
fn debug_hides_the_key() {
    let ca = RootCa::generate().unwrap();
    assert!(!format!("{ca:?}").contains("PRIVATE"));
}

proptest! {
    /// Whatever a stranger sends instead of a request, it is an answer and not the end.
    #[test]
    fn no_request_and_no_certificate_makes_the_parsers_panic(
        place in 0_usize..500,
        with in any::<Vec<u8>>(),
    ) {
        static CA: LazyLock<(RootCa, Vec<u8>)> = LazyLock::new(|| {
            let key = KeyPair::generate().unwrap();
            let csr = CertificateParams::default().serialize_request(&key).unwrap();
            (RootCa::generate().unwrap(), csr.der().to_vec())
        });
        let (ca, csr) = &*CA;
        let splice = |der: &[u8]| {
            let mut der = der.to_vec();
            let from = place.min(der.len());
            let to = (from + with.len()).min(der.len());
            der.splice(from..to, with.iter().copied());
            der
        };
        let who = identity("node1", Role::Worker);
        let _ = ca.issue(&csr_pem(&splice(csr)), &who, Duration::ZERO, now());
        let _ = ca.issue(&with, &who, Duration::ZERO, now());
        let root = leaf(ca.cert_pem());
        let _ = Identity::from_der(&splice(&root));
        let _ = check_root(&splice(&root).into());
    }
}
