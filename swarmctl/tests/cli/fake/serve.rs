//! The services of the server: what they answer follows from the world.

use std::sync::{Arc, Mutex, MutexGuard};

use skep_proto::{
    skep::{GetRaftStatusRequest, GetRaftStatusResponse, raft_status_server},
    v1::{self, control_server, logs_server},
};
use tonic::{Request, Response, Status};

use super::{World, answers, find, passes, service};

pub struct RaftStatus(pub Arc<Mutex<World>>);

#[tonic::async_trait]
impl raft_status_server::RaftStatus for RaftStatus {
    async fn get_raft_status(
        &self,
        _: Request<GetRaftStatusRequest>,
    ) -> Answer<GetRaftStatusResponse> {
        let raft = self.0.lock().unwrap().raft.clone();
        let raft = raft.ok_or_else(|| Status::unimplemented("unknown service"))?;
        Ok(Response::new(raft))
    }
}

pub struct Logs(pub Arc<Mutex<World>>);

#[tonic::async_trait]
impl logs_server::Logs for Logs {
    type SubscribeLogsStream =
        tokio_stream::Iter<std::vec::IntoIter<Result<v1::SubscribeLogsMessage, Status>>>;

    async fn subscribe_logs(
        &self,
        request: Request<v1::SubscribeLogsRequest>,
    ) -> Answer<Self::SubscribeLogsStream> {
        let mut world = self.0.lock().unwrap();
        world.log_requests.push(request.into_inner());
        let messages = world.logs.clone();
        let mut answers = vec![Ok(v1::SubscribeLogsMessage { messages })];
        answers.extend(world.logs_end.clone().map(Err));
        Ok(Response::new(tokio_stream::iter(answers)))
    }
}

pub struct Control(pub Arc<Mutex<World>>);

impl Control {
    /// Notes the call; fails if the test wants so.
    fn enter(&self, call: &'static str) -> Result<MutexGuard<'_, World>, Status> {
        let mut world = self.0.lock().unwrap();
        world.calls.push(call);
        match world.failures.pop_front() {
            Some(status) => Err(status),
            None => Ok(world),
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

macro_rules! control {
    ({ $($calls:tt)* }
     answers { $($answer:ident($asked:ident) -> $answered:ident;)* }
     unimplemented { $($call:ident($request:ident) -> $reply:ident;)* }) => {
        #[tonic::async_trait]
        impl control_server::Control for Control {
            $($calls)*
            $(async fn $answer(&self, request: Request<v1::$asked>) -> Answer<v1::$answered> {
                let mut world = self.enter(stringify!($answer))?;
                answers::$answer(&mut world, request.into_inner()).map(Response::new)
            })*
            $(async fn $call(&self, _: Request<v1::$request>) -> Answer<v1::$reply> {
                Err(Status::unimplemented(stringify!($call)))
            })*
        }
    };
}

control! {
    {
        async fn get_service(
            &self,
            request: Request<v1::GetServiceRequest>,
        ) -> Answer<v1::GetServiceResponse> {
            let mut world = self.enter("get_service")?;
            let request = request.into_inner();
            let found =
                find(&mut world.services, "service", &request.service_id, |service| &service.id)?;
            let service = Some(found.clone());
            world.look("get_service");
            Ok(Response::new(v1::GetServiceResponse { service }))
        }

        async fn list_services(
            &self,
            request: Request<v1::ListServicesRequest>,
        ) -> Answer<v1::ListServicesResponse> {
            let world = self.enter("list_services")?;
            let filters = request.into_inner().filters.unwrap_or_default();
            let mut services = world.services.clone();
            services.retain(|service| {
                let name = &service.spec().annotations().name;
                passes(&filters.names, &filters.id_prefixes, name, &service.id)
            });
            Ok(Response::new(v1::ListServicesResponse { services }))
        }

        async fn list_service_statuses(
            &self,
            request: Request<v1::ListServiceStatusesRequest>,
        ) -> Answer<v1::ListServiceStatusesResponse> {
            let world = self.enter("list_service_statuses")?;
            let wanted = request.into_inner().services;
            let mut statuses = world.statuses.clone();
            statuses.retain(|status| wanted.contains(&status.service_id));
            Ok(Response::new(v1::ListServiceStatusesResponse { statuses }))
        }

        async fn create_service(
            &self,
            request: Request<v1::CreateServiceRequest>,
        ) -> Answer<v1::CreateServiceResponse> {
            let mut world = self.enter("create_service")?;
            let mut service = service("s1", "", 0);
            service.spec = request.into_inner().spec;
            world.services.push(service.clone());
            world.looked.clear();
            Ok(Response::new(v1::CreateServiceResponse { service: Some(service) }))
        }

        async fn update_service(
            &self,
            request: Request<v1::UpdateServiceRequest>,
        ) -> Answer<v1::UpdateServiceResponse> {
            let mut world = self.enter("update_service")?;
            let request = request.into_inner();
            let (conflict, meddle) = (world.conflicts > 0, world.meddle);
            world.conflicts = world.conflicts.saturating_sub(1);
            let service =
                find(&mut world.services, "service", &request.service_id, |service| &service.id)?;
            if conflict {
                service.meta_mut().version_mut().index += 1;
                if let Some(meddle) = meddle {
                    meddle(service);
                }
            }
            if request.service_version.as_ref() != Some(service.meta().version()) {
                return Err(Status::unknown("update out of sequence"));
            }
            service.meta_mut().version_mut().index += 1;
            let rollback = request.rollback() == v1::update_service_request::Rollback::Previous;
            service.spec = request.spec;
            let service = Some(service.clone());
            world.rollbacks += usize::from(rollback);
            world.looked.clear();
            Ok(Response::new(v1::UpdateServiceResponse { service }))
        }

        async fn remove_service(
            &self,
            request: Request<v1::RemoveServiceRequest>,
        ) -> Answer<v1::RemoveServiceResponse> {
            let mut world = self.enter("remove_service")?;
            let id = request.into_inner().service_id;
            find(&mut world.services, "service", &id, |service| &service.id)?;
            world.services.retain(|service| service.id != id);
            Ok(Response::new(v1::RemoveServiceResponse {}))
        }

        async fn get_task(
            &self,
            request: Request<v1::GetTaskRequest>,
        ) -> Answer<v1::GetTaskResponse> {
            let mut world = self.enter("get_task")?;
            let id = request.into_inner().task_id;
            let task = Some(find(&mut world.tasks, "task", &id, |task| &task.id)?.clone());
            Ok(Response::new(v1::GetTaskResponse { task }))
        }

        async fn list_tasks(
            &self,
            request: Request<v1::ListTasksRequest>,
        ) -> Answer<v1::ListTasksResponse> {
            let mut world = self.enter("list_tasks")?;
            let filters = request.into_inner().filters.unwrap_or_default();
            let among = |wanted: &[String], it: &String| wanted.is_empty() || wanted.contains(it);
            let mut tasks = world.tasks.clone();
            tasks.retain(|task| {
                passes(&filters.names, &filters.id_prefixes, "", &task.id)
                    && among(&filters.service_ids, &task.service_id)
                    && among(&filters.node_ids, &task.node_id)
                    && (filters.desired_states.is_empty()
                        || filters.desired_states.contains(&task.desired_state))
                    && !(filters.up_to_date && world.old.contains(&task.id))
            });
            world.look(if filters.up_to_date { "list_tasks up to date" } else { "list_tasks" });
            Ok(Response::new(v1::ListTasksResponse { tasks }))
        }

        async fn get_node(
            &self,
            request: Request<v1::GetNodeRequest>,
        ) -> Answer<v1::GetNodeResponse> {
            let mut world = self.enter("get_node")?;
            let id = request.into_inner().node_id;
            let node = Some(find(&mut world.nodes, "node", &id, |node| &node.id)?.clone());
            Ok(Response::new(v1::GetNodeResponse { node }))
        }

        async fn list_nodes(
            &self,
            request: Request<v1::ListNodesRequest>,
        ) -> Answer<v1::ListNodesResponse> {
            let mut world = self.enter("list_nodes")?;
            let filters = request.into_inner().filters.unwrap_or_default();
            let mut nodes = world.nodes.clone();
            nodes.retain(|node| {
                let name = node.description.as_ref().map_or("", |description| &description.hostname);
                passes(&filters.names, &filters.id_prefixes, name, &node.id)
            });
            world.look("list_nodes");
            Ok(Response::new(v1::ListNodesResponse { nodes }))
        }

        async fn update_node(
            &self,
            request: Request<v1::UpdateNodeRequest>,
        ) -> Answer<v1::UpdateNodeResponse> {
            let mut world = self.enter("update_node")?;
            let request = request.into_inner();
            let conflict = world.conflicts > 0;
            world.conflicts = world.conflicts.saturating_sub(1);
            let node = find(&mut world.nodes, "node", &request.node_id, |node| &node.id)?;
            if conflict {
                node.meta_mut().version_mut().index += 1;
            }
            if request.node_version.as_ref() != Some(node.meta().version()) {
                return Err(Status::unknown("update out of sequence"));
            }
            node.meta_mut().version_mut().index += 1;
            node.spec = request.spec;
            Ok(Response::new(v1::UpdateNodeResponse { node: Some(node.clone()) }))
        }

        async fn remove_node(
            &self,
            request: Request<v1::RemoveNodeRequest>,
        ) -> Answer<v1::RemoveNodeResponse> {
            let mut world = self.enter("remove_node")?;
            let request = request.into_inner();
            let id = request.node_id;
            let node = find(&mut world.nodes, "node", &id, |node| &node.id)?;
            if node.status().state() == v1::node_status::State::Ready && !request.force {
                let message = format!("node {id} is not down and can't be removed");
                return Err(Status::failed_precondition(message));
            }
            world.nodes.retain(|node| node.id != id);
            Ok(Response::new(v1::RemoveNodeResponse {}))
        }

        async fn get_cluster(
            &self,
            request: Request<v1::GetClusterRequest>,
        ) -> Answer<v1::GetClusterResponse> {
            let mut world = self.enter("get_cluster")?;
            let id = request.into_inner().cluster_id;
            let cluster = find(&mut world.clusters, "cluster", &id, |cluster| &cluster.id)?;
            Ok(Response::new(v1::GetClusterResponse { cluster: Some(cluster.clone()) }))
        }

        async fn list_clusters(
            &self,
            request: Request<v1::ListClustersRequest>,
        ) -> Answer<v1::ListClustersResponse> {
            let world = self.enter("list_clusters")?;
            let filters = request.into_inner().filters.unwrap_or_default();
            let mut clusters = world.clusters.clone();
            clusters.retain(|cluster| {
                let name = &cluster.spec().annotations().name;
                passes(&filters.names, &filters.id_prefixes, name, &cluster.id)
            });
            Ok(Response::new(v1::ListClustersResponse { clusters }))
        }
    }
    answers {
        update_cluster(UpdateClusterRequest) -> UpdateClusterResponse;
        get_secret(GetSecretRequest) -> GetSecretResponse;
        update_secret(UpdateSecretRequest) -> UpdateSecretResponse;
        list_secrets(ListSecretsRequest) -> ListSecretsResponse;
        create_secret(CreateSecretRequest) -> CreateSecretResponse;
        remove_secret(RemoveSecretRequest) -> RemoveSecretResponse;
        get_config(GetConfigRequest) -> GetConfigResponse;
        update_config(UpdateConfigRequest) -> UpdateConfigResponse;
        list_configs(ListConfigsRequest) -> ListConfigsResponse;
        create_config(CreateConfigRequest) -> CreateConfigResponse;
        remove_config(RemoveConfigRequest) -> RemoveConfigResponse;
    }
    unimplemented {
        remove_task(RemoveTaskRequest) -> RemoveTaskResponse;
        get_network(GetNetworkRequest) -> GetNetworkResponse;
        list_networks(ListNetworksRequest) -> ListNetworksResponse;
        create_network(CreateNetworkRequest) -> CreateNetworkResponse;
        remove_network(RemoveNetworkRequest) -> RemoveNetworkResponse;
        get_extension(GetExtensionRequest) -> GetExtensionResponse;
        create_extension(CreateExtensionRequest) -> CreateExtensionResponse;
        remove_extension(RemoveExtensionRequest) -> RemoveExtensionResponse;
        get_resource(GetResourceRequest) -> GetResourceResponse;
        update_resource(UpdateResourceRequest) -> UpdateResourceResponse;
        list_resources(ListResourcesRequest) -> ListResourcesResponse;
        create_resource(CreateResourceRequest) -> CreateResourceResponse;
        remove_resource(RemoveResourceRequest) -> RemoveResourceResponse;
        create_volume(CreateVolumeRequest) -> CreateVolumeResponse;
        get_volume(GetVolumeRequest) -> GetVolumeResponse;
        update_volume(UpdateVolumeRequest) -> UpdateVolumeResponse;
        list_volumes(ListVolumesRequest) -> ListVolumesResponse;
        remove_volume(RemoveVolumeRequest) -> RemoveVolumeResponse;
    }
}
