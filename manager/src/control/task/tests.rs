//! The calls about tasks, against a store that commits at once.

use skep_proto::{
    Shared,
    v1::{control_server::Control as _, list_tasks_request::Filters, *},
};
use tonic::Code;

use crate::control::testing::*;

/// A task of the service `web`.
fn task(id: &str, slot: u64, node_id: &str) -> Task {
    Task {
        id: id.into(),
        service_id: "s1".into(),
        slot,
        node_id: node_id.into(),
        spec: service_spec("web").task.map(Shared::from),
        service_annotations: labelled("web", "team", "x"),
        spec_version: Some(Version { index: 7 }),
        desired_state: TaskState::Running.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn get_and_remove() {
    let swarm = Swarm::new();
    let control = &swarm.control;
    let task = swarm.put(task("t1", 1, "n1")).await;
    let get = |id: &str| ask(GetTaskRequest { task_id: id.into() });
    let remove = |id: &str| ask(RemoveTaskRequest { task_id: id.into() });
    assert_eq!(
        reply(control.get_task(get("t1")).await).task,
        Some(Task::clone(&task))
    );
    reply(control.remove_task(remove("t1")).await);
    let gone = (Code::NotFound, "task t1 not found".to_owned());
    assert_eq!(refusal(control.get_task(get("t1")).await), gone);
    assert_eq!(refusal(control.remove_task(remove("t1")).await), gone);
    let missing = (Code::InvalidArgument, "invalid argument".to_owned());
    assert_eq!(refusal(control.get_task(get("")).await), missing);
    assert_eq!(refusal(control.remove_task(remove("")).await), missing);
}

#[tokio::test]
async fn lists_are_filtered() {
    let swarm = Swarm::new();
    swarm
        .put(Service {
            id: "s1".into(),
            spec: Some(service_spec("web")),
            spec_version: Some(Version { index: 7 }),
            ..Default::default()
        })
        .await;
    swarm.put(task("t1", 1, "n1")).await;
    swarm.put(task("t2", 2, "n2")).await;
    // Global: named after its node.
    swarm.put(task("t3", 0, "n1")).await;
    // Of an older version that asked for something else, and to be shut down.
    let mut old = task("u4", 3, "n3");
    old.spec_version = Some(Version { index: 3 });
    old.spec_mut().force_update = 9;
    old.desired_state = TaskState::Shutdown.into();
    swarm.put(old).await;
    // Of an older version that asked for the same.
    let mut same = task("u5", 4, "n3");
    same.spec_version = Some(Version { index: 3 });
    swarm.put(same).await;
    // Of no service.
    swarm
        .put(Task {
            id: "v6".into(),
            annotations: named("attached"),
            node_id: "n3".into(),
            spec: Some(Shared::from(TaskSpec {
                runtime: Some(task_spec::Runtime::Attachment(Default::default())),
                ..Default::default()
            })),
            ..Default::default()
        })
        .await;

    let list = async |change: fn(&mut Filters)| {
        let mut filters = Filters::default();
        change(&mut filters);
        let request = ListTasksRequest {
            filters: Some(filters),
        };
        let mut ids: Vec<_> = reply(swarm.control.list_tasks(ask(request)).await)
            .tasks
            .into_iter()
            .map(|task| task.id)
            .collect();
        ids.sort();
        ids.join(" ")
    };
    let all = swarm
        .control
        .list_tasks(ask(ListTasksRequest::default()))
        .await;
    assert_eq!(reply(all).tasks.len(), 6);
    assert_eq!(list(|_| {}).await, "t1 t2 t3 u4 u5 v6");
    assert_eq!(list(|f| f.names = vec!["web.1.t1".into()]).await, "t1");
    assert_eq!(list(|f| f.names = vec!["web.n1.t3".into()]).await, "t3");
    assert_eq!(
        list(|f| f.names = vec!["attached".into(), "Web.1.t1".into()]).await,
        "v6"
    );
    assert_eq!(list(|f| f.name_prefixes = vec!["web.2".into()]).await, "t2");
    assert_eq!(list(|f| f.id_prefixes = vec!["t".into()]).await, "t1 t2 t3");
    assert_eq!(
        list(|f| f.service_ids = vec!["s1".into(), "s2".into()]).await,
        "t1 t2 t3 u4 u5"
    );
    assert_eq!(
        list(|f| f.node_ids = vec!["n1".into(), "n2".into()]).await,
        "t1 t2 t3"
    );
    let of_service_on_node: fn(&mut Filters) = |f| {
        f.service_ids = vec!["s1".into()];
        f.node_ids = vec!["n3".into()];
    };
    assert_eq!(list(of_service_on_node).await, "u4 u5");
    assert_eq!(list(|f| f.set_desired(&[TaskState::Shutdown])).await, "u4");
    assert_eq!(
        list(|f| f.set_desired(&[TaskState::Shutdown, TaskState::New])).await,
        "u4 v6"
    );
    assert_eq!(list(|f| f.runtimes = vec!["attachment".into()]).await, "v6");
    assert_eq!(
        list(|f| f.runtimes = vec!["container".into()]).await,
        "t1 t2 t3 u4 u5"
    );
    let labelled: fn(&mut Filters) = |f| f.labels = [("team".to_owned(), String::new())].into();
    assert_eq!(list(labelled).await, "t1 t2 t3 u4 u5");
    assert_eq!(list(|f| f.up_to_date = true).await, "t1 t2 t3 u5");
}

trait SetDesired {
    fn set_desired(&mut self, states: &[TaskState]);
}

impl SetDesired for Filters {
    fn set_desired(&mut self, states: &[TaskState]) {
        self.desired_states = states.iter().map(|&state| state.into()).collect();
    }
}
