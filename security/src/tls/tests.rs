use rustls::{ProtocolVersion, version::TLS12};
use skep_proto::v1::{HealthCheckRequest, health_client::HealthClient};
use tokio_rustls::client::TlsStream;

use super::*;
use crate::{
    BoxedIo, Identity, Role, RootCa,
    crypto::{certificates, provider},
    testing::{credentials, serve_health},
};

fn manager(ca: &RootCa) -> Tls {
    Tls::new(credentials(ca, "m1", Role::Manager))
}

fn roots(ca: &RootCa) -> Arc<rustls::RootCertStore> {
    config::roots(&certificates("root", ca.cert_pem()).unwrap()).unwrap()
}

async fn check(channel: Channel) -> Result<i32, tonic::Status> {
    let mut client = HealthClient::new(channel);
    let reply = client.check(HealthCheckRequest::default()).await?;
    Ok(reply.into_inner().status)
}

async fn raw(
    config: Arc<rustls::ClientConfig>,
    addr: impl ToString,
) -> Result<TlsStream<BoxedIo>, Error> {
    let (addr, name) = (addr.to_string(), ServerName::Manager);
    connect(&TcpDial, config, &addr, name, CONNECT_TIMEOUT).await
}

/// A channel with any TLS configuration.
fn channel_with(config: Arc<rustls::ClientConfig>, addr: impl ToString) -> Channel {
    let addr = addr.to_string();
    let connector = tower::service_fn(move |_: Uri| {
        let (config, addr) = (config.clone(), addr.clone());
        async move { raw(config, addr).await.map(TokioIo::new) }
    });
    endpoint(ServerName::Manager).connect_with_connector_lazy(connector)
}

fn presented(stream: &TlsStream<BoxedIo>) -> String {
    let certs = stream.get_ref().1.peer_certificates().unwrap();
    Identity::from_der(&certs[0]).unwrap().node_id
}

#[tokio::test]
async fn managers_call_each_other() {
    let ca = RootCa::generate().unwrap();
    let (addr, _serving) = serve_health(manager(&ca)).await;
    let client = Tls::new(credentials(&ca, "m2", Role::Manager));
    for name in [ServerName::Manager, ServerName::Ca] {
        assert_eq!(
            check(client.channel(&addr.to_string(), name).unwrap())
                .await
                .unwrap(),
            1
        );
    }
}

#[tokio::test]
async fn callers_without_the_right_certificate_are_refused() {
    let ca = RootCa::generate().unwrap();
    let (addr, _serving) = serve_health(manager(&ca)).await;

    let anonymous = config::client(roots(&ca), None).unwrap();
    let status = check(channel_with(anonymous, addr)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    assert!(
        status
            .message()
            .ends_with("no client certificates in request"),
        "{status}"
    );

    for (id, role, text) in [
        ("w1", Role::Worker, "not part of OUs: [swarm-manager]"),
        (
            "removed",
            Role::Manager,
            "node removed was removed from swarm",
        ),
    ] {
        let client = Tls::new(credentials(&ca, id, role));
        let channel = client
            .channel(&addr.to_string(), ServerName::Manager)
            .unwrap();
        let status = check(channel).await.unwrap_err();
        assert!(status.message().ends_with(text), "{status}");
    }
}

#[tokio::test]
async fn another_clusters_certificate_is_refused_by_both_sides() {
    let (ca, other) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    let (addr, _serving) = serve_health(manager(&ca)).await;

    // The client trusts the server, but the server does not trust the client.
    let stranger = credentials(&other, "m2", Role::Manager);
    let config = ClientConfigWith(&stranger, &ca).build();
    let status = check(channel_with(config, addr)).await.unwrap_err();
    assert_ne!(
        status.code(),
        tonic::Code::PermissionDenied,
        "it ends in the handshake"
    );

    let channel = Tls::new(stranger)
        .channel(&addr.to_string(), ServerName::Manager)
        .unwrap();
    let status = check(channel).await.unwrap_err();
    let text = status.message();
    assert!(
        text.contains("not signed by the root CA of this cluster"),
        "{text}"
    );
}

/// The identity of one cluster with the roots of another.
struct ClientConfigWith<'a>(&'a Credentials, &'a RootCa);

impl ClientConfigWith<'_> {
    fn build(&self) -> Arc<rustls::ClientConfig> {
        let mut config = (**self.0.client_config()).clone();
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(roots(self.1), provider());
        config
            .dangerous()
            .set_certificate_verifier(verifier.build().unwrap());
        Arc::new(config)
    }
}

#[tokio::test]
async fn a_server_must_have_the_name_asked_for() {
    let ca = RootCa::generate().unwrap();
    let worker = Tls::new(credentials(&ca, "w1", Role::Worker));
    let (addr, _serving) = serve_health(worker).await;
    let client = manager(&ca);
    let error = raw(client.current().client_config().clone(), addr)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, Error::NotAManager { .. }));
    assert!(
        error.to_string().contains("does not name swarm-manager"),
        "{error}"
    );
    let channel = client
        .channel(&addr.to_string(), ServerName::Manager)
        .unwrap();
    let status = check(channel).await.unwrap_err();
    let text = status.message();
    assert!(text.contains("does not name swarm-manager"), "{text}");
}

#[tokio::test]
async fn new_connections_use_replaced_credentials() {
    let (ca, next) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    let server = manager(&ca);
    let (addr, _serving) = serve_health(server.clone()).await;
    let client = Tls::new(credentials(&ca, "m2", Role::Manager));
    let old = client
        .channel(&addr.to_string(), ServerName::Manager)
        .unwrap();
    check(old.clone()).await.unwrap();
    let config = client.current().client_config().clone();
    assert_eq!(presented(&raw(config.clone(), addr).await.unwrap()), "m1");

    // The certificate alone, then the root of trust as well.
    let news = server.subscribe();
    server.replace(credentials(&ca, "m1-renewed", Role::Manager));
    assert!(news.has_changed().unwrap());
    assert_eq!(server.current().identity().node_id, "m1-renewed");
    assert_eq!(
        presented(&raw(config.clone(), addr).await.unwrap()),
        "m1-renewed"
    );
    server.replace(credentials(&next, "m1-next", Role::Manager));
    assert!(matches!(
        raw(config, addr).await,
        Err(Error::NotAManager { .. })
    ));
    check(old).await.expect("an open connection stays open");

    client.replace(credentials(&next, "m2", Role::Manager));
    check(
        client
            .channel(&addr.to_string(), ServerName::Manager)
            .unwrap(),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn nodes_before_and_after_a_change_of_root_talk_to_each_other() {
    let (old, new) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    let crossed = old.cross_sign(&new).unwrap();
    let signer = RootCa::from_pem(new.cert_pem(), new.key_pem().map(AsRef::as_ref)).unwrap();
    let signer = signer.with_intermediate(crossed);
    // A node that the new root has certified, by the root that it trusts.
    let moved = |name: &str, trusted: &RootCa| {
        let request = crate::CertificateRequest::generate().unwrap();
        let who = crate::testing::identity(name, Role::Manager);
        let now = std::time::SystemTime::now();
        let chain = signer.issue(request.csr_pem(), &who, Duration::ZERO, now);
        Tls::new(request.finish(trusted.cert_pem(), &chain.unwrap()).unwrap())
    };
    let nodes = [
        Tls::new(credentials(&old, "m1", Role::Manager)),
        moved("m2", &old),
        moved("m3", &new),
    ];
    for (at, server) in nodes.iter().enumerate() {
        let (addr, _serving) = serve_health(server.clone()).await;
        for (from, client) in nodes.iter().enumerate() {
            let channel = client.channel(&addr.to_string(), ServerName::Manager);
            let reached = check(channel.unwrap()).await;
            // The last to move is the one that does not know the root that has taken over; by then
            // nobody has a certificate of the old root alone.
            let apart = (at == 0) != (from == 0) && (at == 2 || from == 2);
            assert_eq!(reached.is_ok(), !apart, "{from} to {at}: {reached:?}");
        }
    }
}

#[tokio::test]
async fn other_roots_are_trusted_as_long_as_they_are_named() {
    let (own, other) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    let server = manager(&own);
    let (addr, _serving) = serve_health(server.clone()).await;
    let stranger = credentials(&other, "m2", Role::Manager);
    let stranger = channel_with(ClientConfigWith(&stranger, &own).build(), addr);
    let refused = async |channel: Channel| check(channel).await.is_err();
    assert!(refused(stranger.clone()).await);

    server.also_trust(&[other.cert_pem().clone()]).unwrap();
    assert!(!refused(stranger).await, "as a client");
    let (there, _there) = serve_health(manager(&other)).await;
    let dial = || {
        let tls = Tls::new(credentials(&own, "m3", Role::Manager));
        tls.also_trust(&[other.cert_pem().clone()]).unwrap();
        tls
    };
    let error = raw(dial().client_config(), there).await.err();
    assert!(error.is_none(), "as a server: {error:?}");

    // New credentials of one's own change nothing about it, and an end of it ends it.
    server.replace(credentials(&own, "m1-renewed", Role::Manager));
    let again = || {
        let stranger = credentials(&other, "m2", Role::Manager);
        channel_with(ClientConfigWith(&stranger, &own).build(), addr)
    };
    check(again()).await.unwrap();
    server.also_trust(&[]).unwrap();
    assert!(refused(again()).await);
    assert!(server.also_trust(&["nonsense".into()]).is_err());
}

#[tokio::test]
async fn both_versions_negotiate_http2_and_nothing_is_resumed() {
    let ca = RootCa::generate().unwrap();
    let tls = manager(&ca);
    let current = tls.current();
    assert_eq!(current.server_config().send_tls13_tickets, 0);
    assert!(!current.server_config().session_storage.can_cache());
    assert!(!current.server_config().ticketer.enabled());
    let (addr, _serving) = serve_health(tls.clone()).await;

    let mut old = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(roots(&ca))
        .with_no_client_auth();
    old.alpn_protocols = vec![b"h2".to_vec()];
    let stream = raw(Arc::new(old.clone()), addr).await.unwrap();
    assert_eq!(
        stream.get_ref().1.protocol_version(),
        Some(ProtocolVersion::TLSv1_2)
    );
    let stream = raw(current.client_config().clone(), addr).await.unwrap();
    assert_eq!(
        stream.get_ref().1.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );

    // A manager that negotiates nothing is one still, but nobody joins through it.
    let mut silent = rustls::ClientConfig::clone(current.client_config());
    silent.alpn_protocols.clear();
    let silent = Arc::new(silent);
    check(channel_with(silent.clone(), addr)).await.unwrap();
    let addr = addr.to_string();
    let joining = connect(&TcpDial, silent, &addr, ServerName::Ca, CONNECT_TIMEOUT);
    let error = joining.await.err().unwrap();
    assert!(error.to_string().contains("not HTTP/2"), "{error}");
}

#[tokio::test]
async fn bad_addresses_are_refused_at_once() {
    let tls = manager(&RootCa::generate().unwrap());
    let result = tls.channel("nonsense", ServerName::Manager);
    assert!(matches!(result, Err(Error::InvalidAddress(_))));
}
