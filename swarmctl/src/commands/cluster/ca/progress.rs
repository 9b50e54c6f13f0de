//! How far a rotation of the root CA is, as the cluster and its nodes tell. No I/O.

use skep_proto::v1::{Cluster, Node};

use super::certificate::Issuer;

/// What was seen at one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    nodes: usize,
    /// Nodes whose certificate is of the new root.
    certificates: usize,
    /// Nodes that trust the new root.
    roots: usize,
    /// Names of some that have no new certificate yet.
    behind: Vec<String>,
}

/// What a look means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// It is under way.
    Waiting(Progress),
    /// The new root is in place.
    Done(Progress),
    /// The cluster moves somewhere else now, or stays where it was.
    Replaced,
}

/// How many nodes that are behind are named.
const NAMED: usize = 3;

/// The PEM of the root that the cluster moves to, or has.
pub(super) fn goal(cluster: &Cluster) -> &[u8] {
    let root = cluster.root_ca();
    match &root.root_rotation {
        Some(rotation) => &rotation.ca_cert,
        None => &root.ca_cert,
    }
}

/// What `cluster` and `nodes` say of the rotation to the root `wanted`, with this issuer.
pub(super) fn step(cluster: &Cluster, nodes: &[Node], wanted: &[u8], issuer: &Issuer) -> Step {
    if goal(cluster) != wanted {
        return Step::Replaced;
    }
    let info = |node: &Node| {
        let description = node.description.as_ref();
        description.and_then(|description| description.tls_info.clone())
    };
    let has_moved = |node: &&Node| {
        info(node).is_some_and(|info| {
            info.cert_issuer_subject == issuer.subject
                && info.cert_issuer_public_key == issuer.public_key
        })
    };
    let certificates = nodes.iter().filter(has_moved).count();
    let trusts = |node: &&Node| info(node).is_some_and(|info| info.trust_root == wanted);
    let behind = nodes.iter().filter(|node| !has_moved(node));
    let progress = Progress {
        nodes: nodes.len(),
        certificates,
        roots: nodes.iter().filter(trusts).count(),
        behind: behind.take(NAMED).map(name).collect(),
    };
    match cluster.root_ca().root_rotation {
        Some(_) => Step::Waiting(progress),
        None => Step::Done(progress),
    }
}

fn name(node: &Node) -> String {
    let hostname = node
        .description
        .as_ref()
        .map(|description| &description.hostname);
    let hostname = hostname.filter(|hostname| !hostname.is_empty());
    hostname.unwrap_or(&node.id).clone()
}

impl Progress {
    /// As one line.
    pub(super) fn line(&self) -> String {
        let Self {
            nodes,
            certificates,
            roots,
            ..
        } = self;
        format!(
            "new certificates: {certificates} of {nodes} nodes, new root: {roots} of {nodes} nodes"
        )
    }

    /// Which nodes the rotation waits for, if it waits for any.
    pub(super) fn waits_for(&self) -> Option<String> {
        let more = (self.nodes - self.certificates).saturating_sub(self.behind.len());
        match (self.behind.is_empty(), more) {
            (true, _) => None,
            (false, 0) => Some(self.behind.join(", ")),
            (false, more) => Some(format!("{} and {more} more", self.behind.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::{NodeDescription, NodeTlsInfo, RootCa, RootRotation};

    use super::*;

    fn cluster(root: &str, next: Option<&str>) -> Cluster {
        Cluster {
            root_ca: Some(RootCa {
                ca_cert: root.to_owned().into(),
                root_rotation: next.map(|next| RootRotation {
                    ca_cert: next.to_owned().into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn node(id: &str, issuer: &str, trusts: &str) -> Node {
        Node {
            id: id.to_owned(),
            description: Some(NodeDescription {
                tls_info: Some(NodeTlsInfo {
                    trust_root: trusts.to_owned().into(),
                    cert_issuer_subject: "CN".into(),
                    cert_issuer_public_key: issuer.to_owned().into(),
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn look(cluster: &Cluster, nodes: &[Node]) -> Step {
        let issuer = Issuer {
            subject: b"CN".to_vec(),
            public_key: b"new key".to_vec(),
        };
        step(cluster, nodes, b"new", &issuer)
    }

    #[test]
    fn nodes_move_first_and_trust_afterwards() {
        let rotating = cluster("old", Some("new"));
        let mut nodes: Vec<_> = (1..=5)
            .map(|number| node(&format!("n{number}"), "old key", "old"))
            .collect();
        // One that has never told anything.
        nodes[4].description = None;
        let Step::Waiting(progress) = look(&rotating, &nodes) else {
            panic!()
        };
        assert_eq!(
            progress.line(),
            "new certificates: 0 of 5 nodes, new root: 0 of 5 nodes"
        );
        assert_eq!(progress.waits_for().unwrap(), "n1, n2, n3 and 2 more");
        nodes[0] = node("n1", "new key", "old");
        nodes.truncate(3);
        let Step::Waiting(progress) = look(&rotating, &nodes) else {
            panic!()
        };
        assert_eq!(progress.waits_for().unwrap(), "n2, n3");

        let moved = [node("n1", "new key", "new"), node("n2", "new key", "old")];
        let Step::Done(progress) = look(&cluster("new", None), &moved) else {
            panic!()
        };
        assert_eq!(
            progress.line(),
            "new certificates: 2 of 2 nodes, new root: 1 of 2 nodes"
        );
        assert_eq!(progress.waits_for(), None);
    }

    #[test]
    fn a_change_of_mind_is_noticed() {
        assert_eq!(look(&cluster("old", None), &[]), Step::Replaced);
        assert_eq!(look(&cluster("old", Some("third")), &[]), Step::Replaced);
        assert_eq!(look(&cluster("third", None), &[]), Step::Replaced);
    }
}
