//! The control socket, whose first byte tells plaintext from TLS.

use std::time::Duration;

use skep_security::control_incoming;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    time::timeout,
};
use tokio_stream::StreamExt as _;

use crate::seeds;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    // The head of a TLS record, with the beginning of a handshake in it.
    let hello = [0x16, 3, 1, 0, 50, 1, 0, 0, 46, 3, 3];
    vec![
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        hello.iter().copied().chain([7; 44]).collect(),
        vec![0x16],
    ]
}

pub(crate) fn run(input: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let tls = seeds::identity().tls.clone();
        let mut incoming = control_incoming(listener, tls);
        let mut client = UnixStream::connect(&path).await.unwrap();
        let serve = async {
            if let Some(Ok(mut stream)) = incoming.next().await {
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        };
        let talk = async {
            // The other side may have hung up already.
            let _ = client.write_all(input).await;
            let _ = client.shutdown().await;
            let _ = client.read_to_end(&mut Vec::new()).await;
        };
        let ended = timeout(Duration::from_secs(20), async {
            tokio::select! { () = serve => {}, () = talk => {} }
        });
        ended.await.expect("the connection is served or closed");
    });
}
