use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;
use crate::{
    Role,
    testing::{CLUSTER, credentials, identity},
};

const FILES: [&str; 3] = ["swarm-root-ca.crt", "swarm-node.crt", "swarm-node.key"];

fn load(dir: &Path) -> Result<Option<Credentials>, Error> {
    Ok(Credentials::load(dir, None)?.map(|(credentials, _)| credentials))
}

fn reason(result: Result<Credentials, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn self_issued_credentials_tell_who_they_are() {
    let ca = RootCa::generate().unwrap();
    let own = credentials(&ca, "m1", Role::Manager);
    assert_eq!(own.identity(), &identity("m1", Role::Manager));
    assert_eq!(own.root_pem(), ca.cert_pem());
    let life = own.expires_at().duration_since(own.valid_from()).unwrap();
    assert_eq!(life, Duration::from_secs(2161 * 3600));
    let info = own.tls_info();
    assert_eq!(info.trust_root, ca.cert_pem());
    let root = crate::testing::leaf(ca.cert_pem());
    let (_, root) = X509Certificate::from_der(&root).unwrap();
    assert_eq!(info.cert_issuer_subject, root.subject().as_raw());
    assert_eq!(info.cert_issuer_public_key, root.public_key().raw);
    assert!(!format!("{own:?}").contains("PRIVATE"));
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let (ca, other) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    let (own, foreign) = (
        credentials(&ca, "m1", Role::Manager),
        credentials(&other, "m1", Role::Manager),
    );
    let (root, cert, key) = (&own.root_pem, &own.cert_pem, &own.key_pem);
    assert!(Credentials::from_pem(root, cert, key).is_ok());
    let text = reason(Credentials::from_pem(&foreign.root_pem, cert, key));
    assert!(
        text.contains("not signed by the root CA of this cluster"),
        "{text}"
    );
    let text = reason(Credentials::from_pem(root, cert, &foreign.key_pem));
    assert!(text.starts_with("unusable node key: "), "{text}");
    assert!(
        Credentials::from_pem(root, root, ca.key_pem().unwrap()).is_err(),
        "a CA is no node"
    );
    for (root, cert, key) in [
        (&b""[..], &cert[..], &key[..]),
        (root, b"", key),
        (root, cert, b""),
    ] {
        assert!(Credentials::from_pem(root, cert, key).is_err());
    }
}

#[test]
fn the_subject_must_be_complete() {
    let ca = RootCa::generate().unwrap();
    for (who, text) in [
        (
            Identity {
                node_id: String::new(),
                ..identity("x", Role::Worker)
            },
            "common name",
        ),
        (
            Identity {
                cluster_id: String::new(),
                ..identity("x", Role::Worker)
            },
            "organisation",
        ),
    ] {
        let request = CertificateRequest::generate().unwrap();
        // An empty ID makes an empty DNS name, which chain verification may refuse first.
        let Ok(cert) = ca.issue(request.csr_pem(), &who, Duration::ZERO, SystemTime::now()) else {
            continue;
        };
        let error = Identity::from_der(&crate::testing::leaf(&cert))
            .unwrap_err()
            .to_string();
        assert!(error.contains(text), "{error}");
        assert!(request.finish(ca.cert_pem(), &cert).is_err());
    }
}

#[test]
fn time_is_checked_but_expired_credentials_load() {
    let ca = RootCa::generate().unwrap();
    let hour = Duration::from_secs(3600);
    let who = identity("m1", Role::Manager);
    let issued = |at| {
        let request = CertificateRequest::generate().unwrap();
        let cert = ca.issue(request.csr_pem(), &who, hour, at).unwrap();
        (request, cert)
    };
    let (request, future) = issued(SystemTime::now() + 3 * hour);
    let text = reason(request.finish(ca.cert_pem(), &future));
    assert!(text.contains("not valid yet"), "{text}");

    let (request, past) = issued(SystemTime::now() - 3 * hour);
    let dir = tempfile::tempdir().unwrap();
    for (name, contents) in FILES
        .iter()
        .zip([ca.cert_pem().as_ref(), &past, request.key_pem()])
    {
        fs::write(dir.path().join(name), contents).unwrap();
    }
    let text = reason(request.finish(ca.cert_pem(), &past));
    assert!(text.contains("has expired"), "{text}");
    let loaded = load(dir.path()).unwrap().unwrap();
    assert!(loaded.expires_at() < SystemTime::now());
    assert_eq!(loaded.identity().cluster_id, CLUSTER);
}

#[test]
fn what_is_saved_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("certificates");
    assert!(load(&path).unwrap().is_none());
    let ca = RootCa::generate().unwrap();
    for id in ["m1", "m2"] {
        let own = credentials(&ca, id, Role::Manager);
        own.save(&path).unwrap();
        let loaded = load(&path).unwrap().unwrap();
        assert_eq!(loaded.identity(), own.identity());
        assert_eq!(loaded.root_pem(), own.root_pem());
        assert_eq!(loaded.cert_pem(), own.cert_pem());
        assert_eq!(loaded.key_pem, own.key_pem);
    }
    let mode = |name| fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("swarm-node.key"), 0o600);
    assert_eq!(mode("swarm-node.crt") & 0o600, 0o600);
    let key = fs::read_to_string(path.join("swarm-node.key")).unwrap();
    let start = "-----BEGIN PRIVATE KEY-----\nkek-version: 0\n\n";
    assert!(key.starts_with(start), "PKCS#8");
    assert_eq!(
        fs::read_dir(&path).unwrap().count(),
        3,
        "no temporary file is left"
    );
}

/// Stops a save after each of its steps: loading finds the old identity or the new, never neither.
#[test]
fn a_save_can_stop_anywhere() {
    let (ca, next) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    let old = credentials(&ca, "old", Role::Manager);
    let new = credentials(&next, "new", Role::Manager);
    let contents =
        |of: &Credentials| [of.root_pem.clone(), of.cert_pem.clone(), of.key_pem.clone()];
    for first_save in [true, false] {
        for (written, renamed) in (0..=3).map(|n| (n, 0)).chain((1..=3).map(|n| (3, n))) {
            let dir = tempfile::tempdir().unwrap();
            if !first_save {
                old.save(dir.path()).unwrap();
            }
            for (name, contents) in FILES.iter().zip(contents(&new)).take(written) {
                fs::write(dir.path().join(format!(".{name}")), contents).unwrap();
            }
            for name in &FILES[..renamed] {
                fs::rename(dir.path().join(format!(".{name}")), dir.path().join(name)).unwrap();
            }
            let loaded = load(dir.path()).unwrap();
            let found = loaded.as_ref().map(|own| own.identity().node_id.as_str());
            let expected = match (first_save, written, renamed) {
                (true, 0..3, _) => None,
                (false, _, 0) => Some("old"),
                _ => Some("new"),
            };
            assert_eq!(
                found, expected,
                "first {first_save}, {written} written, {renamed} renamed"
            );
            // And what was found is final.
            let again = load(dir.path()).unwrap();
            assert_eq!(
                again.map(|own| own.identity().clone()),
                loaded.map(|own| own.identity)
            );
        }
    }
}

#[test]
fn damage_is_an_error_that_names_the_file() {
    let ca = RootCa::generate().unwrap();
    for name in FILES {
        let dir = tempfile::tempdir().unwrap();
        credentials(&ca, "m1", Role::Manager)
            .save(dir.path())
            .unwrap();
        fs::remove_file(dir.path().join(name)).unwrap();
        let error = load(dir.path()).unwrap_err();
        assert!(
            matches!(error, Error::Incomplete { missing, .. } if missing == name),
            "{error}"
        );
        fs::write(dir.path().join(name), "garbage").unwrap();
        assert!(matches!(load(dir.path()), Err(Error::Unusable { .. })));
        fs::write(dir.path().join(name), vec![b'x'; 2 << 20]).unwrap();
        let error = load(dir.path()).unwrap_err();
        assert!(error.to_string().contains("larger than 1 MiB"), "{error}");
    }
}

/// The root was made a moment ago, and so was the certificate; the clock of whoever checks them is
/// another one.
#[test]
fn r36_clocks_may_differ_by_45_minutes_and_more_is_called_clock_skew() {
    let ca = RootCa::generate().unwrap();
    let minute = Duration::from_secs(60);
    let hour = 60 * minute;
    let roots = certificates("root", ca.cert_pem()).unwrap();
    let roots = config::roots(&roots).unwrap();
    let request = CertificateRequest::generate().unwrap();
    let who = identity("m1", Role::Manager);
    let now = SystemTime::now();
    // The shortest life that there is.
    let chain = ca.issue(request.csr_pem(), &who, hour, now).unwrap();
    let chain = certificates("chain", &chain).unwrap();
    let check = |now| config::verify_chain(&chain, &roots, now).map_err(explain);
    check(now - 45 * minute).unwrap();
    check(now + 45 * minute).unwrap();
    for far in [now - 75 * minute, now + 75 * minute] {
        let text = check(far).unwrap_err();
        assert!(text.contains("clock skew"), "{text}");
    }
}
