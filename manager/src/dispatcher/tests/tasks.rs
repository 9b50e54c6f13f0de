//! The deprecated stream of tasks.

use futures_util::{FutureExt as _, StreamExt as _};
use skep_proto::v1::{
    Task, TaskState, TasksMessage, TasksRequest, dispatcher_server::Dispatcher as _,
};
use tonic::Code;

use crate::dispatcher::testing::{World, from, last, next, task, told};

fn ids(message: &TasksMessage) -> Vec<&str> {
    message.tasks.iter().map(|task| &*task.id).collect()
}

#[tokio::test]
async fn all_tasks_of_the_node_are_told_whenever_one_changes() {
    let mut world = World::two_nodes().await;
    world
        .write(|tx| {
            for (id, node, state) in [
                ("t1", "n1", TaskState::Assigned),
                ("t2", "n1", TaskState::Pending),
                ("t3", "n2", TaskState::Running),
            ] {
                tx.create(task(id, node, state)).unwrap();
            }
        })
        .await;
    let (id, _session) = world.register("n1").await;
    let open = async |session: &str| {
        let session_id = session.to_owned();
        let request = from("n1", TasksRequest { session_id });
        world
            .dispatcher
            .tasks(request)
            .await
            .map(tonic::Response::into_inner)
    };
    let invalid = (Code::InvalidArgument, "session invalid".to_owned());
    assert_eq!(told(open("x").await.err().unwrap()), invalid);
    let mut tasks = open(&id).await.unwrap();
    assert_eq!(ids(&next(&mut tasks).await.unwrap()), ["t1"]);

    let state = |state: TaskState| move |task: &mut Task| task.status_mut().set_state(state);
    world.change("t1", state(TaskState::Running)).await;
    assert!(
        tasks.next().now_or_never().is_none(),
        "it has said so itself"
    );
    world.change("t2", state(TaskState::Assigned)).await;
    assert_eq!(ids(&next(&mut tasks).await.unwrap()), ["t1", "t2"]);
    world
        .change::<Task>("t1", |task| task.set_desired_state(TaskState::Shutdown))
        .await;
    let message = next(&mut tasks).await.unwrap();
    assert_eq!(message.tasks[0].desired_state(), TaskState::Shutdown);
    world
        .write(|tx| drop(tx.remove::<Task>("t1").unwrap()))
        .await;
    assert_eq!(ids(&next(&mut tasks).await.unwrap()), ["t2"]);

    world.end_term().await;
    let must_disconnect = (Code::Aborted, "node must disconnect".to_owned());
    assert_eq!(last(tasks).await, must_disconnect);
}
