//! Watches on a store whose log is kept by hand.

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use skep_proto::{
    Timestamp,
    v1::{Node, Version, WatchMessage, watch_request::WatchEntry, watch_server::Watch as _},
};
use skep_store::testing::ManualLog;
use tonic::Code;

use super::*;

/// The log: entries in order, the first of index 1 unless some were dropped.
#[derive(Default)]
struct Log {
    entries: Vec<Entry>,
    first: u64,
}

impl History for Arc<Mutex<Log>> {
    fn entries_after(
        &self,
        after: u64,
        through: u64,
    ) -> BoxFuture<'_, Result<Vec<Entry>, skep_raft::Error>> {
        let log = self.lock();
        let first = log.first;
        let answer = if after + 1 < first {
            Err(skep_raft::Error::Compacted { first })
        } else {
            let wanted = |entry: &&Entry| entry.index > after && entry.index <= through;
            // Two at a time.
            Ok(log.entries.iter().filter(wanted).take(2).cloned().collect())
        };
        Box::pin(async { answer })
    }
}

struct Swarm {
    store: Store,
    proposals: ManualLog,
    log: Arc<Mutex<Log>>,
    watch: Watch,
    cancel: CancellationToken,
}

impl Swarm {
    fn new() -> Self {
        let store = Store::new(Timestamp::default);
        let proposals = ManualLog::default();
        store.lead(1, Arc::new(proposals.clone()));
        let log = Arc::new(Mutex::new(Log {
            entries: Vec::new(),
            first: 1,
        }));
        let cancel = CancellationToken::new();
        Self {
            watch: Watch::new(store.clone(), log.clone(), cancel.clone()),
            store,
            proposals,
            log,
            cancel,
        }
    }

    /// One transaction that is not committed yet.
    fn propose(&self, id: &str) {
        let mut node = Node {
            id: id.to_owned(),
            ..Default::default()
        };
        node.spec_mut().annotations_mut().name = "x".repeat(1000);
        let waiting = self.proposals.len();
        let update = self.store.update(|tx| tx.create(node).map(drop));
        let mut update = Box::pin(tokio::task::unconstrained(update));
        let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(update.as_mut().poll(&mut nobody).is_pending());
        assert_eq!(self.proposals.len(), waiting + 1);
    }

    /// Commits everything at once.
    fn commit(&self) {
        let entries = self
            .proposals
            .take(self.store.snapshot().index(), usize::MAX);
        self.log.lock().entries.extend(entries.iter().cloned());
        self.store.apply(&entries).unwrap();
    }

    fn write(&self, id: &str) {
        self.propose(id);
        self.commit();
    }

    fn index(&self) -> u64 {
        self.store.snapshot().index()
    }

    async fn open(&self, resume_from: Option<u64>) -> Result<Messages, Status> {
        let request = WatchRequest {
            entries: vec![WatchEntry {
                kind: "node".to_owned(),
                action: 7,
                ..Default::default()
            }],
            resume_from: resume_from.map(|index| Version { index }),
            ..Default::default()
        };
        let opened = self.watch.watch(Request::new(request)).await?;
        Ok(opened.into_inner())
    }

    /// A watch that is in place.
    async fn watching(&self, resume_from: Option<u64>) -> Messages {
        let mut messages = self.open(resume_from).await.unwrap();
        let first = messages.next().await.unwrap().unwrap();
        assert_eq!(first, WatchMessage::default());
        messages
    }
}

/// The versions of the next messages.
async fn versions(messages: &mut Messages, count: usize) -> Vec<u64> {
    let mut versions = Vec::new();
    while versions.len() < count {
        let message = messages.next().await.unwrap().unwrap();
        assert_eq!(message.events.len(), 1);
        versions.push(message.version.unwrap().index);
    }
    versions
}

/// Nothing is on its way.
async fn assert_silent(messages: &mut Messages) {
    let silent = timeout(Duration::from_millis(50), messages.next()).await;
    assert!(silent.is_err(), "{silent:?}");
}

#[tokio::test]
async fn an_empty_message_first_and_then_one_for_each_transaction() {
    let swarm = Swarm::new();
    swarm.write("before");
    let mut messages = swarm.watching(None).await;
    swarm.propose("a");
    swarm.propose("b");
    swarm.commit();
    swarm.write("c");
    assert_eq!(versions(&mut messages, 3).await, [2, 3, 4]);
    assert_silent(&mut messages).await;
}

#[tokio::test]
async fn without_entries_nothing_but_the_first_message_comes() {
    let swarm = Swarm::new();
    let opened = swarm.watch.watch(Request::new(WatchRequest::default()));
    let mut messages = opened.await.unwrap().into_inner();
    let first = messages.next().await.unwrap().unwrap();
    assert_eq!(first, WatchMessage::default());
    swarm.write("a");
    assert_silent(&mut messages).await;
}

#[tokio::test]
async fn a_resumed_watch_misses_nothing_and_repeats_nothing() {
    for resume_from in 0..=5 {
        let swarm = Swarm::new();
        for id in ["1", "2", "3", "4", "5"] {
            swarm.write(id);
        }
        let mut messages = swarm.watching(Some(resume_from)).await;
        // Some of these may be replayed and others not.
        swarm.write("6");
        swarm.propose("7");
        swarm.propose("8");
        swarm.commit();
        let expected: Vec<u64> = (resume_from + 1..=8).collect();
        assert_eq!(versions(&mut messages, expected.len()).await, expected);
        swarm.write("9");
        assert_eq!(versions(&mut messages, 1).await, [9]);
        assert_silent(&mut messages).await;
    }
}

#[tokio::test]
async fn versions_of_objects_can_be_resumed_from_too() {
    let swarm = Swarm::new();
    swarm.write("1");
    // Entries that are not for the store make the log longer than the number of transactions.
    let index = swarm.index() + 1;
    let data = bytes::Bytes::new();
    let empty = Entry { index, data };
    swarm.log.lock().entries.push(empty.clone());
    swarm.store.apply(&[empty]).unwrap();
    swarm.write("2");
    swarm.write("3");
    let snapshot = swarm.store.snapshot();
    let version = snapshot.get::<Node>("2").unwrap().meta().version().index;
    assert!(version < 3, "counted by transaction: {version}");
    let mut messages = swarm.watching(Some(version)).await;
    assert_eq!(versions(&mut messages, 2).await, [3, 4]);
}

#[tokio::test]
async fn what_is_compacted_is_an_error_and_never_left_out() {
    let swarm = Swarm::new();
    for id in 0..20 {
        swarm.write(&id.to_string());
    }
    let compact = |first: u64| {
        let mut log = swarm.log.lock();
        log.entries.retain(|entry| entry.index >= first);
        log.first = first;
    };
    compact(4);
    let refused = swarm.open(Some(2)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unknown);
    let text = "requested index is unavailable due to compaction";
    assert!(refused.message().starts_with(text), "{refused}");
    assert_eq!(
        versions(&mut swarm.watching(Some(3)).await, 17).await,
        (4..=20).collect::<Vec<_>>()
    );
    // Also in the midst of it.
    let mut messages = swarm.open(Some(3)).await.unwrap();
    compact(15);
    let mut last = 3;
    let end = loop {
        match messages.next().await.unwrap() {
            Ok(message) if message == WatchMessage::default() => {}
            Ok(message) => {
                last += 1;
                assert_eq!(message.version.unwrap().index, last);
            }
            Err(end) => break end,
        }
    };
    assert!(end.message().starts_with(text), "{end}");
}

#[tokio::test]
async fn a_version_that_is_not_reached_yet_is_waited_for() {
    let mut swarm = Swarm::new();
    swarm.write("1");
    swarm.watch.catch_up = LOOK;
    let refused = swarm.open(Some(3)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unknown);
    let text = "versions are out of order: the log of this manager ends at 1";
    assert!(refused.message().starts_with(text), "{refused}");
    swarm.watch.catch_up = CATCH_UP;
    let (opened, ()) = tokio::join!(swarm.open(Some(3)), async {
        tokio::task::yield_now().await;
        swarm.write("2");
        tokio::task::yield_now().await;
        swarm.propose("3");
        swarm.propose("4");
        swarm.commit();
    });
    let mut messages = opened.unwrap();
    messages.next().await.unwrap().unwrap();
    assert_eq!(versions(&mut messages, 1).await, [4]);
}

#[tokio::test]
async fn r41_a_watch_that_nobody_reads_ends_and_can_be_resumed() {
    let swarm = Swarm::new();
    let mut unread = swarm.open(None).await.unwrap();
    let written = 6000;
    for id in 0..written {
        swarm.write(&id.to_string());
        // Lets the feed run: it must not be the store that holds all this.
        tokio::task::yield_now().await;
    }
    assert_eq!(
        unread.next().await.unwrap().unwrap(),
        WatchMessage::default()
    );
    let (mut last, mut bytes) = (0, 0);
    let end = loop {
        match unread.next().await.unwrap() {
            Ok(message) => {
                last += 1;
                assert_eq!(message.version.unwrap().index, last);
                bytes += prost::Message::encoded_len(&message);
            }
            Err(end) => break end,
        }
    };
    assert_eq!(end.code(), Code::ResourceExhausted, "{end}");
    assert!(unread.next().await.is_none());
    assert!(last < written && bytes <= 4 * 1024 * 1024, "{last} {bytes}");
    // The rest comes when it is asked for, at the pace of the reader.
    let mut messages = swarm.watching(Some(last)).await;
    let rest = usize::try_from(written - last).unwrap();
    let expected: Vec<u64> = (last + 1..=written).collect();
    assert_eq!(versions(&mut messages, rest).await, expected);
}

#[tokio::test]
async fn r42_watches_end_when_the_manager_stops() {
    let swarm = Swarm::new();
    for id in 0..6000 {
        swarm.write(&id.to_string());
    }
    let mut read = swarm.watching(None).await;
    // One that waits for its reader in the midst of what it missed, and one that is given up.
    let mut unread = swarm.open(Some(0)).await.unwrap();
    tokio::task::yield_now().await;
    drop(swarm.open(Some(0)).await.unwrap());
    swarm.cancel.cancel();
    for messages in [&mut read, &mut unread] {
        let end = loop {
            if let Err(end) = messages.next().await.unwrap() {
                break end;
            }
        };
        assert_eq!(end.code(), Code::Unavailable, "{end}");
        assert!(messages.next().await.is_none());
    }
    let late = swarm.open(None).await.unwrap().skip(1).next().await;
    assert_eq!(late.unwrap().unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn watches_are_counted_and_give_their_places_back() {
    let swarm = Swarm::new();
    let mut open = Vec::new();
    for _ in 0..MAX_WATCHES {
        open.push(swarm.open(None).await.unwrap());
    }
    let refused = swarm.open(None).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    open.pop();
    swarm.watching(None).await;
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_an_invalid_argument() {
    let swarm = Swarm::new();
    let request = WatchRequest {
        entries: vec![WatchEntry::default()],
        ..Default::default()
    };
    let refused = swarm.watch.watch(Request::new(request)).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "no kind of object specified")
    );
}
