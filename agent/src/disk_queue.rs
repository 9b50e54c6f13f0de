//! Disk work of many tasks on few threads.
//!
//! A sync takes milliseconds, so it needs a thread that may block. One for each piece of work would
//! be hundreds when a node gets all its tasks at once, and they would wait for the same disk.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, task::spawn_blocking};

/// Threads at work: enough that the syncs of some share a write of the disk.
const THREADS: usize = 16;

type Work = Box<dyn FnOnce() + Send>;

/// Work that waits for a thread. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct DiskQueue {
    inner: Arc<Mutex<Inner>>,
}

/// Whoever has work waits for its end, so there is one piece a task at most.
#[derive(Default)]
struct Inner {
    waiting: VecDeque<Work>,
    threads: usize,
}

impl DiskQueue {
    /// Does `work` after what came before. What was begun is brought to its end, also if nobody waits
    /// for it any more.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (done, result) = oneshot::channel();
        self.push(Box::new(move || {
            // Who asked may be gone.
            let _ = done.send(work());
        }));
        let lost = |_| Err(io::Error::other("disk work was not done"));
        result.await.unwrap_or_else(lost)
    }

    fn push(&self, work: Work) {
        let mut inner = self.inner.lock();
        inner.waiting.push_back(work);
        if inner.threads < THREADS {
            inner.threads += 1;
            let queue = self.clone();
            spawn_blocking(move || queue.work());
        }
    }

    /// Works until there is nothing to do.
    fn work(&self) {
        loop {
            let mut inner = self.inner.lock();
            let Some(work) = inner.waiting.pop_front() else {
                inner.threads -= 1;
                return;
            };
            drop(inner);
            // Told by the answer that never comes.
            let _ = catch_unwind(AssertUnwindSafe(work));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn everything_is_done_by_few_at_a_time() {
        let queue = DiskQueue::default();
        let (busy, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let works = (0..200).map(|number| {
            let (busy, most) = (Arc::clone(&busy), Arc::clone(&most));
            queue.run(move || {
                most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                busy.fetch_sub(1, Ordering::SeqCst);
                Ok(number)
            })
        });
        let done: Vec<_> = join_all(works)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert_eq!(done, (0..200).collect::<Vec<_>>());
        assert!(most.load(Ordering::SeqCst) <= THREADS);
    }

    #[tokio::test]
    async fn a_panic_costs_no_thread() {
        let queue = DiskQueue::default();
        for _ in 0..2 * THREADS {
            let lost = queue.run(|| -> io::Result<()> { panic!("planted") }).await;
            assert!(lost.is_err());
        }
        assert!(queue.run(|| Ok(())).await.is_ok());
    }
}
