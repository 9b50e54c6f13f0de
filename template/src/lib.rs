//! Placeholders such as `{{.Task.Slot}}` in a task and in its secrets and configs.
//!
//! They have the syntax of Go templates, of which exactly this is known: the fields of the service,
//! the node and the task, `index`, `join`, and in secrets and configs also `env`, `secret` and
//! `config`. Anything else is an error that says so. Nodes expand; a manager only tries whether it
//! would work. Pure: deliberately not here is where payloads come from and what errors lead to.

mod action;
mod container;

use std::{borrow::Cow, collections::BTreeMap};

use skep_proto::v1;

use self::action::{Operand, Piece};
pub use self::container::{expand_task, rehearse};

/// The most bytes that one text may expand to: a secret can be named many times in another.
const MAX_EXPANDED: usize = 4 << 20;
/// The kind of templates that secrets and configs may name.
pub const GOLANG: &str = "golang";

/// What templates see of the node.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// `.Node.ID`
    pub id: String,
    /// `.Node.Hostname`
    pub hostname: String,
    /// `.Node.Platform.OS`
    pub os: String,
    /// `.Node.Platform.Architecture`
    pub architecture: String,
}

/// Why a template makes no sense. Shows the placeholder, never what is around it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It ends within a placeholder.
    #[error("a template placeholder is not closed: add \"}}}}\"")]
    Open,
    /// Nobody can expand this placeholder.
    #[error("template placeholder {{{{{action}}}}}: {why}")]
    Action {
        /// What is between the braces.
        action: String,
        /// What is wrong with it.
        why: String,
    },
    /// This placeholder is not known here, but it is part of Go's templates: a Docker engine may
    /// know what to do with it, and with what follows it in the text.
    #[error("template placeholder {{{{{action}}}}}: {why}")]
    Foreign {
        /// What is between the braces.
        action: String,
        /// What is not known.
        why: String,
    },
    /// What it stands for is too long.
    #[error("a template expands to more than {MAX_EXPANDED} bytes")]
    TooLong,
}

/// What is wrong with a placeholder.
enum Fault {
    Wrong(String),
    Foreign(String),
}

impl Fault {
    fn of(self, action: &str) -> Error {
        let action = action::shown(action);
        match self {
            Self::Wrong(why) => Error::Action { action, why },
            Self::Foreign(why) => Error::Foreign { action, why },
        }
    }
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Self::Wrong(why)
    }
}

impl From<&str> for Fault {
    fn from(why: &str) -> Self {
        Self::Wrong(why.to_owned())
    }
}

/// Gives payload templates what they ask for by name.
pub trait Payload {
    /// The data of the secret whose file has this name, `None` if the task has no such secret.
    fn secret(&self, target: &str) -> Option<Vec<u8>>;
    /// The data of the config whose file has this name.
    fn config(&self, target: &str) -> Option<Vec<u8>>;
}

/// What the placeholders of a text stand for.
pub struct Scope<'a> {
    task: &'a v1::Task,
    node: &'a Node,
    /// Present in secrets and configs only.
    payload: Option<&'a dyn Payload>,
}

enum Value<'a> {
    Bytes(Cow<'a, [u8]>),
    Map(&'a BTreeMap<String, String>),
}

impl<'a> Scope<'a> {
    /// Of the texts in a task.
    pub fn of_task(task: &'a v1::Task, node: &'a Node) -> Self {
        Self {
            task,
            node,
            payload: None,
        }
    }

    /// Of the contents of a secret or config of an expanded task.
    pub fn of_payload(task: &'a v1::Task, node: &'a Node, payload: &'a dyn Payload) -> Self {
        Self {
            task,
            node,
            payload: Some(payload),
        }
    }

    /// `text` with all placeholders replaced.
    pub fn expand(&self, text: &str) -> Result<String, Error> {
        let expanded = self.expand_bytes(text.as_bytes())?;
        // What comes from secrets may be no text, but only bytes may name those.
        Ok(String::from_utf8_lossy(&expanded).into_owned())
    }

    /// `bytes` with all placeholders replaced; what is no placeholder may be anything.
    pub fn expand_bytes(&self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let mut expanded = Vec::new();
        for piece in action::pieces(bytes) {
            match piece? {
                Piece::Plain(plain) => expanded.extend_from_slice(plain),
                Piece::Action(action) => {
                    let value = self.run(&action).map_err(|fault| fault.of(&action))?;
                    expanded.extend_from_slice(&value);
                }
            }
            if expanded.len() > MAX_EXPANDED {
                return Err(Error::TooLong);
            }
        }
        Ok(expanded)
    }

    fn run(&self, action: &str) -> Result<Cow<'a, [u8]>, Fault> {
        let operands = action::operands(action)?;
        match operands.as_slice() {
            [] => Err("it is empty".into()),
            [Operand::Name(function), arguments @ ..] => self.call(function, arguments),
            [operand] => bytes(self.value(operand)?),
            [_, ..] => Err("only functions take arguments".into()),
        }
    }

    fn call(&self, function: &str, arguments: &[Operand]) -> Result<Cow<'a, [u8]>, Fault> {
        let text = |operand: &Operand| -> Result<String, Fault> {
            let bytes = bytes(self.value(operand)?)?;
            String::from_utf8(bytes.into_owned()).map_err(|_| "it is no text".into())
        };
        match (function, arguments, self.payload) {
            ("index", [map, key], _) => match self.value(map)? {
                // As in Go, a key that is not there is an empty text.
                Value::Map(map) => Ok(map
                    .get(&text(key)?)
                    .map_or(Cow::Borrowed(&[]), |value| value.as_bytes().into())),
                Value::Bytes(_) => Err("index needs labels, such as .Service.Labels".into()),
            },
            ("join", [separator, parts @ ..], _) => {
                let parts: Result<Vec<_>, _> = parts.iter().map(text).collect();
                Ok(parts?.join(&text(separator)?).into_bytes().into())
            }
            ("env", [name], Some(_)) => Ok(self.variable(&text(name)?).into_bytes().into()),
            ("secret", [name], Some(payload)) => {
                let name = text(name)?;
                let data = payload.secret(&name);
                data.map(Cow::Owned)
                    .ok_or_else(|| format!("the task has no secret with target {name:?}").into())
            }
            ("config", [name], Some(payload)) => {
                let name = text(name)?;
                let data = payload.config(&name);
                data.map(Cow::Owned)
                    .ok_or_else(|| format!("the task has no config with target {name:?}").into())
            }
            ("env" | "secret" | "config", _, None) => {
                Err(format!("{function} is known in templates of secrets and configs only").into())
            }
            ("index" | "join" | "env" | "secret" | "config", ..) => {
                Err(format!("{function} has a wrong number of arguments").into())
            }
            _ => {
                let why = format!("{function} is not known here");
                Err(if action::is_go(function) {
                    Fault::Foreign(why)
                } else {
                    Fault::Wrong(why)
                })
            }
        }
    }

    fn value(&self, operand: &Operand) -> Result<Value<'a>, Fault> {
        match operand {
            Operand::Text(text) => Ok(Value::Bytes(text.clone().into_bytes().into())),
            Operand::Name(name) => Err(format!("{name} cannot be an argument").into()),
            Operand::Field(path) => self.field(path),
        }
    }

    fn field(&self, path: &[String]) -> Result<Value<'a>, Fault> {
        let service = &self.task.service_annotations;
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        let text = |text: &'a str| Ok(Value::Bytes(text.as_bytes().into()));
        let owned = |text: String| Ok(Value::Bytes(text.into_bytes().into()));
        match path.as_slice() {
            ["Service", "ID"] => text(&self.task.service_id),
            ["Service", "Name"] => text(service.as_ref().map_or("", |it| &it.name)),
            ["Service", "Labels"] => match service {
                Some(service) => Ok(Value::Map(&service.labels)),
                None => Ok(Value::Map(const { &BTreeMap::new() })),
            },
            ["Service", "Labels", key] => service
                .as_ref()
                .and_then(|service| service.labels.get(*key))
                .map(|value| Value::Bytes(value.as_bytes().into()))
                .ok_or_else(|| format!("the service has no label {key:?}").into()),
            ["Node", "ID"] => text(&self.node.id),
            ["Node", "Hostname"] => text(&self.node.hostname),
            ["Node", "Platform", "OS"] => text(&self.node.os),
            ["Node", "Platform", "Architecture"] => text(&self.node.architecture),
            ["Task", "ID"] => text(&self.task.id),
            ["Task", "Name"] => owned(self.task_name()),
            ["Task", "Slot"] => owned(self.slot()),
            _ => Err("there is no such field".into()),
        }
    }

    /// The number among its service's tasks, or the node for a task that is one of each node.
    fn slot(&self) -> String {
        if self.task.slot == 0 {
            self.node.id.clone()
        } else {
            self.task.slot.to_string()
        }
    }

    fn task_name(&self) -> String {
        let name = self.task.annotations.as_ref().map(|it| it.name.as_str());
        match name {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => {
                let service = self.task.service_annotations.as_ref();
                let service = service.map_or("", |it| it.name.as_str());
                format!("{service}.{}.{}", self.slot(), self.task.id)
            }
        }
    }

    /// A variable of the task's environment; empty if it has none of that name.
    fn variable(&self, name: &str) -> String {
        let Some(v1::task_spec::Runtime::Container(spec)) = &self.task.spec().runtime else {
            return String::new();
        };
        let mut variables = spec.env.iter().filter_map(|entry| entry.split_once('='));
        let found = variables.find(|(key, _)| *key == name);
        found.map_or_else(String::new, |(_, value)| value.to_owned())
    }
}

fn bytes(value: Value<'_>) -> Result<Cow<'_, [u8]>, Fault> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        Value::Map(_) => Err("name one of the labels: .Service.Labels.NAME".into()),
    }
}

#[cfg(test)]
mod tests;
