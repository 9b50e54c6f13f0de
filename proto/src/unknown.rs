//! Finds fields that this version does not know. Messages that are decoded lose them; where such a
//! message is stored or replicated, that would be a loss that nobody is told of.

use std::{collections::HashMap, sync::LazyLock};

use prost::{
    Message as _,
    encoding::{self, DecodeContext, WireType},
};
use prost_types::{DescriptorProto, FileDescriptorSet};

/// Fields by number: `None` for what has no fields of its own, otherwise its type.
type Fields = HashMap<u32, Option<String>>;

/// All messages by their full names, with a leading dot.
static MESSAGES: LazyLock<HashMap<String, Fields>> = LazyLock::new(|| {
    let files = FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET);
    let files = files.expect("the descriptors are those of this build").file;
    let mut messages = HashMap::new();
    for file in &files {
        let package = format!(".{}", file.package());
        for message in &file.message_type {
            collect(&package, message, &mut messages);
        }
    }
    messages
});

fn collect(scope: &str, message: &DescriptorProto, messages: &mut HashMap<String, Fields>) {
    use prost_types::field_descriptor_proto::Type;
    let name = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        collect(&name, nested, messages);
    }
    let fields = message.field.iter().map(|field| {
        let nested = (field.r#type() == Type::Message).then(|| field.type_name().to_owned());
        (field.number().unsigned_abs(), nested)
    });
    messages.insert(name, fields.collect());
}

/// The first field in a serialised `message` of `docker.swarmkit.v1` (its name, without the package)
/// that this version does not know, at any depth: `field 99 of docker.swarmkit.v1.NodeSpec`. `None` if
/// there is none, and for what does not decode.
pub fn unknown_field(message: &str, data: &[u8]) -> Option<String> {
    search(&format!(".docker.swarmkit.v1.{message}"), data)
}

/// Goes as deep as the descriptors are nested by what decodes: prost refuses what is deeper.
fn search(message: &str, mut data: &[u8]) -> Option<String> {
    // What is not described is not ours to judge.
    let fields = MESSAGES.get(message)?;
    while !data.is_empty() {
        let (tag, wire_type) = encoding::decode_key(&mut data).ok()?;
        let mut field = data;
        encoding::skip_field(wire_type, tag, &mut data, DecodeContext::default()).ok()?;
        let Some(nested) = fields.get(&tag) else {
            return Some(format!(
                "field {tag} of {}",
                message.trim_start_matches('.')
            ));
        };
        if let Some(nested) = nested
            && wire_type == WireType::LengthDelimited
        {
            let length = encoding::decode_varint(&mut field).ok()?;
            // It has been skipped, so it is there.
            let found = search(nested, field.get(..length as usize)?);
            if found.is_some() {
                return found;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    fn node() -> v1::Node {
        let mut node = v1::Node {
            id: "node".into(),
            ..Default::default()
        };
        node.spec_mut().annotations_mut().labels = [("key".into(), "value".into())].into();
        node
    }

    /// A field as a later version may add it.
    fn with_field(mut message: Vec<u8>, tag: u32) -> Vec<u8> {
        encoding::string::encode(tag, &"later".to_owned(), &mut message);
        message
    }

    #[test]
    fn what_is_known_is_not_found() {
        assert_eq!(unknown_field("Node", &node().encode_to_vec()), None);
        assert_eq!(unknown_field("Node", b""), None);
        assert_eq!(unknown_field("Node", b"\xff"), None, "does not decode");
    }

    #[test]
    fn unknown_fields_are_found_at_any_depth() {
        let data = with_field(node().encode_to_vec(), 99);
        let found = unknown_field("Node", &data);
        assert_eq!(found.unwrap(), "field 99 of docker.swarmkit.v1.Node");
        let annotations = with_field(node().spec().annotations().encode_to_vec(), 77);
        let (mut spec, mut data) = (Vec::new(), Vec::new());
        encoding::bytes::encode(1, &annotations, &mut spec);
        encoding::bytes::encode(3, &spec, &mut data);
        assert!(v1::Node::decode(&*data).is_ok(), "it is simply lost");
        let found = unknown_field("Node", &data);
        assert_eq!(found.unwrap(), "field 77 of docker.swarmkit.v1.Annotations");
    }

    #[test]
    fn every_message_that_is_stored_is_described() {
        for name in ["InternalRaftRequest", "StoreSnapshot", "Task", "TaskSpec"] {
            assert!(MESSAGES.contains_key(&format!(".docker.swarmkit.v1.{name}")));
        }
        // Every type that a field names, or its unknown fields would pass.
        for nested in MESSAGES.values().flat_map(HashMap::values).flatten() {
            assert!(MESSAGES.contains_key(nested), "{nested}");
        }
    }
}
