//! A cluster: what is done to its managers, and what is waited for.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use skep_proto::v1;
use skep_raft::{Error, LogKind, LogStore, force_new_cluster, open_log};
use skep_security::RootCa;
use skep_store::Tx;
use tokio::time::timeout;

use super::{CLUSTER, Manager, PATIENCE, bind, node_object};

pub struct Cluster {
    pub managers: Vec<Manager>,
    ca: RootCa,
}

impl Cluster {
    pub async fn start(size: usize) -> Self {
        let ca = RootCa::generate().unwrap();
        let mut first = Manager::new(&ca, 0).await;
        first.run(None, None).await;
        let mut cluster = Self {
            managers: vec![first],
            ca,
        };
        for _ in 1..size {
            cluster.add().await;
        }
        cluster
    }

    pub async fn start_with(log: impl LogStore + 'static) -> Self {
        let ca = RootCa::generate().unwrap();
        let mut first = Manager::new(&ca, 0).await;
        first.run(None, Some(Box::new(log))).await;
        Self {
            managers: vec![first],
            ca,
        }
    }

    pub async fn add(&mut self) {
        self.add_with(None).await;
    }

    pub async fn add_with(&mut self, log: Option<Box<dyn LogStore>>) {
        let manager = Manager::new(&self.ca, self.managers.len()).await;
        self.join(manager, log).await;
    }

    /// Adds a manager that takes Raft messages as SwarmKit's do.
    pub async fn add_plain(&mut self) {
        let mut manager = Manager::new(&self.ca, self.managers.len()).await;
        manager.plain = true;
        self.join(manager, None).await;
    }

    async fn join(&mut self, mut manager: Manager, log: Option<Box<dyn LogStore>>) {
        let leader = self.leader().await;
        let through = self.managers[leader].addr;
        manager.run(Some(through), log).await;
        self.managers.push(manager);
        let new = self.managers.len() - 1;
        self.wait("the new member votes and knows all", |cluster| {
            let status = cluster.managers[new].status();
            status.members.len() == cluster.running().count() && status.votes()
        })
        .await;
    }

    /// A node that has a certificate and answers health checks, but is no member.
    pub async fn outsider(&mut self) -> Manager {
        let mut manager = Manager::new(&self.ca, self.managers.len()).await;
        manager.serve().await;
        manager
    }

    /// Takes the log of a killed manager away.
    pub async fn wipe(&mut self, manager: usize) {
        drop(self.open_log(manager).await);
        std::fs::remove_dir_all(self.managers[manager].log_dir()).unwrap();
    }

    /// Starts a manager that has no log, which has to ask the leader.
    pub async fn rejoin(&mut self, manager: usize) {
        let leader = self.leader().await;
        let through = self.managers[leader].addr;
        self.managers[manager].run(Some(through), None).await;
    }

    /// Ends a manager as a crash does: nothing is handed over.
    pub fn kill(&mut self, manager: usize) {
        self.managers[manager].running = None;
    }

    pub async fn restart(&mut self, manager: usize) {
        let log = self.open_log(manager).await;
        self.managers[manager].run(None, Some(log)).await;
    }

    /// Opens the log of a manager that was killed, which closes it soon.
    pub async fn open_log(&self, manager: usize) -> Box<dyn LogStore> {
        let dir = self.managers[manager].log_dir();
        let started = Instant::now();
        loop {
            match open_log(&dir, LogKind::default()) {
                Ok(log) => return log,
                Err(Error::Locked(_)) if started.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Starts a killed manager at another address, with where to look for the others.
    pub async fn restart_elsewhere(&mut self, manager: usize, contact: Option<SocketAddr>) {
        let log = self.open_log(manager).await;
        let addr = bind("127.0.0.1:0".parse().unwrap()).await.local_addr();
        let manager = &mut self.managers[manager];
        manager.addr = addr.unwrap();
        manager.run_with(None, contact, Some(log)).await;
    }

    /// Starts a killed manager as the only one of its group, at another address.
    pub async fn force(&mut self, manager: usize) {
        let mut log = self.open_log(manager).await;
        let addr = bind("127.0.0.1:0".parse().unwrap()).await.local_addr();
        let manager = &mut self.managers[manager];
        manager.addr = addr.unwrap();
        force_new_cluster(&mut log, &manager.addr.to_string()).unwrap();
        manager.run(None, Some(log)).await;
    }

    /// Puts a forwarder in front of a killed manager and lets it advertise that.
    pub async fn restart_behind_forwarder(&mut self, manager: usize) {
        let log = self.open_log(manager).await;
        let manager = &mut self.managers[manager];
        let forwarder = bind("127.0.0.1:0".parse().unwrap()).await;
        let inside = manager.addr;
        manager.addr = forwarder.local_addr().unwrap();
        manager.listen = Some(inside);
        tokio::spawn(async move {
            while let Ok((mut outer, _)) = forwarder.accept().await {
                tokio::spawn(async move {
                    if let Ok(mut inner) = tokio::net::TcpStream::connect(inside).await {
                        let copied = tokio::io::copy_bidirectional(&mut outer, &mut inner);
                        copied.await.unwrap_or_default();
                    }
                });
            }
        });
        manager.run(None, Some(log)).await;
    }

    /// Waits until all that run know each other at the addresses that they have now.
    pub async fn all_know_the_addresses(&mut self) {
        self.wait("all know where all are", |cluster| {
            let running = || cluster.running().map(|i| &cluster.managers[i]);
            let mut expected: Vec<_> = running().map(|m| m.addr.to_string()).collect();
            expected.sort();
            running().all(|manager| {
                let status = manager.status();
                let mut known: Vec<_> = status.members.into_iter().map(|m| m.addr).collect();
                known.sort();
                known == expected && status.leader.is_some()
            })
        })
        .await;
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.managers.len()).filter(|i| self.managers[*i].running.is_some())
    }

    pub fn addr(&self, manager: usize) -> SocketAddr {
        self.managers[manager].addr
    }

    pub fn addresses(&self) -> Vec<String> {
        let mut addresses: Vec<_> = self.managers.iter().map(|m| m.addr.to_string()).collect();
        addresses.sort();
        addresses
    }

    /// Polls until it holds: a condition over several managers has no single thing to wait on.
    pub async fn wait(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !holds(self) {
            assert!(started.elapsed() < PATIENCE, "it never happens that {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn present_leader(&self) -> Option<usize> {
        self.running()
            .filter(|i| self.managers[*i].status().leading)
            .max_by_key(|i| self.managers[*i].status().term)
    }

    pub async fn leader(&mut self) -> usize {
        self.wait("a manager leads", |cluster| {
            cluster.present_leader().is_some()
        })
        .await;
        self.present_leader().unwrap()
    }

    pub async fn wait_reachable(&mut self, manager: usize) {
        self.wait("all are reachable", |cluster| {
            let reachable = v1::raft_member_status::Reachability::Reachable;
            let members = cluster.managers[manager].status().members;
            members
                .iter()
                .all(|member| member.status().reachability() == reachable)
        })
        .await;
    }

    /// Writes through whoever leads until it is acknowledged.
    async fn update(&mut self, write: impl Fn(&mut Tx) -> Result<(), skep_store::Error>) {
        let started = Instant::now();
        loop {
            assert!(started.elapsed() < PATIENCE, "no write is acknowledged");
            let leader = self.leader().await;
            let store = self.managers[leader].store.clone();
            match timeout(PATIENCE, store.update(&write)).await.unwrap() {
                Ok(()) | Err(skep_store::Error::Exists) => return,
                Err(skep_store::Error::LostLeadership) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub async fn write(&mut self, name: &str) {
        self.update(|tx| tx.create(node_object(name)).map(drop))
            .await;
    }

    pub async fn write_large(&mut self, name: &str, size: usize) {
        self.update(|tx| {
            let mut node = node_object(name);
            node.spec_mut().annotations_mut().name = "x".repeat(size);
            tx.create(node).map(drop)
        })
        .await;
    }

    pub async fn set_raft_config(&mut self, interval: u64, kept: u64) {
        self.update(|tx| {
            let mut cluster = v1::Cluster {
                id: CLUSTER.to_owned(),
                ..v1::Cluster::default()
            };
            let spec = cluster.spec_mut();
            spec.annotations_mut().name = "default".to_owned();
            spec.raft_mut().snapshot_interval = interval;
            spec.raft_mut().log_entries_for_slow_followers = kept;
            tx.create(cluster).map(drop)
        })
        .await;
    }

    pub fn has(&self, manager: usize, name: &str) -> bool {
        let snapshot = self.managers[manager].store.snapshot();
        snapshot.get::<v1::Node>(name).is_some()
    }

    pub async fn everyone_has(&mut self, name: &str) {
        self.wait(&format!("everyone has {name}"), |cluster| {
            cluster.running().all(|i| cluster.has(i, name))
        })
        .await;
    }
}
