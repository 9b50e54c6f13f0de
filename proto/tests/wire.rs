//! The compiled `.proto` files against the tables in `tests/wire/`, which record the wire contract
//! of Docker Swarm independently of them.
//!
//! Everything is compared in both directions, and a failure lists all differences at once.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MethodDescriptor};

/// A table and its text.
type Table = (&'static str, String);

const FIELDS: [(&str, &str); 12] = [
    ("types", include_str!("wire/types.tsv")),
    ("specs", include_str!("wire/specs.tsv")),
    ("objects", include_str!("wire/objects.tsv")),
    ("control", include_str!("wire/control.tsv")),
    ("dispatcher", include_str!("wire/dispatcher.tsv")),
    ("ca", include_str!("wire/ca.tsv")),
    ("raft", include_str!("wire/raft.tsv")),
    ("logbroker", include_str!("wire/logbroker.tsv")),
    ("resource", include_str!("wire/resource.tsv")),
    ("health", include_str!("wire/health.tsv")),
    ("watch", include_str!("wire/watch.tsv")),
    ("snapshot", include_str!("wire/snapshot.tsv")),
];
const ENUMS: (&str, &str) = ("enums", include_str!("wire/enums.tsv"));
const SERVICES: (&str, &str) = ("services", include_str!("wire/services.tsv"));

/// The one type that is not ours: its bytes are carried without being looked into.
const RAFT_MESSAGE: &str = "raftpb.Message";

/// All that two peers must agree on: a key for each message, field, enum value and RPC, with its
/// particulars as one line of text.
#[derive(Default)]
struct Contract {
    particulars: BTreeMap<String, String>,
    twice: BTreeSet<String>,
}

impl Contract {
    fn add(&mut self, key: String, particulars: String) {
        if self.particulars.insert(key.clone(), particulars).is_some() {
            self.twice.insert(key);
        }
    }

    fn add_message(&mut self, message: &str) {
        self.particulars
            .insert(format!("message {message}"), String::new());
    }

    fn of_tables(tables: &[Table]) -> Self {
        let mut contract = Self::default();
        for (name, text) in tables {
            for line in text.lines().skip(1) {
                let columns: Vec<_> = line.split('\t').collect();
                match *name {
                    "enums" => contract.add_enum_row(&columns),
                    "services" => contract.add_service_row(&columns),
                    _ => contract.add_field_row(&columns),
                }
            }
        }
        contract
    }

    fn add_enum_row(&mut self, columns: &[&str]) {
        let &[name, value, number] = columns else {
            panic!("not an enum row: {columns:?}")
        };
        self.add(format!("enum value {name}.{value}"), number.to_owned());
    }

    fn add_service_row(&mut self, columns: &[&str]) {
        let &[service, method, request, response, client, server, roles] = columns else {
            panic!("not a service row: {columns:?}")
        };
        let deprecated = roles.contains("(deprecated)");
        self.add(
            format!("rpc {service}/{method}"),
            format!("{request} {response} streams {client} {server}, deprecated {deprecated}"),
        );
    }

    fn add_field_row(&mut self, columns: &[&str]) {
        let &[message, field, number, ty, label, oneof, notes] = columns else {
            panic!("not a field row: {columns:?}")
        };
        self.add_message(message);
        if field == "-" {
            return; // the only row of a message without fields
        }
        let ty = if ty == RAFT_MESSAGE { "bytes" } else { ty };
        let notes: BTreeSet<_> = notes.split(',').collect();
        let (unpacked, deprecated) = (notes.contains("unpacked"), notes.contains("deprecated"));
        self.add(
            format!("field {message}.{field}"),
            field_particulars(number, label, ty, oneof, unpacked, deprecated),
        );
    }

    fn of_descriptors(descriptors: &[u8]) -> Self {
        let pool = DescriptorPool::decode(descriptors).expect("the build wrote valid descriptors");
        let mut contract = Self::default();
        for message in pool.all_messages().filter(|m| is_ours(m.package_name())) {
            if message.is_map_entry() {
                continue; // part of its field: `map<key,value>`
            }
            contract.add_message(message.full_name());
            for field in message.fields() {
                contract.add_field(message.full_name(), &field);
            }
        }
        for descriptor in pool.all_enums().filter(|e| is_ours(e.package_name())) {
            contract.add_enum(&descriptor);
        }
        for service in pool.services().filter(|s| is_ours(s.package_name())) {
            for method in service.methods() {
                contract.add_method(service.full_name(), &method);
            }
        }
        contract
    }

    fn add_field(&mut self, message: &str, field: &FieldDescriptor) {
        let (label, ty) = match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                let (key, value) = (
                    type_name(&entry.map_entry_key_field().kind()),
                    type_name(&entry.map_entry_value_field().kind()),
                );
                ("map", format!("map<{key},{value}>"))
            }
            kind => (
                if field.is_list() {
                    "repeated"
                } else {
                    "optional"
                },
                type_name(&kind),
            ),
        };
        let oneof = field
            .containing_oneof()
            .map(|o| o.name().to_owned())
            .unwrap_or_default();
        let unpacked = field.is_list() && is_packable(&field.kind()) && !field.is_packed();
        let options = field.field_descriptor_proto().options.as_ref();
        let deprecated = options.is_some_and(|o| o.deprecated());
        self.add(
            format!("field {message}.{}", field.name()),
            field_particulars(
                &field.number().to_string(),
                label,
                &ty,
                &oneof,
                unpacked,
                deprecated,
            ),
        );
    }

    fn add_enum(&mut self, descriptor: &EnumDescriptor) {
        for value in descriptor.values() {
            self.add(
                format!("enum value {}.{}", descriptor.full_name(), value.name()),
                value.number().to_string(),
            );
        }
    }

    fn add_method(&mut self, service: &str, method: &MethodDescriptor) {
        let options = method.method_descriptor_proto().options.as_ref();
        self.add(
            format!("rpc {service}/{}", method.name()),
            format!(
                "{} {} streams {} {}, deprecated {}",
                method.input().full_name(),
                method.output().full_name(),
                method.is_client_streaming(),
                method.is_server_streaming(),
                options.is_some_and(|o| o.deprecated()),
            ),
        );
    }
}

fn field_particulars(
    number: &str,
    label: &str,
    ty: &str,
    oneof: &str,
    unpacked: bool,
    deprecated: bool,
) -> String {
    format!(
        "{label} {ty} = {number}, oneof `{oneof}`, unpacked {unpacked}, deprecated {deprecated}"
    )
}

/// The files also bring in `google.protobuf`.
fn is_ours(package: &str) -> bool {
    package == "docker.swarmkit.v1"
}

fn is_packable(kind: &Kind) -> bool {
    !matches!(kind, Kind::Message(_) | Kind::String | Kind::Bytes)
}

fn type_name(kind: &Kind) -> String {
    let name = match kind {
        Kind::Message(message) => message.full_name(),
        Kind::Enum(descriptor) => descriptor.full_name(),
        Kind::Bool => "bool",
        Kind::Bytes => "bytes",
        Kind::Double => "double",
        Kind::Fixed32 => "fixed32",
        Kind::Fixed64 => "fixed64",
        Kind::Float => "float",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Sfixed32 => "sfixed32",
        Kind::Sfixed64 => "sfixed64",
        Kind::Sint32 => "sint32",
        Kind::Sint64 => "sint64",
        Kind::String => "string",
        Kind::Uint32 => "uint32",
        Kind::Uint64 => "uint64",
    };
    name.to_owned()
}

/// Every way in which the two differ, one line each.
fn differences(tables: &Contract, descriptors: &Contract) -> Vec<String> {
    let repeated = tables
        .twice
        .iter()
        .map(|key| format!("twice in the tables: {key}"));
    let missing = tables.particulars.iter().filter_map(|(key, table)| {
        match descriptors.particulars.get(key) {
            None => Some(format!("only in the tables: {key}: {table}")),
            Some(ours) if ours != table => Some(format!("{key}: {ours}; the tables say {table}")),
            Some(_) => None,
        }
    });
    let extra = (descriptors.particulars.iter())
        .filter(|(key, _)| !tables.particulars.contains_key(*key))
        .map(|(key, ours)| format!("only in the descriptors: {key}: {ours}"));
    repeated.chain(missing).chain(extra).collect()
}

fn tables() -> Vec<Table> {
    let all = FIELDS.into_iter().chain([ENUMS, SERVICES]);
    all.map(|(name, text)| (name, text.to_owned())).collect()
}

fn compare(tables: &[Table]) -> Vec<String> {
    differences(
        &Contract::of_tables(tables),
        &Contract::of_descriptors(skep_proto::FILE_DESCRIPTOR_SET),
    )
}

/// The differences after `old` in the named table, which must occur once, has become `new`.
fn compare_with(name: &str, old: &str, new: &str) -> Vec<String> {
    let mut tables = tables();
    let (_, text) = tables
        .iter_mut()
        .find(|(n, _)| *n == name)
        .expect("a table of that name");
    assert_eq!(
        text.matches(old).count(),
        1,
        "{old:?} occurs once in {name}"
    );
    *text = text.replace(old, new);
    compare(&tables)
}

#[test]
fn descriptors_and_tables_agree() {
    let differences = compare(&tables());
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

#[test]
fn every_table_is_compared() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire");
    let names: BTreeSet<_> = std::fs::read_dir(folder)
        .expect("the folder of the tables is part of the crate")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|e| e == "tsv"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    assert_eq!(
        names,
        tables()
            .into_iter()
            .map(|(name, _)| name.to_owned())
            .collect()
    );
}

#[test]
fn an_altered_number_is_found() {
    let found = compare_with(
        "types",
        "TaskStatus\tapplied_by\t7",
        "TaskStatus\tapplied_by\t9",
    );
    assert_eq!(
        found,
        [
            "field docker.swarmkit.v1.TaskStatus.applied_by: optional string = 7, oneof ``, \
             unpacked false, deprecated false; the tables say optional string = 9, oneof ``, \
             unpacked false, deprecated false"
        ]
    );
}

#[test]
fn every_compared_column_counts() {
    for (table, old, new) in [
        // type, label, map value, oneof, notes
        (
            "types",
            "TaskStatus\terr\t4\tstring",
            "TaskStatus\terr\t4\tbytes",
        ),
        (
            "types",
            "Image\treference\t1\tstring\toptional",
            "Image\treference\t1\tstring\trepeated",
        ),
        ("objects", "v1.BlacklistedCertificate>", "v1.Certificate>"),
        (
            "types",
            "v1.ContainerStatus\toptional\truntime_status",
            "v1.ContainerStatus\toptional\t",
        ),
        ("raft", "repeated\t\tunpacked", "repeated\t\t"),
        ("ca", "optional\t\tdeprecated", "optional\t\t"),
        // the type that is bytes here must still be that type there
        (
            "raft",
            "StreamRaftMessageRequest\tmessage\t1\traftpb.Message",
            "StreamRaftMessageRequest\tmessage\t1\traftpb.Entry",
        ),
        (
            "enums",
            "TaskState\tRUNNING\t512",
            "TaskState\tRUNNING\t513",
        ),
        // request, response, both directions of streaming, deprecation
        (
            "services",
            "v1.GetUnlockKeyRequest\tdocker.swarmkit.v1.GetUnlockKeyResponse",
            "v1.GetUnlockKeyRequest\tdocker.swarmkit.v1.GetUnlockKeyRequest",
        ),
        (
            "services",
            "GetUnlockKey\tdocker.swarmkit.v1.GetUnlockKeyRequest",
            "GetUnlockKey\tdocker.swarmkit.v1.GetUnlockKeyResponse",
        ),
        (
            "services",
            "PublishLogsResponse\ttrue\tfalse",
            "PublishLogsResponse\tfalse\tfalse",
        ),
        (
            "services",
            "WatchMessage\tfalse\ttrue",
            "WatchMessage\tfalse\tfalse",
        ),
        ("services", " (deprecated)", ""),
    ] {
        let found = compare_with(table, old, new);
        assert_eq!(
            found.len(),
            1,
            "{table}: {old:?} to {new:?} gives {found:?}"
        );
    }
}

#[test]
fn what_one_side_lacks_is_found() {
    let renamed = compare_with(
        "types",
        "TaskStatus\tapplied_by",
        "TaskStatus\tapplied_from",
    );
    assert_eq!(renamed.len(), 2);
    assert!(renamed[0].starts_with(
        "only in the tables: field docker.swarmkit.v1.TaskStatus.applied_from: optional string = 7"
    ));
    assert!(renamed[1].starts_with(
        "only in the descriptors: field docker.swarmkit.v1.TaskStatus.applied_by: optional string"
    ));

    let message = compare_with("control", "RemoveNodeResponse\t-", "RemoveNodeReply\t-");
    assert_eq!(
        message,
        [
            "only in the tables: message docker.swarmkit.v1.RemoveNodeReply: ",
            "only in the descriptors: message docker.swarmkit.v1.RemoveNodeResponse: "
        ]
    );

    let twice = compare_with("enums", "NodeRole\tMANAGER\t1", "NodeRole\tWORKER\t0");
    assert_eq!(
        twice,
        [
            "twice in the tables: enum value docker.swarmkit.v1.NodeRole.WORKER",
            "only in the descriptors: enum value docker.swarmkit.v1.NodeRole.MANAGER: 1"
        ]
    );
}
