//! Objects of the wire as canonical proto3 JSON, by way of their descriptors.

use std::{io::Write, sync::LazyLock};

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;
use skep_proto::{
    skep::GetRaftStatusResponse,
    v1::{Cluster, Config, LogMessage, Node, Secret, Service, Task},
};

use crate::Error;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(skep_proto::FILE_DESCRIPTOR_SET)
        .expect("the descriptors were compiled together with the messages")
});

/// A message that knows its name in the descriptors.
pub(crate) trait Described: Message {
    /// The full name, with the package.
    const NAME: &'static str;
}

macro_rules! described {
    ($($message:ident),*) => {$(
        impl Described for $message {
            const NAME: &'static str = concat!("docker.swarmkit.v1.", stringify!($message));
        }
    )*};
}

described!(Service, Node, Task, Secret, Config, Cluster, LogMessage);

impl Described for GetRaftStatusResponse {
    const NAME: &'static str = "skep.v1.GetRaftStatusResponse";
}

/// Writes `message` as one line of JSON.
pub(crate) fn write_line<M: Described>(out: &mut dyn Write, message: &M) -> Result<(), Error> {
    Ok(writeln!(out, "{}", to_value(message)?)?)
}

/// Writes `message` as indented JSON.
pub(crate) fn write_pretty<M: Described>(out: &mut dyn Write, message: &M) -> Result<(), Error> {
    Ok(writeln!(out, "{:#}", to_value(message)?)?)
}

/// The JSON form of `message`: camel case names, 64-bit integers as strings, fields with default
/// values included. Keys are sorted, so equal objects have equal text.
fn to_value<M: Described>(message: &M) -> Result<Value, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Json(error.to_string());
    let descriptor = POOL
        .get_message_by_name(M::NAME)
        .ok_or_else(|| Error::Json(format!("{} has no descriptor", M::NAME)))?;
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .map_err(|error| failed(&error))?;
    let mut text = Vec::new();
    let options = SerializeOptions::new().skip_default_fields(false);
    dynamic
        .serialize_with_options(&mut serde_json::Serializer::new(&mut text), &options)
        .map_err(|error| failed(&error))?;
    // Maps of dynamic messages have no order. By way of text, and not of a serializer that makes
    // values, because that would show a 0.1 of 32 bits with the digits of 64.
    serde_json::from_slice(&text).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use skep_proto::{
        Timestamp,
        v1::{Annotations, Meta, ServiceSpec, UpdateConfig, Version},
    };

    use super::*;

    #[test]
    fn json_is_canonical_and_has_default_fields() {
        let service = Service {
            id: "s1".to_owned(),
            meta: Some(Meta {
                version: Some(Version { index: u64::MAX }),
                created_at: Some(Timestamp {
                    seconds: 1,
                    nanos: 0,
                }),
                updated_at: None,
            }),
            spec: Some(ServiceSpec {
                annotations: Some(Annotations {
                    labels: [("b", "2"), ("a", "1")]
                        .map(|(key, value)| (key.to_owned(), value.to_owned()))
                        .into(),
                    ..Default::default()
                }),
                update: Some(UpdateConfig {
                    max_failure_ratio: 0.1,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let value = to_value(&service).unwrap();
        assert_eq!(value["meta"]["version"]["index"], u64::MAX.to_string());
        assert_eq!(value["meta"]["createdAt"], "1970-01-01T00:00:01Z");
        assert_eq!(
            value["meta"].get("updatedAt"),
            None,
            "absent messages stay absent"
        );
        assert_eq!(value["pendingDelete"], false);
        assert_eq!(value["spec"]["update"]["failureAction"], "PAUSE");
        let text = value.to_string();
        assert!(text.contains(r#""labels":{"a":"1","b":"2"}"#), "{text}");
        assert!(text.contains(r#""maxFailureRatio":0.1,"#), "{text}");
    }
}
