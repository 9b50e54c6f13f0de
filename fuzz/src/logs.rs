//! What nodes publish for a subscription to logs.

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use http_body_util::Full;
use prost::Message as _;
use skep_manager::logbroker::LogBroker;
use skep_proto::v1::{self, log_broker_server::LogBroker as _, logs_server::Logs as _};
use skep_store::{Entry, Store};
use tokio_stream::StreamExt as _;
use tonic::{
    Request,
    codec::{Codec as _, Streaming},
};
use tonic_prost::ProstCodec;

use crate::dispatcher::{NODE, of_node};

/// In inputs, the subscription that there is.
const SUBSCRIPTION: &str = "S";

/// Messages one after the other, each after its size in two bytes.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let line = |text: &str| v1::LogMessage {
        context: Some(v1::LogContext {
            service_id: "service".into(),
            node_id: NODE.into(),
            task_id: "task".into(),
        }),
        stream: v1::LogStream::Stdout.into(),
        data: text.to_owned().into(),
        ..Default::default()
    };
    let message = |lines: &[&str], close| v1::PublishLogsMessage {
        subscription_id: SUBSCRIPTION.into(),
        messages: lines.iter().map(|text| line(text)).collect(),
        close,
    };
    let pack = |messages: &[v1::PublishLogsMessage]| {
        let mut bytes = Vec::new();
        for message in messages {
            bytes.extend((message.encoded_len() as u16).to_le_bytes());
            message.encode(&mut bytes).unwrap();
        }
        bytes
    };
    vec![
        pack(&[message(&["a\n", "b\n"], false), message(&[], true)]),
        pack(&[message(&["a\n"], false), message(&["b\n"], false)]),
        pack(&[message(&[], true)]),
    ]
}

/// The input as the body of a call. What does not decode travels as it is.
fn body(mut input: &[u8], subscription: &str) -> BytesMut {
    let mut body = BytesMut::new();
    while let Some((size, rest)) = input.split_first_chunk() {
        let size = usize::from(u16::from_le_bytes(*size)).min(rest.len());
        let (message, rest) = rest.split_at(size);
        input = rest;
        let mut bytes = message.to_vec();
        if let Ok(mut message) = v1::PublishLogsMessage::decode(message)
            && message.subscription_id == SUBSCRIPTION
        {
            message.subscription_id = subscription.to_owned();
            bytes = message.encode_to_vec();
        }
        body.put_u8(0);
        body.put_u32(bytes.len() as u32);
        body.extend_from_slice(&bytes);
    }
    body
}

/// A store with a task that runs on the node.
fn store() -> Store {
    let task = v1::Task {
        id: "task".into(),
        service_id: "service".into(),
        node_id: NODE.into(),
        status: Some(v1::TaskStatus {
            state: v1::TaskState::Running.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let create = v1::StoreAction {
        action: v1::StoreActionKind::StoreActionCreate.into(),
        target: Some(v1::store_action::Target::Task(task)),
    };
    let request = v1::InternalRaftRequest {
        id: 1,
        action: vec![create],
    };
    let store = Store::new(skep_proto::Timestamp::default);
    let data = request.encode_to_vec().into();
    store.apply(&[Entry { index: 1, data }]).unwrap();
    store
}

pub(crate) fn run(input: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let publish = async {
        let broker = LogBroker::new(store());
        let _running = broker.begin();
        let selector = v1::LogSelector {
            service_ids: vec!["service".into()],
            ..Default::default()
        };
        let request = v1::SubscribeLogsRequest {
            selector: Some(selector),
            options: Some(v1::LogSubscriptionOptions {
                follow: true,
                ..Default::default()
            }),
        };
        let lines = broker.subscribe_logs(Request::new(request)).await.unwrap();
        let mut lines = lines.into_inner();
        let listen = broker.listen_subscriptions(of_node(v1::ListenSubscriptionsRequest {}));
        let mut told = listen.await.unwrap().into_inner();
        let subscription = tokio::select! {
            told = told.next() => told.unwrap().unwrap(),
            _ = lines.next() => panic!("nobody has published anything"),
        };
        let decoder =
            ProstCodec::<v1::PublishLogsMessage, v1::PublishLogsMessage>::default().decoder();
        let body = Full::new(body(input, &subscription.id).freeze());
        let messages = Streaming::new_request(decoder, body, None, None);
        let read = async { while lines.next().await.is_some() {} };
        tokio::select! {
            _ = broker.publish_logs(of_node(messages)) => {}
            () = read => {}
        }
    };
    let done =
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), publish).await });
    done.expect("what a node publishes is taken or refused");
}
