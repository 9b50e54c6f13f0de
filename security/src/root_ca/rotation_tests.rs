//! What a rotation needs of roots: cross-signed certificates, and chains that two roots vouch for.

use rcgen::SignatureAlgorithm;

use super::*;
use crate::{
    CertificateRequest, Credentials,
    testing::{identity, leaf},
};

fn root(algorithm: &'static SignatureAlgorithm, name: &str) -> RootCa {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.use_authority_key_identifier_extension = true;
    let cert = params.self_signed(&key).unwrap();
    RootCa::from_pem(cert.pem().as_bytes(), Some(key.serialize_pem().as_bytes())).unwrap()
}

fn authorities(cert: &X509Certificate<'_>) -> usize {
    let is_authority = |oid: &str| oid == "2.5.29.35";
    let oids = cert
        .extensions()
        .iter()
        .map(|extension| extension.oid.to_id_string());
    oids.filter(|oid| is_authority(oid)).count()
}

#[test]
fn a_cross_signed_root_is_the_new_root_under_the_old_one() {
    let p256 = &rcgen::PKCS_ECDSA_P256_SHA256;
    let p384 = &rcgen::PKCS_ECDSA_P384_SHA384;
    let pairs = [
        (RootCa::generate().unwrap(), RootCa::generate().unwrap()),
        (root(p256, "swarm-ca"), root(p384, "next")),
        (root(p384, "old"), root(p256, "next")),
    ];
    for (old, new) in pairs {
        let pem = old.cross_sign(&new).unwrap();
        assert_eq!(canonical_pem(&pem).unwrap(), pem);
        let (crossed, old_root, new_root) =
            (leaf(&pem), leaf(old.cert_pem()), leaf(new.cert_pem()));
        let (_, crossed) = X509Certificate::from_der(&crossed).unwrap();
        let (_, old_root) = X509Certificate::from_der(&old_root).unwrap();
        let (_, new_root) = X509Certificate::from_der(&new_root).unwrap();
        assert_eq!(crossed.subject().as_raw(), new_root.subject().as_raw());
        assert_eq!(crossed.public_key().raw, new_root.public_key().raw);
        assert_eq!(crossed.validity(), new_root.validity());
        assert_eq!(crossed.issuer().as_raw(), old_root.subject().as_raw());
        crossed
            .verify_signature(Some(old_root.public_key()))
            .unwrap();
        assert!(crossed.is_ca() && authorities(&crossed) == 1);
        assert_ne!(crossed.raw_serial(), new_root.raw_serial());

        // A chain that both vouch for, and of which a node reports the new root as the issuer.
        let request = CertificateRequest::generate().unwrap();
        let signer = RootCa::from_pem(new.cert_pem(), new.key_pem().map(AsRef::as_ref)).unwrap();
        let chain = signer
            .with_intermediate(pem)
            .issue(
                request.csr_pem(),
                &identity("n1", Role::Manager),
                Duration::ZERO,
                SystemTime::now(),
            )
            .unwrap();
        for trusted in [&old, &new] {
            let node =
                Credentials::from_pem(trusted.cert_pem(), &chain, request.key_pem()).unwrap();
            let info = node.tls_info();
            let reported = IssuerInfo {
                subject: info.cert_issuer_subject,
                public_key: info.cert_issuer_public_key,
            };
            assert_eq!(reported, new.issuer_info().unwrap());
            assert_eq!(info.trust_root, trusted.cert_pem());
        }
        let stranger = RootCa::generate().unwrap();
        assert!(Credentials::from_pem(stranger.cert_pem(), &chain, request.key_pem()).is_err());
    }
}

#[test]
fn who_has_no_key_cross_signs_nothing() {
    let old = RootCa::generate().unwrap();
    let keyless = RootCa::from_pem(old.cert_pem(), None).unwrap();
    assert!(matches!(keyless.cross_sign(&old), Err(Error::NoSigningKey)));
}

#[test]
fn keys_of_the_older_form_can_sign() {
    use pkcs8::der::{Any, Decode as _};
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
    ] {
        let ca = root(algorithm, "swarm-ca");
        let pkcs8 = pem::parse(ca.key_pem().unwrap()).unwrap();
        let parts = Vec::<Any>::from_der(pkcs8.contents()).unwrap();
        let sec1 = pem_of("EC PRIVATE KEY", parts[2].value().to_vec());
        let same = RootCa::from_pem(ca.cert_pem(), Some(sec1.as_bytes())).unwrap();
        let request = CertificateRequest::generate().unwrap();
        let who = identity("n1", Role::Worker);
        let issued = same.issue(request.csr_pem(), &who, Duration::ZERO, SystemTime::now());
        request.finish(ca.cert_pem(), &issued.unwrap()).unwrap();

        let other = root(algorithm, "swarm-ca");
        assert!(RootCa::from_pem(other.cert_pem(), Some(sec1.as_bytes())).is_err());
    }
}

#[test]
fn pem_is_brought_to_one_form() {
    let ca = RootCa::generate().unwrap();
    let text = String::from_utf8(ca.cert_pem().to_vec()).unwrap();
    assert_eq!(canonical_pem(ca.cert_pem()).unwrap(), text);
    let odd = format!("a comment\r\n{}\n\n", text.replace('\n', "\r\n"));
    assert_eq!(canonical_pem(odd.as_bytes()).unwrap(), text);
    let two = canonical_pem(format!("{text}\n{text}").as_bytes()).unwrap();
    assert_eq!(two, format!("{text}{text}"));
    assert_eq!(RootCa::from_pem(&two, None).unwrap().certificate_count(), 2);
    for bad in [
        "",
        "hello",
        "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n",
    ] {
        assert!(canonical_pem(bad.as_bytes()).is_err());
    }
}
