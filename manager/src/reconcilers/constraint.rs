//! Placement constraints: `<key>==<value>` or `<key>!=<value>`, as SwarmKit reads them.
//!
//! Keys: `node.id`, `node.hostname`, `node.ip` (address or CIDR), `node.role`, `node.platform.os`,
//! `node.platform.arch`, `node.labels.NAME`, `engine.labels.NAME`. Values compare without regard to
//! case, there are no patterns, and what a node does not say is the empty string.

use std::net::IpAddr;

use skep_proto::v1::{Node, Platform};

/// Why a constraint cannot be read. The texts are those of SwarmKit, users see them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The left side is no key.
    #[error("key '{0}' is invalid")]
    Key(String),
    /// The right side holds characters that no value may hold.
    #[error("value '{0}' is invalid")]
    Value(String),
    /// There is no operator.
    #[error("constraint expected one operator from ==, !=")]
    Operator,
}

/// One constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    key: String,
    equal: bool,
    value: String,
}

/// Reads all constraints of a placement, or tells what is wrong with the first bad one.
pub fn parse<S: AsRef<str>>(constraints: &[S]) -> Result<Vec<Constraint>, Error> {
    constraints
        .iter()
        .map(|text| Constraint::parse(text.as_ref()))
        .collect()
}

impl Constraint {
    fn parse(text: &str) -> Result<Self, Error> {
        let (equal, (key, value)) = match (text.split_once("=="), text.split_once("!=")) {
            (Some(sides), _) => (true, sides),
            (None, Some(sides)) => (false, sides),
            (None, None) => return Err(Error::Operator),
        };
        let (key, value) = (key.trim(), value.trim());
        if !is_key(key) {
            return Err(Error::Key(key.to_owned()));
        }
        if !is_value(value) {
            return Err(Error::Value(value.to_owned()));
        }
        Ok(Self {
            key: key.to_owned(),
            equal,
            value: value.to_owned(),
        })
    }

    /// Whether the node satisfies the constraint. An unknown key is never satisfied.
    pub fn matches(&self, node: &Node) -> bool {
        let description = node.description.as_ref();
        let platform = |part: fn(&Platform) -> &str| {
            description
                .and_then(|d| d.platform.as_ref())
                .map_or("", part)
        };
        let key = self.key.to_ascii_lowercase();
        match key.as_str() {
            "node.id" => self.compare(&node.id),
            "node.hostname" => self.compare(description.map_or("", |d| &d.hostname)),
            "node.ip" => self.compare_ip(&node.status().addr),
            "node.role" => self.compare(node.role().as_str_name()),
            "node.platform.os" => self.compare(platform(|p| &p.os)),
            "node.platform.arch" => self.compare(platform(|p| &p.architecture)),
            _ => {
                let labels = if key.starts_with("node.labels.") {
                    Some(&node.spec().annotations().labels)
                } else if key.starts_with("engine.labels.") {
                    description
                        .and_then(|d| d.engine.as_ref())
                        .map(|e| &e.labels)
                } else {
                    return false;
                };
                // The prefix has no regard to case, the label's name does.
                let name = self.key.splitn(3, '.').nth(2).unwrap_or("");
                if name.is_empty() {
                    return false;
                }
                self.compare(labels.and_then(|l| l.get(name)).map_or("", String::as_str))
            }
        }
    }

    fn compare(&self, actual: &str) -> bool {
        (actual.to_lowercase() == self.value.to_lowercase()) == self.equal
    }

    fn compare_ip(&self, actual: &str) -> bool {
        let actual = actual.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        if let Ok(ip) = self.value.parse::<IpAddr>() {
            return (actual == Some(ip.to_canonical())) == self.equal;
        }
        match parse_cidr(&self.value) {
            Some(net) => actual.is_some_and(|ip| contains(net, ip)) == self.equal,
            None => false,
        }
    }
}

/// `(?i)^[a-z_][a-z0-9\-_.]+$`
fn is_key(key: &str) -> bool {
    let mut bytes = key.bytes();
    key.len() >= 2
        && bytes
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// `(?i)^[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+$`
fn is_value(value: &str) -> bool {
    !value.is_empty()
        && value.bytes().all(|b| {
            b.is_ascii_alphanumeric()
                || b.is_ascii_whitespace()
                || b":-_.*()?+[]\\^$|/".contains(&b)
        })
}

fn parse_cidr(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits: u32 = bits.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (bits <= most).then_some((address, bits))
}

fn contains((net, bits): (IpAddr, u32), ip: IpAddr) -> bool {
    match (net, ip) {
        (IpAddr::V4(net), IpAddr::V4(ip)) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            net.to_bits() & mask == ip.to_bits() & mask
        }
        (IpAddr::V6(net), IpAddr::V6(ip)) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            net.to_bits() & mask == ip.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::{EngineDescription, NodeDescription, NodeRole};

    use super::*;

    fn node() -> Node {
        let mut node = Node {
            id: "abc".to_owned(),
            description: Some(NodeDescription {
                hostname: "Host1".to_owned(),
                platform: Some(Platform {
                    architecture: "x86_64".to_owned(),
                    os: "linux".to_owned(),
                }),
                engine: Some(EngineDescription {
                    labels: [("disk".to_owned(), "ssd".to_owned())].into(),
                    ..EngineDescription::default()
                }),
                ..NodeDescription::default()
            }),
            role: NodeRole::Manager.into(),
            ..Node::default()
        };
        node.status_mut().addr = "10.1.2.3".to_owned();
        node.spec_mut()
            .annotations_mut()
            .labels
            .insert("zone.Name".to_owned(), "east 1".to_owned());
        node
    }

    fn matches(text: &str) -> bool {
        Constraint::parse(text).unwrap().matches(&node())
    }

    #[test]
    fn keys_and_values() {
        for good in [
            "node.id==ABC",
            "NODE.hostname == host1",
            "node.hostname!=host2",
            "node.role==manager",
            "node.role!=worker",
            "node.platform.os==Linux",
            "node.platform.arch==x86_64",
            "node.labels.zone.Name==East 1",
            "Node.Labels.zone.Name==east 1",
            "engine.labels.disk==ssd",
            "node.labels.none!=x",
        ] {
            assert!(matches(good), "{good}");
        }
        for bad in [
            "node.id!=abc",
            "node.labels.zone.name==east 1",
            "engine.labels.disk!=SSD",
            "node.role==work",
            "node.unknown==x",
            "node.unknown!=x",
            "node.labels.!=x",
        ] {
            assert!(!matches(bad), "{bad}");
        }
        assert!(
            Constraint::parse("engine.labels.a!=b")
                .unwrap()
                .matches(&Node::default()),
            "what a node does not say is the empty string"
        );
    }

    #[test]
    fn addresses_and_networks() {
        assert!(matches("node.ip==10.1.2.3"));
        assert!(matches("node.ip==::ffff:10.1.2.3"));
        assert!(matches("node.ip==10.1.0.0/16"));
        assert!(matches("node.ip==0.0.0.0/0"));
        assert!(matches("node.ip!=10.2.0.0/16"));
        assert!(matches("node.ip!=2001:db8::/32"));
        assert!(!matches("node.ip!=10.1.2.3"));
        assert!(!matches("node.ip==10.1.2.4/32"));
        assert!(!matches("node.ip==10.1.2.3/33"), "malformed never matches");
        assert!(!matches("node.ip!=nonsense"), "malformed never matches");
        assert!(
            !Constraint::parse("node.ip==0.0.0.0/0")
                .unwrap()
                .matches(&Node::default())
        );
    }

    #[test]
    fn errors_have_the_known_texts() {
        let error = |text: &str| Constraint::parse(text).unwrap_err().to_string();
        assert_eq!(
            error("node.id"),
            "constraint expected one operator from ==, !="
        );
        assert_eq!(
            error("node.id=x"),
            "constraint expected one operator from ==, !="
        );
        assert_eq!(error("1node==x"), "key '1node' is invalid");
        assert_eq!(error("n==x"), "key 'n' is invalid");
        assert_eq!(error("node.id=="), "value '' is invalid");
        assert_eq!(error("node.id== a#b "), "value 'a#b' is invalid");
        assert_eq!(
            error("a!=b==c"),
            "key 'a!=b' is invalid",
            "== is looked for first"
        );
    }
}
