use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use rcgen::{Issuer, KeyPair};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    CertificateRequest, Credentials, Role,
    testing::{CLUSTER, Serving, credentials, identity},
};

/// An HTTPS server of `ca` whose answer is up to `answer`: status line and body.
async fn serve(
    ca: &RootCa,
    answer: impl Fn(Value) -> (&'static str, String) + Send + 'static,
) -> (SocketAddr, Serving) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let tls = Tls::new(credentials(ca, "localhost", Role::Manager));
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = TlsAcceptor::from(tls.server_config());
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let Some(body) = request_body(&mut stream).await else {
                continue;
            };
            let (status, body) = answer(serde_json::from_slice(&body).unwrap());
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            // A client that has read enough hangs up.
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(body.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (addr, Serving(task))
}

async fn request_body(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        assert!(
            head.starts_with("post /api/v1/cfssl/sign http/1.1"),
            "{head}"
        );
        let length = head.split("content-length: ").nth(1).unwrap();
        let length: usize = length.lines().next().unwrap().trim().parse().unwrap();
        if body.len() >= length {
            return Some(bytes.split_off(bytes.len() - length));
        }
    }
}

fn url(addr: SocketAddr) -> String {
    format!("https://localhost:{}/api/v1/cfssl/sign", addr.port())
}

fn external(ca: &RootCa, urls: &[String]) -> ExternalCa {
    let tls = Tls::new(credentials(ca, "m1", Role::Manager));
    ExternalCa::new(&tls, ca.cert_pem(), urls.to_vec()).unwrap()
}

fn signed(certificate: &[u8]) -> (&'static str, String) {
    let certificate = String::from_utf8(certificate.to_vec()).unwrap();
    let answer = json!({
        "success": true, "result": { "certificate": certificate }, "errors": [], "messages": [],
    });
    ("200 OK", answer.to_string())
}

fn subject(request: &Value) -> Identity {
    let name = &request["subject"]["names"][0];
    Identity {
        node_id: request["subject"]["CN"].as_str().unwrap().to_owned(),
        role: Role::from_ou(name["OU"].as_str().unwrap()).unwrap(),
        cluster_id: name["O"].as_str().unwrap().to_owned(),
    }
}

/// Signs whatever it is asked to, as CFSSL would.
fn signer(ca: &RootCa) -> impl Fn(Value) -> (&'static str, String) + Send + 'static {
    let ca = ca.clone();
    move |request| {
        let csr = request["certificate_request"].as_str().unwrap();
        let who = subject(&request);
        let now = SystemTime::now();
        signed(&ca.issue(csr.as_bytes(), &who, Duration::ZERO, now).unwrap())
    }
}

async fn ask(ca: &ExternalCa) -> Result<Bytes, ExternalCaError> {
    let request = CertificateRequest::generate().unwrap();
    ca.issue(request.csr_pem(), &identity("n1", Role::Worker))
        .await
}

#[tokio::test]
async fn it_signs_for_nodes() {
    let ca = RootCa::generate().unwrap();
    let sign = signer(&ca);
    let (addr, _serving) = serve(&ca, move |request| {
        assert_eq!(request["hosts"], json!(["swarm-worker", "n1"]));
        assert_eq!(
            request["subject"],
            json!({ "CN": "n1", "names": [{ "O": CLUSTER, "OU": "swarm-worker" }] })
        );
        sign(request)
    })
    .await;
    // The first one does not answer.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = url(nobody.local_addr().unwrap());
    drop(nobody);
    let external = external(&ca, &[closed, url(addr)]);
    external.reachable().await.unwrap();
    let request = CertificateRequest::generate().unwrap();
    let who = identity("n1", Role::Worker);
    let chain = external.issue(request.csr_pem(), &who).await.unwrap();
    let node = request.finish(ca.cert_pem(), &chain).unwrap();
    assert_eq!(node.identity(), &who);
}

#[tokio::test]
async fn what_can_pass_is_told_from_what_cannot() {
    let (ca, other) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    let check = async |answer: (&'static str, String), passes: bool, text: &str| {
        let (addr, _serving) = serve(&ca, move |_| answer.clone()).await;
        let error = ask(&external(&ca, &[url(addr)])).await.unwrap_err();
        assert_eq!(
            matches!(error, ExternalCaError::Unreachable(_)),
            passes,
            "{error}"
        );
        assert!(error.to_string().contains(text), "{error}");
    };
    check(("500 Oops", "{}".to_owned()), true, "500").await;
    check(("302 Found", "{}".to_owned()), true, "302").await;
    let large = "x".repeat(MAX_ANSWER_BYTES + 1);
    check(("200 OK", large), true, "cannot be read").await;
    check(("200 OK", "hello".to_owned()), false, "no JSON").await;
    check(("200 OK", "{}".to_owned()), false, "neither").await;
    let refusal = r#"{"success": false, "errors": [{"code": 1, "message": "not today"}]}"#;
    check(("200 OK", refusal.to_owned()), false, "not today").await;
    check(signed(b"no certificate"), false, "no PEM certificate").await;
    // A certificate of somebody else, of another root, of another key.
    let foreign = credentials(&ca, "n2", Role::Worker);
    check(signed(foreign.cert_pem()), false, "another node").await;
    let foreign = credentials(&ca, "n1", Role::Worker);
    check(signed(foreign.cert_pem()), false, "another key").await;
    let foreign = credentials(&other, "n1", Role::Worker);
    check(signed(foreign.cert_pem()), false, "unusable").await;
}

#[tokio::test]
async fn servers_and_urls_must_be_the_right_ones() {
    let (ca, other) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let (addr, _serving) = serve(&other, move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        ("200 OK", String::new())
    })
    .await;
    let bad = [
        url(addr),
        "http://localhost:1/sign".to_owned(),
        "localhost:1".to_owned(),
        "https://".to_owned(),
        "no url".to_owned(),
    ];
    for url in bad {
        let external = external(&ca, std::slice::from_ref(&url));
        for error in [
            external.reachable().await.unwrap_err(),
            ask(&external).await.unwrap_err(),
        ] {
            assert!(
                matches!(error, ExternalCaError::Unreachable(_)),
                "{url}: {error}"
            );
        }
    }
    assert!(external(&ca, &[]).reachable().await.is_err());
    assert_eq!(
        asked.load(Ordering::Relaxed),
        0,
        "nothing was said to the other root's server"
    );
}

#[tokio::test]
async fn it_certifies_another_root() {
    let (old, new) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    let signing = old.clone();
    let (addr, _serving) = serve(&old, move |request| {
        assert_eq!(request["profile"], "CA");
        assert_eq!(request["subject"]["CN"], "swarm-ca");
        assert_eq!(request["extensions"][0]["id"], "2.5.29.19");
        let csr = request["certificate_request"].as_str().unwrap();
        let mut csr = CertificateSigningRequestParams::from_pem(csr).unwrap();
        csr.params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::from_pem(std::str::from_utf8(signing.key_pem().unwrap()).unwrap());
        let cert = &certificates("root", signing.cert_pem()).unwrap()[0];
        let issuer = Issuer::from_ca_cert_der(cert, key.unwrap()).unwrap();
        signed(csr.signed_by(&issuer).unwrap().pem().as_bytes())
    })
    .await;
    let external_old = external(&old, &[url(addr)]);
    let crossed = external_old.cross_sign(&new).await.unwrap();
    let request = CertificateRequest::generate().unwrap();
    let who = identity("n1", Role::Worker);
    let chain = new
        .with_intermediate(crossed)
        .issue(request.csr_pem(), &who, Duration::ZERO, SystemTime::now())
        .unwrap();
    Credentials::from_pem(old.cert_pem(), &chain, request.key_pem()).unwrap();

    // One that answers with something else is refused.
    let leaf = credentials(&old, "n1", Role::Worker).cert_pem().clone();
    let (addr, _serving) = serve(&old, move |_| signed(&leaf)).await;
    let next = RootCa::generate().unwrap();
    let error = external(&old, &[url(addr)])
        .cross_sign(&next)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("does not certify"), "{error}");
}
