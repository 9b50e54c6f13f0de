//! Nodes that come back in another way than they went, or go for good.

use std::net::TcpListener;

use skep_node::{End, Join};
use skep_proto::skep::{LeaveRequest, local_client::LocalClient};
use tonic::Status;

use super::{Cluster, control, eventually};

impl Cluster {
    /// Starts a node again with the address of another manager to join, as its unit file would have it.
    pub async fn restart_joining(&mut self, name: &str, through: &str) -> Result<(), String> {
        let token = self.object().await.root_ca().join_tokens().manager.clone();
        self.restart_with(name, through, token).await
    }

    /// Starts a node again with the address of another manager and a token.
    pub async fn restart_with(
        &mut self,
        name: &str,
        through: &str,
        token: String,
    ) -> Result<(), String> {
        let addr = self.host(through).listen.clone();
        let token = Some(token);
        self.try_launch(name, Some(Join { addr, token }), false, None)
            .await
    }

    /// Tells a node to leave, and runs it, as a daemon does, until it has and its state is deleted; or
    /// says why it does not leave.
    pub async fn leave(&mut self, name: &str, force: bool) -> Result<(), Status> {
        let socket = self.state_dir(name).join("local.sock");
        let channel = control::channel(&socket, false).await.unwrap();
        let mut client = LocalClient::new(channel);
        let (runtime, mut node) = self.host(name).running.take().unwrap();
        let told = tokio::spawn(async move { client.leave(LeaveRequest { force }).await });
        let mut told = std::pin::pin!(told);
        let end = tokio::select! {
            end = Box::pin(node.run()) => end,
            answer = &mut told => {
                self.host(name).running = Some((runtime, node));
                return answer.unwrap().map(drop);
            }
        };
        assert_eq!(end, End::Left, "{name}");
        runtime
            .spawn(Box::pin(node.leave()))
            .await
            .unwrap()
            .unwrap();
        told.await.unwrap()?;
        runtime.shutdown_background();
        Ok(())
    }

    /// Starts a node that was killed or stopped at another address. `contact` is where a manager is
    /// now.
    pub async fn restart_elsewhere(&mut self, name: &str, contact: Option<String>) {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let listen = free.unwrap().to_string();
        self.links.listens(name, &listen);
        self.host(name).listen = listen;
        let join = contact.map(|addr| Join { addr, token: None });
        self.launch(name, join, false, None).await;
    }

    /// Starts a manager that was killed or stopped as the only one of its cluster.
    pub async fn force(&mut self, name: &str) {
        self.launch(name, None, true, None).await;
    }

    /// Starts a node that does not start, and returns what it says.
    pub async fn refuses_to_start(&mut self, name: &str) -> String {
        let started = self.try_launch(name, None, false, None).await;
        started.expect_err("it does not start")
    }

    /// Where a node listens.
    pub fn addr(&self, name: &str) -> String {
        let host = self.nodes.iter().find(|host| host.name == name);
        host.unwrap().listen.clone()
    }

    /// Waits until every running manager shows all running managers, and only these, at the
    /// addresses at which they are.
    pub async fn managers_are_known(&self) {
        let running = || {
            let managers = self.nodes.iter().filter(|host| host.manager);
            managers.filter(|host| host.running.is_some())
        };
        let mut expected: Vec<_> = running().map(|host| host.listen.clone()).collect();
        expected.sort();
        eventually("all managers known at their addresses", async || {
            for host in running() {
                let manager = self.node(&host.name).manager()?;
                let members = manager.status().borrow().members.clone();
                let mut known: Vec<_> = members.into_iter().map(|member| member.addr).collect();
                known.sort();
                if known != expected {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }
}
