//! Decoders of this crate for fuzzing. Nothing here is an interface.

use std::{path::Path, sync::Arc};

use futures_util::StreamExt as _;
use prost::Message as _;
use skep_proto::v1;
use skep_template::{Node, Payload, Scope, expand_task};

use crate::{
    assignments::{Chain, Changes},
    executor::process::{
        logs::{self, line, pieces},
        record::Record,
    },
    remotes::{Remotes, file, known_managers},
    task_store::{TaskStore, is_safe},
};

/// Puts a text where a task may have placeholders, and into a config of it.
pub fn template(text: &[u8]) {
    struct Files<'a>(&'a [u8]);
    impl Payload for Files<'_> {
        fn secret(&self, target: &str) -> Option<Vec<u8>> {
            (target == "key").then(|| self.0.to_vec())
        }
        fn config(&self, target: &str) -> Option<Vec<u8>> {
            (target == "file").then(|| vec![b'x'; 1 << 16])
        }
    }
    let mut task = v1::Task {
        id: "task".to_owned(),
        slot: 3,
        ..Default::default()
    };
    let labels = [("tier".to_owned(), "front".to_owned())].into();
    task.service_annotations_mut().labels = labels;
    let spec = v1::ContainerSpec {
        env: vec!["A=1".to_owned(), String::from_utf8_lossy(text).into_owned()],
        ..Default::default()
    };
    task.spec_mut().runtime = Some(v1::task_spec::Runtime::Container(spec));
    let task = Arc::new(task);
    let node = Node::default();
    let expanded = expand_task(&task, &node).unwrap_or(task);
    let _ = Scope::of_payload(&expanded, &node, &Files(text)).expand_bytes(text);
}

/// Gives a task's output to its log in pieces: each after its size in two bytes. Checks that nothing is
/// lost.
///
/// # Panics
/// If something is.
pub fn output(mut input: &[u8]) {
    let mut chunks = Vec::new();
    while let Some((size, rest)) = input.split_first_chunk() {
        let size = usize::from(u16::from_le_bytes(*size)).min(rest.len());
        let (chunk, rest) = rest.split_at(size);
        chunks.push(chunk);
        input = rest;
    }
    pieces::check(chunks.into_iter());
}

/// Reads a file as a log, in all ways. `dir` is an empty directory.
pub async fn log_file(dir: &Path, input: &[u8]) {
    let _ = line::decode(input);
    if std::fs::write(dir.join("log"), input).is_err()
        || std::fs::write(dir.join(logs::END), "").is_err()
    {
        return;
    }
    for tail in [0, -1, -3, i64::MIN] {
        let options = v1::LogSubscriptionOptions {
            follow: tail == -3,
            tail,
            ..Default::default()
        };
        let mut lines = logs::read(dir.to_owned(), options);
        while lines.next().await.is_some() {}
    }
}

/// Reads each file that an agent leaves in its state directory; this is one of them. `dir` is an empty
/// directory.
pub fn state_files(dir: &Path, input: &[u8]) {
    let Ok(store) = TaskStore::open(dir) else {
        return;
    };
    let task = store.dir("task");
    let files = ["task.pb", "status.pb", "process.json"].map(|name| task.join(name));
    if std::fs::create_dir_all(&task).is_err() {
        return;
    }
    for path in files.iter().chain([&file(dir)]) {
        if std::fs::write(path, input).is_err() {
            return;
        }
    }
    let _ = (store.load(), Record::load(&task), known_managers(dir));
    if let Ok(remotes) = Remotes::open(file(dir), []) {
        let _ = (remotes.choose(0.5), remotes.choose(0.999));
    }
}

/// Takes assignments, as a session does.
pub fn assignments(input: &[u8]) {
    let Ok(message) = v1::AssignmentsMessage::decode(input) else {
        return;
    };
    let mut chain = Chain::default();
    if chain.follow(&message).is_ok() {
        let _ = chain.follow(&message);
    }
    for change in Changes::from(message).tasks {
        if let crate::assignments::Change::Put(task) = change {
            let _ = is_safe(&task.id);
            let _ = expand_task(&Arc::new(task), &Node::default());
        }
    }
}
