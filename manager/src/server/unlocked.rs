//! What a manager that runs says when someone wants to unlock it. Locked ones are not running yet.

use skep_proto::skep::{UnlockRequest, UnlockResponse, node_server};
use tonic::{Request, Response, Status};

/// The node service of a node that is not locked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unlocked;

#[tonic::async_trait]
impl node_server::Node for Unlocked {
    async fn unlock(&self, _: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        // Docker's text.
        Err(Status::failed_precondition("swarm is not locked"))
    }
}
