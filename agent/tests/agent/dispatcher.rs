//! A manager as far as an agent sees it: a dispatcher over mTLS that does what the test says.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, StreamExt as _};
use parking_lot::Mutex;
use skep_proto::v1::{
    self, TaskState,
    assignment::Item,
    assignment_change::AssignmentAction,
    assignments_message::Type,
    dispatcher_server::{Dispatcher, DispatcherServer},
    log_broker_server::{LogBroker, LogBrokerServer},
};
use skep_security::{Credentials, Identity, Role, RootCa, Tls};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status};

use crate::support::until;

type Sent<T> = mpsc::UnboundedSender<Result<T, Status>>;
type Answer<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A cluster's identity, and managers in it.
pub(crate) struct Cluster {
    ca: RootCa,
}

impl Cluster {
    pub fn new() -> Self {
        Self {
            ca: RootCa::generate().unwrap(),
        }
    }

    pub fn tls(&self, node_id: &str, role: Role) -> Tls {
        let who = Identity {
            node_id: node_id.into(),
            role,
            cluster_id: "cluster".into(),
        };
        let day = Duration::from_secs(24 * 3600);
        Tls::new(Credentials::self_issue(&self.ca, &who, day).unwrap())
    }

    pub async fn manager(&self, name: &str) -> Manager {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let (stop, stopped) = oneshot::channel::<()>();
        let incoming = skep_security::tls_incoming(listener, self.tls(name, Role::Manager));
        let counted = Arc::clone(&state);
        let incoming = incoming.inspect(move |_| counted.lock().connections += 1);
        let server = tonic::transport::Server::builder()
            .add_service(DispatcherServer::new(Fake {
                state: Arc::clone(&state),
            }))
            .add_service(LogBrokerServer::new(Fake {
                state: Arc::clone(&state),
            }))
            .serve_with_incoming_shutdown(incoming, async {
                let _ = stopped.await;
            });
        tokio::spawn(server);
        Manager {
            peer: v1::Peer {
                node_id: name.to_owned(),
                addr,
            },
            state,
            stop: Some(stop),
        }
    }
}

/// A running manager and its controls.
pub(crate) struct Manager {
    pub peer: v1::Peer,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
}

#[derive(Default)]
struct State {
    dead: bool,
    /// Connections so far.
    connections: usize,
    tasks: BTreeMap<String, v1::Task>,
    secrets: Vec<v1::Secret>,
    requests: Vec<v1::SessionRequest>,
    session: Option<Sent<v1::SessionMessage>>,
    assignments: Option<Sent<v1::AssignmentsMessage>>,
    sequence: u64,
    heartbeats: usize,
    listed: Vec<v1::Peer>,
    statuses: Vec<(String, v1::TaskStatus)>,
    fail_statuses: usize,
    foreign: BTreeSet<String>,
    subscriptions: Option<Sent<v1::SubscriptionMessage>>,
    published: Vec<v1::PublishLogsMessage>,
    /// Streams of logs that have ended.
    publishers_ended: usize,
}

impl State {
    fn close(&mut self) {
        self.session = None;
        self.assignments = None;
        self.subscriptions = None;
    }

    fn increment(&mut self, change: v1::AssignmentChange) {
        let message = v1::AssignmentsMessage {
            r#type: Type::Incremental as i32,
            applies_to: self.sequence.to_string(),
            results_in: (self.sequence + 1).to_string(),
            changes: vec![change],
        };
        if let Some(assignments) = &self.assignments {
            self.sequence += 1;
            let _ = assignments.send(Ok(message));
        }
    }
}

fn change(item: Item, action: AssignmentAction) -> v1::AssignmentChange {
    v1::AssignmentChange {
        assignment: Some(v1::Assignment { item: Some(item) }),
        action: action as i32,
    }
}

impl Manager {
    /// Assigns a task, or changes it.
    pub fn put(&self, task: &v1::Task) {
        let mut state = self.state.lock();
        state.tasks.insert(task.id.clone(), task.clone());
        state.increment(change(Item::Task(task.clone()), AssignmentAction::Update));
    }

    pub fn want(&self, task: &v1::Task, desired: TaskState) {
        self.put(&v1::Task {
            desired_state: desired as i32,
            ..task.clone()
        });
    }

    pub fn remove(&self, task: &v1::Task) {
        let mut state = self.state.lock();
        state.tasks.remove(&task.id);
        let only_id = v1::Task {
            id: task.id.clone(),
            ..Default::default()
        };
        state.increment(change(Item::Task(only_id), AssignmentAction::Remove));
    }

    /// The task is gone, and no message says so: the next complete one does not list it.
    pub fn forget(&self, task: &v1::Task) {
        self.state.lock().tasks.remove(&task.id);
    }

    pub fn put_secret(&self, secret: v1::Secret) {
        self.state.lock().secrets.push(secret);
    }

    /// Tells the node of a subscription, once it listens.
    pub async fn subscribe(&self, message: &v1::SubscriptionMessage) {
        let listens = || self.state.lock().subscriptions.is_some();
        until("the node listens for subscriptions", listens).await;
        let state = self.state.lock();
        let subscriptions = state.subscriptions.as_ref().unwrap();
        subscriptions.send(Ok(message.clone())).unwrap();
    }

    /// What was published for a subscription.
    pub fn published(&self, id: &str) -> Vec<v1::PublishLogsMessage> {
        let state = self.state.lock();
        let messages = state.published.iter();
        messages
            .filter(|message| message.subscription_id == id)
            .cloned()
            .collect()
    }

    /// How many streams of logs have ended.
    pub fn publishers_ended(&self) -> usize {
        self.state.lock().publishers_ended
    }

    /// What session messages list from now on (nobody unless said).
    pub fn list(&self, peers: &[&v1::Peer]) {
        self.state.lock().listed = peers.iter().map(|&peer| peer.clone()).collect();
    }

    /// Sends an assignments message that does not follow the last one.
    pub fn break_chain(&self) {
        let mut state = self.state.lock();
        state.sequence += 5;
        state.increment(v1::AssignmentChange::default());
    }

    /// Ends the session's streams.
    pub fn end_session(&self) {
        self.state.lock().close();
    }

    /// Ends the session's stream with this.
    pub fn refuse_session(&self, status: Status) {
        let mut state = self.state.lock();
        let session = state.session.take().unwrap();
        session.send(Err(status)).unwrap();
    }

    /// How often somebody has connected.
    pub fn connections(&self) -> usize {
        self.state.lock().connections
    }

    /// Answers so many status reports with an error.
    pub fn fail_statuses(&self, count: usize) {
        self.state.lock().fail_statuses = count;
    }

    /// Takes no status of this task.
    pub fn disown(&self, task: &v1::Task) {
        self.state.lock().foreign.insert(task.id.clone());
    }

    pub fn requests(&self) -> Vec<v1::SessionRequest> {
        self.state.lock().requests.clone()
    }

    pub fn heartbeats(&self) -> usize {
        self.state.lock().heartbeats
    }

    /// All statuses of a task in the order they came.
    pub fn statuses(&self, task: &v1::Task) -> Vec<v1::TaskStatus> {
        let state = self.state.lock();
        let of_task = state.statuses.iter().filter(|(id, _)| *id == task.id);
        of_task.map(|(_, status)| status.clone()).collect()
    }

    pub fn forget_statuses(&self) {
        self.state.lock().statuses.clear();
    }

    /// Waits until the newest status of a task says this.
    pub async fn reported(&self, task: &v1::Task, state: TaskState) -> v1::TaskStatus {
        let newest = || {
            self.statuses(task)
                .pop()
                .filter(|status| status.state() == state)
        };
        until(&format!("task is {state:?}"), || newest().is_some()).await;
        newest().unwrap()
    }

    pub async fn sessions(&self, count: usize) {
        until("sessions are opened", || self.requests().len() >= count).await;
    }

    /// Nobody answers any more.
    pub fn die(&mut self) {
        let mut state = self.state.lock();
        state.dead = true;
        state.close();
        self.stop = None;
    }
}

struct Fake {
    state: Arc<Mutex<State>>,
}

impl Fake {
    fn state(&self) -> Result<parking_lot::MutexGuard<'_, State>, Status> {
        let state = self.state.lock();
        if state.dead {
            Err(Status::unavailable("dead"))
        } else {
            Ok(state)
        }
    }
}

/// Counts also the streams that break off.
struct Ended(Arc<Mutex<State>>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.lock().publishers_ended += 1;
    }
}

#[tonic::async_trait]
impl LogBroker for Fake {
    type ListenSubscriptionsStream = Answer<v1::SubscriptionMessage>;

    async fn listen_subscriptions(
        &self,
        _: Request<v1::ListenSubscriptionsRequest>,
    ) -> Result<Response<Self::ListenSubscriptionsStream>, Status> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.state()?.subscriptions = Some(sender);
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(
            receiver,
        ))))
    }

    async fn publish_logs(
        &self,
        request: Request<tonic::Streaming<v1::PublishLogsMessage>>,
    ) -> Result<Response<v1::PublishLogsResponse>, Status> {
        let _ended = Ended(Arc::clone(&self.state));
        let mut messages = request.into_inner();
        while let Some(message) = messages.message().await? {
            self.state()?.published.push(message);
        }
        Ok(Response::new(v1::PublishLogsResponse {}))
    }
}

#[tonic::async_trait]
impl Dispatcher for Fake {
    type SessionStream = Answer<v1::SessionMessage>;
    type TasksStream = Answer<v1::TasksMessage>;
    type AssignmentsStream = Answer<v1::AssignmentsMessage>;

    async fn session(
        &self,
        request: Request<v1::SessionRequest>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut state = self.state()?;
        state.requests.push(request.into_inner());
        let managers = state.listed.iter();
        let message = v1::SessionMessage {
            session_id: format!("session-{}", state.requests.len()),
            node: Some(v1::Node {
                id: "node".to_owned(),
                ..Default::default()
            }),
            managers: managers
                .map(|peer| v1::WeightedPeer {
                    peer: Some(peer.clone()),
                    weight: 10,
                })
                .collect(),
            ..Default::default()
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(Ok(message)).unwrap();
        state.session = Some(sender);
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(
            receiver,
        ))))
    }

    async fn heartbeat(
        &self,
        _: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        self.state()?.heartbeats += 1;
        let period = Some(skep_proto::Duration {
            seconds: 0,
            nanos: 100_000_000,
        });
        Ok(Response::new(v1::HeartbeatResponse { period }))
    }

    async fn update_task_status(
        &self,
        request: Request<v1::UpdateTaskStatusRequest>,
    ) -> Result<Response<v1::UpdateTaskStatusResponse>, Status> {
        let mut state = self.state()?;
        if state.fail_statuses > 0 {
            state.fail_statuses -= 1;
            return Err(Status::unavailable("try again"));
        }
        let updates = request.into_inner().updates;
        if updates
            .iter()
            .any(|update| state.foreign.contains(&update.task_id))
        {
            return Err(Status::permission_denied("not of this node"));
        }
        for update in updates {
            state
                .statuses
                .push((update.task_id, update.status.unwrap()));
        }
        Ok(Response::new(v1::UpdateTaskStatusResponse {}))
    }

    async fn update_volume_status(
        &self,
        _: Request<v1::UpdateVolumeStatusRequest>,
    ) -> Result<Response<v1::UpdateVolumeStatusResponse>, Status> {
        Err(Status::unimplemented("no volumes"))
    }

    async fn tasks(
        &self,
        _: Request<v1::TasksRequest>,
    ) -> Result<Response<Self::TasksStream>, Status> {
        Err(Status::unimplemented("deprecated"))
    }

    async fn assignments(
        &self,
        request: Request<v1::AssignmentsRequest>,
    ) -> Result<Response<Self::AssignmentsStream>, Status> {
        let mut state = self.state()?;
        if request.into_inner().session_id != format!("session-{}", state.requests.len()) {
            return Err(Status::invalid_argument("session invalid"));
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let tasks = state.tasks.values().cloned().map(Item::Task);
        // Behind the tasks that need them: the agent sorts.
        let items = tasks.chain(state.secrets.iter().cloned().map(Item::Secret));
        let complete = v1::AssignmentsMessage {
            r#type: Type::Complete as i32,
            applies_to: String::new(),
            results_in: "1".to_owned(),
            changes: items
                .map(|item| change(item, AssignmentAction::Update))
                .collect(),
        };
        sender.send(Ok(complete)).unwrap();
        state.sequence = 1;
        state.assignments = Some(sender);
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(
            receiver,
        ))))
    }
}
