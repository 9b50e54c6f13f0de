use std::sync::Arc;

use hyper_util::rt::TokioIo;
use skep_proto::v1::{
    HealthCheckRequest, health_client::HealthClient, health_server::HealthServer,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};
use tokio_rustls::TlsConnector;
use tokio_stream::StreamExt as _;
use tonic::transport::{Channel, Endpoint, Server};

use super::*;
use crate::{
    Role, RootCa, ServerName,
    testing::{Serving, TestHealth, credentials, serve_health},
    tls::config::unverified_client,
};

fn manager() -> Tls {
    Tls::new(credentials(
        &RootCa::generate().unwrap(),
        "m1",
        Role::Manager,
    ))
}

async fn check(channel: Channel) -> i32 {
    let mut client = HealthClient::new(channel);
    client
        .check(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner()
        .status
}

#[tokio::test]
async fn silent_and_talkative_strangers_hold_up_nobody() {
    let tls = manager();
    let (addr, _serving) = serve_health(tls.clone()).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(addr).await.unwrap());
    }
    let mut http = TcpStream::connect(addr).await.unwrap();
    http.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let channel = tls.channel(&addr.to_string(), ServerName::Manager).unwrap();
    assert_eq!(check(channel).await, 1);
    // The stranger is told off with an alert and the connection ends.
    let mut answer = Vec::new();
    http.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.first(), Some(&21), "a TLS alert");
}

#[tokio::test]
async fn dropping_the_stream_ends_listener_and_handshakes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut incoming = tls_incoming(listener, manager());
    let mut silent = TcpStream::connect(addr).await.unwrap();
    // Polled once or more, until the connection is accepted: then a handshake waits for it.
    let polled = tokio::time::timeout(Duration::from_millis(50), incoming.next()).await;
    assert!(polled.is_err(), "no handshake was done");
    drop(incoming);
    let closed = silent.read(&mut [0; 1]).await;
    assert!(matches!(closed, Ok(0) | Err(_)));
    assert!(TcpStream::connect(addr).await.is_err());
}

/// Twenty-five connections at a time through a door for few: none is lost.
#[tokio::test]
async fn many_connect_at_once() {
    let tls = manager();
    let (addr, _serving) = serve_health(tls.clone()).await;
    let mut calls = JoinSet::new();
    for _ in 0..25 {
        let channel = tls.channel(&addr.to_string(), ServerName::Manager).unwrap();
        calls.spawn(check(channel));
    }
    assert_eq!(calls.join_all().await, vec![1; 25]);
}

#[tokio::test]
async fn the_control_socket_speaks_plaintext_and_tls() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let incoming = control_incoming(listener, manager());
    let server = Server::builder().add_service(HealthServer::new(TestHealth));
    let _serving = Serving(tokio::spawn(async move {
        server.serve_with_incoming(incoming).await.unwrap();
    }));
    let _silent = UnixStream::connect(&path).await.unwrap();

    let plain = {
        let path = path.clone();
        tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        })
    };
    let endpoint = Endpoint::from_static("http://localhost");
    assert_eq!(
        check(endpoint.connect_with_connector(plain).await.unwrap()).await,
        1
    );

    let config: Arc<_> = unverified_client().unwrap();
    let secure = tower::service_fn(move |_: http::Uri| {
        let (path, config) = (path.clone(), config.clone());
        async move {
            let stream = UnixStream::connect(path).await?;
            let name = "anything".try_into().unwrap();
            TlsConnector::from(config)
                .connect(name, stream)
                .await
                .map(TokioIo::new)
        }
    });
    assert_eq!(
        check(endpoint.connect_with_connector(secure).await.unwrap()).await,
        1
    );
}
