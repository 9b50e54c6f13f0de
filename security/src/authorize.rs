//! May this caller call this RPC?
//!
//! A follower passes calls on to the leader under its own certificate and tells in metadata on
//! whose behalf. Only managers are believed. The texts of refusals are those of SwarmKit.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request};
use tonic::Status;

use crate::{Access, Identity, Role, access, identity::Subject, incoming::Peer};

const FORWARDED: &str = "forwarded_cert";
const FORWARDED_CN: &str = "forwarded_cert_cn";
const FORWARDED_ORG: &str = "forwarded_cert_org";
const FORWARDED_OU: &str = "forwarded_cert_ou";
const REMOTE_ADDR: &str = "remote_addr";

/// Who calls: what the certificate says, or what the manager that forwards the call says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The caller, if it proved to be a member of this cluster. Always there unless the RPC is
    /// open to [`Access::Anyone`].
    pub identity: Option<Identity>,
    /// `host:port` from where the caller called, empty if unknown.
    pub remote_addr: String,
    /// Node ID of the manager that forwarded the call.
    pub forwarded_by: Option<String>,
}

/// Decides whether the caller of `request` may call the RPC that the request's path names, and
/// says who the caller is. `removed` tells whether a node ID was removed from the cluster.
///
/// For an RPC open to anyone a caller without a usable certificate (none, another cluster's,
/// a removed node's) is simply nobody.
///
/// # Errors
/// `PermissionDenied` with SwarmKit's text, or `Unimplemented` for an unknown path.
#[allow(
    clippy::result_large_err,
    reason = "a Status is what the caller answers with"
)]
pub fn authorize<B>(
    request: &Request<B>,
    cluster_id: &str,
    removed: &dyn Fn(&str) -> bool,
) -> Result<Caller, Status> {
    let cluster = Cluster {
        id: cluster_id,
        removed,
    };
    let peer = request.extensions().get::<Arc<Peer>>().map(Arc::as_ref);
    cluster.decide(request.uri().path(), peer, request.headers())
}

/// Writes on whose behalf a call is forwarded. What the client itself sent under these names is
/// removed first. Blank values are written for a caller without a certificate: without them the
/// leader would take the call for the manager's own.
pub fn forward_headers(caller: &Caller, headers: &mut HeaderMap) {
    for name in [
        FORWARDED,
        FORWARDED_CN,
        FORWARDED_ORG,
        FORWARDED_OU,
        REMOTE_ADDR,
    ] {
        headers.remove(name);
    }
    let identity = caller.identity.as_ref();
    headers.insert(FORWARDED, HeaderValue::from_static("true"));
    headers.insert(FORWARDED_CN, value(identity.map_or("", |who| &who.node_id)));
    headers.insert(
        FORWARDED_ORG,
        value(identity.map_or("", |who| &who.cluster_id)),
    );
    if let Some(who) = identity {
        headers.insert(FORWARDED_OU, HeaderValue::from_static(who.role.as_ou()));
    }
    headers.insert(REMOTE_ADDR, value(&caller.remote_addr));
}

/// A header value; blank, which the leader refuses as missing, if `text` cannot be one.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// How a refusal reads inside another one.
fn nested(message: &str) -> String {
    format!("rpc error: code = PermissionDenied desc = {message}")
}

struct Cluster<'a> {
    id: &'a str,
    removed: &'a dyn Fn(&str) -> bool,
}

impl Cluster<'_> {
    #[allow(clippy::result_large_err, reason = "as for `authorize`")]
    fn decide(
        &self,
        path: &str,
        peer: Option<&Peer>,
        headers: &HeaderMap,
    ) -> Result<Caller, Status> {
        match access(path) {
            None => Err(Status::unimplemented(format!("unknown method {path}"))),
            Some(Access::Anyone) => Ok(self.identify(peer, headers)),
            Some(Access::Roles(roles)) => self
                .admit(peer, headers, roles)
                .map_err(Status::permission_denied),
        }
    }

    /// The caller of an RPC that only `roles` may call.
    fn admit(
        &self,
        peer: Option<&Peer>,
        headers: &HeaderMap,
        roles: &[Role],
    ) -> Result<Caller, String> {
        if !is_forwarded(headers) {
            let identity = self.node(peer, roles).map_err(|error| {
                format!(
                    "Permission denied: unauthorized peer role: {}",
                    nested(&error)
                )
            })?;
            return Ok(direct(peer, Some(identity)));
        }
        let proxy = self.forwarder(peer)?;
        let forwarded = Subject {
            organizations: values(headers, FORWARDED_ORG),
            units: values(headers, FORWARDED_OU),
            common_name: values(headers, FORWARDED_CN)
                .into_iter()
                .next()
                .unwrap_or_default(),
        };
        let Some(org) = forwarded.organizations.first() else {
            return Err(missing());
        };
        if forwarded.units.is_empty() || forwarded.common_name.is_empty() {
            return Err(missing());
        }
        if !has_role(&forwarded, roles) {
            return Err(format!(
                "Permission denied: unauthorized forwarded role, expecting: {}",
                list(roles)
            ));
        }
        if org != self.id {
            return Err(format!(
                "Permission denied: organization mismatch, expecting: {}",
                self.id
            ));
        }
        let identity = forwarded.identity().map_err(|_| missing())?;
        Ok(forwarded_caller(headers, proxy, Some(identity)))
    }

    /// The caller of an RPC that anyone may call.
    fn identify(&self, peer: Option<&Peer>, headers: &HeaderMap) -> Caller {
        let both = [Role::Worker, Role::Manager];
        if let Ok(caller) = self.admit(peer, headers, &both) {
            return caller;
        }
        match self.forwarder(peer) {
            Ok(proxy) if is_forwarded(headers) => forwarded_caller(headers, proxy, None),
            _ => direct(peer, None),
        }
    }

    /// The manager at the other end, as a forwarder.
    fn forwarder(&self, peer: Option<&Peer>) -> Result<Identity, String> {
        self.node(peer, &[Role::Manager]).map_err(|error| {
            format!(
                "Permission denied: unauthorized forwarder role: {}",
                nested(&error)
            )
        })
    }

    /// The node at the other end, if it has one of `roles` in this cluster.
    fn node(&self, peer: Option<&Peer>, roles: &[Role]) -> Result<Identity, String> {
        let subject = peer
            .ok_or("request is not using TLS")?
            .subject
            .as_ref()
            .ok_or("no client certificates in request")?;
        if !has_role(subject, roles) {
            return Err(format!(
                "Permission denied: remote certificate not part of OUs: {}",
                list(roles)
            ));
        }
        if (self.removed)(&subject.common_name) {
            let node = &subject.common_name;
            return Err(format!(
                "Permission denied: node {node} was removed from swarm"
            ));
        }
        let other_org = || {
            format!(
                "Permission denied: remote certificate not part of organization: {}",
                self.id
            )
        };
        match subject.organizations.first() {
            Some(org) if org == self.id => subject.identity().map_err(|_| other_org()),
            _ => Err(other_org()),
        }
    }
}

fn is_forwarded(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(FORWARDED).iter();
    matches!((all.next(), all.next()), (Some(value), None) if value == "true")
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    let texts = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    texts
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
        .collect()
}

fn has_role(subject: &Subject, roles: &[Role]) -> bool {
    subject
        .units
        .iter()
        .any(|unit| roles.iter().any(|role| role.as_ou() == unit))
}

fn list(roles: &[Role]) -> String {
    let names: Vec<_> = roles.iter().map(|role| role.as_ou()).collect();
    format!("[{}]", names.join(" "))
}

fn missing() -> String {
    "Permission denied: missing information in forwarded request".to_owned()
}

fn direct(peer: Option<&Peer>, identity: Option<Identity>) -> Caller {
    Caller {
        identity,
        remote_addr: peer.map(|peer| peer.addr.clone()).unwrap_or_default(),
        forwarded_by: None,
    }
}

fn forwarded_caller(headers: &HeaderMap, proxy: Identity, identity: Option<Identity>) -> Caller {
    let addr = values(headers, REMOTE_ADDR).into_iter().next();
    Caller {
        identity,
        remote_addr: addr.unwrap_or_default(),
        forwarded_by: Some(proxy.node_id),
    }
}

#[cfg(test)]
mod tests;
