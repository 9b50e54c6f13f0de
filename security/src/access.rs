//! Who may call which RPC: one table for every service of `docker.swarmkit.v1` and one for our own.
//!
//! It is enforced on the TCP listener by [`authorize`](crate::authorize()). The control socket is
//! guarded by the permissions of its file instead.

use crate::Role;

/// Who may call an RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone, with or without a certificate.
    Anyone,
    /// Holders of a certificate of one of these roles.
    Roles(&'static [Role]),
}

/// Who may call the RPC of this path, such as `/docker.swarmkit.v1.Control/GetNode`; `None` if
/// there is no such RPC.
pub fn access(path: &str) -> Option<Access> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let (package, service) = service.rsplit_once('.')?;
    let (_, services) = PACKAGES.iter().find(|(name, _)| *name == package)?;
    let (_, rules) = services.iter().find(|(name, _)| *name == service)?;
    rules
        .iter()
        .find(|(_, methods)| methods.contains(&method))
        .map(|(access, _)| *access)
}

const MANAGERS: Access = Access::Roles(&[Role::Manager]);
/// The order shows in the text of refusals.
const NODES: Access = Access::Roles(&[Role::Worker, Role::Manager]);

type Rules = &'static [(Access, &'static [&'static str])];

type Services = &'static [(&'static str, Rules)];

const PACKAGES: &[(&str, Services)] =
    &[("docker.swarmkit.v1", SERVICES), ("skep.v1", OWN_SERVICES)];

/// Our own services. Not here are `Node` and `Local`, which only sockets of the node itself have.
const OWN_SERVICES: Services = &[
    ("RaftStatus", &[(MANAGERS, &["GetRaftStatus"])]),
    ("RaftStream", &[(MANAGERS, &["Messages"])]),
];

/// The methods of each service, by who may call them.
#[rustfmt::skip]
const SERVICES: Services = &[
    ("CA", &[
        (Access::Anyone, &["GetRootCACertificate"]),
        (MANAGERS, &["GetUnlockKey"]),
    ]),
    ("NodeCA", &[(Access::Anyone, &["IssueNodeCertificate", "NodeCertificateStatus"])]),
    ("Dispatcher", &[(NODES, &[
        "Session", "Heartbeat", "UpdateTaskStatus", "UpdateVolumeStatus", "Tasks", "Assignments",
    ])]),
    ("LogBroker", &[(NODES, &["ListenSubscriptions", "PublishLogs"])]),
    ("ResourceAllocator", &[(NODES, &["AttachNetwork", "DetachNetwork"])]),
    ("Raft", &[(MANAGERS, &["ProcessRaftMessage", "StreamRaftMessage", "ResolveAddress"])]),
    ("RaftMembership", &[(MANAGERS, &["Join", "Leave"])]),
    ("Health", &[(MANAGERS, &["Check"])]),
    ("Logs", &[(MANAGERS, &["SubscribeLogs"])]),
    ("Watch", &[(MANAGERS, &["Watch"])]),
    ("Control", &[(MANAGERS, &[
        "GetNode", "ListNodes", "UpdateNode", "RemoveNode",
        "GetTask", "ListTasks", "RemoveTask",
        "GetService", "ListServices", "CreateService", "UpdateService", "RemoveService",
        "ListServiceStatuses",
        "GetNetwork", "ListNetworks", "CreateNetwork", "RemoveNetwork",
        "GetCluster", "ListClusters", "UpdateCluster",
        "GetSecret", "UpdateSecret", "ListSecrets", "CreateSecret", "RemoveSecret",
        "GetConfig", "UpdateConfig", "ListConfigs", "CreateConfig", "RemoveConfig",
        "GetExtension", "CreateExtension", "RemoveExtension",
        "GetResource", "UpdateResource", "ListResources", "CreateResource", "RemoveResource",
        "CreateVolume", "GetVolume", "UpdateVolume", "ListVolumes", "RemoveVolume",
    ])]),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message as _;

    use super::*;

    fn wire_table() -> BTreeMap<String, Access> {
        include_str!("../../proto/tests/wire/services.tsv")
            .lines()
            .skip(1)
            .map(|line| {
                let columns: Vec<_> = line.split('\t').collect();
                let access = match columns[6].trim_end_matches(" (deprecated)") {
                    "insecure" => Access::Anyone,
                    "swarm-manager" => MANAGERS,
                    "swarm-worker,swarm-manager" => NODES,
                    other => panic!("unknown roles {other}"),
                };
                (format!("/{}/{}", columns[0], columns[1]), access)
            })
            .collect()
    }

    #[test]
    fn the_table_is_that_of_the_wire() {
        let wire = wire_table();
        assert!(wire.len() > 60);
        let ours: BTreeMap<_, _> = SERVICES
            .iter()
            .flat_map(|(service, rules)| {
                rules.iter().flat_map(move |(access, methods)| {
                    methods.iter().map(move |method| {
                        (format!("/docker.swarmkit.v1.{service}/{method}"), *access)
                    })
                })
            })
            .collect();
        assert_eq!(ours, wire);
        for (path, expected) in wire {
            assert_eq!(access(&path), Some(expected), "{path}");
        }
    }

    #[test]
    fn our_own_services_are_in_the_table() {
        let descriptors = skep_proto::FILE_DESCRIPTOR_SET;
        let files = prost_types::FileDescriptorSet::decode(descriptors).unwrap();
        let own = files.file.iter().filter(|file| file.package() == "skep.v1");
        for service in own.flat_map(|file| &file.service) {
            for method in &service.method {
                let path = format!("/skep.v1.{}/{}", service.name(), method.name());
                let on_the_socket_only = ["Node", "Local"].contains(&service.name());
                assert_eq!(access(&path).is_none(), on_the_socket_only, "{path}");
            }
        }
    }

    #[test]
    fn unknown_paths_have_no_access() {
        for path in [
            "",
            "/",
            "/docker.swarmkit.v1.Control",
            "/docker.swarmkit.v1.Control/",
            "/docker.swarmkit.v1.Control/GetNode/",
            "/docker.swarmkit.v1.CA/GetNode",
            "docker.swarmkit.v1.Control/GetNode",
            "/grpc.health.v1.Health/Check",
            "/skep.v1.Control/GetNode",
            "/skep.v1.RaftStream/Check",
        ] {
            assert_eq!(access(path), None, "{path}");
        }
    }
}
