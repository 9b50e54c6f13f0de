//! Assignments messages: whether one follows the other, and what one says.

use skep_proto::v1::{
    self, assignment::Item, assignment_change::AssignmentAction, assignments_message::Type,
};

use crate::error::Error;

/// The chain of messages of one session.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// Where the last message led, `None` before the first.
    last: Option<String>,
}

impl Chain {
    /// Checks that a message is the next one: the first is complete and applies to nothing, all
    /// others apply to the result of the one before.
    ///
    /// After an error messages were lost or mixed up, and only a new session starts afresh.
    pub(crate) fn follow(&mut self, message: &v1::AssignmentsMessage) -> Result<(), Error> {
        let follows = match &self.last {
            None => message.r#type() == Type::Complete && message.applies_to.is_empty(),
            Some(last) => message.applies_to == *last,
        };
        if !follows {
            return Err(Error::Chain {
                applies_to: message.applies_to.clone(),
                expected: self.last.clone().unwrap_or_default(),
            });
        }
        self.last = Some(message.results_in.clone());
        Ok(())
    }
}

/// What a message changes, in the order to apply it: what tasks depend on comes first.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Everything not listed is gone.
    pub(crate) complete: bool,
    pub(crate) secrets: Vec<Change<v1::Secret>>,
    pub(crate) configs: Vec<Change<v1::Config>>,
    pub(crate) tasks: Vec<Change<v1::Task>>,
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change<T> {
    Put(T),
    Remove(T),
}

impl From<v1::AssignmentsMessage> for Changes {
    fn from(message: v1::AssignmentsMessage) -> Self {
        let mut changes = Self {
            complete: message.r#type() == Type::Complete,
            ..Default::default()
        };
        for change in message.changes {
            let remove = change.action() == AssignmentAction::Remove;
            match change.assignment.and_then(|assignment| assignment.item) {
                Some(Item::Task(task)) => changes.tasks.push(Change::new(task, remove)),
                Some(Item::Secret(secret)) => changes.secrets.push(Change::new(secret, remove)),
                Some(Item::Config(config)) => changes.configs.push(Change::new(config, remove)),
                Some(Item::Volume(volume)) => {
                    tracing::debug!(volume_id = volume.id, "no executor here uses volumes");
                }
                None => {}
            }
        }
        changes
    }
}

impl<T> Change<T> {
    fn new(item: T, remove: bool) -> Self {
        if remove {
            Self::Remove(item)
        } else {
            Self::Put(item)
        }
    }

    /// What is put, `None` for a removal.
    pub(crate) fn into_put(self) -> Option<T> {
        match self {
            Self::Put(item) => Some(item),
            Self::Remove(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: Type, applies_to: &str, results_in: &str) -> v1::AssignmentsMessage {
        v1::AssignmentsMessage {
            r#type: kind as i32,
            applies_to: applies_to.to_owned(),
            results_in: results_in.to_owned(),
            changes: Vec::new(),
        }
    }

    #[test]
    fn an_unbroken_chain_is_followed() {
        let mut chain = Chain::default();
        chain.follow(&message(Type::Complete, "", "1")).unwrap();
        chain.follow(&message(Type::Incremental, "1", "2")).unwrap();
        chain.follow(&message(Type::Incremental, "2", "3")).unwrap();
        assert!(
            chain.follow(&message(Type::Incremental, "2", "4")).is_err(),
            "repeated"
        );
        assert!(
            chain.follow(&message(Type::Incremental, "5", "6")).is_err(),
            "lost"
        );
        assert!(
            chain.follow(&message(Type::Complete, "", "1")).is_err(),
            "a second complete one"
        );
    }

    #[test]
    fn the_first_message_is_complete() {
        assert!(
            Chain::default()
                .follow(&message(Type::Incremental, "", "1"))
                .is_err()
        );
        assert!(
            Chain::default()
                .follow(&message(Type::Complete, "1", "2"))
                .is_err()
        );
    }

    #[test]
    fn changes_are_sorted_by_kind() {
        let change = |item, action: AssignmentAction| v1::AssignmentChange {
            assignment: Some(v1::Assignment { item: Some(item) }),
            action: action as i32,
        };
        let task = v1::Task {
            id: "t".to_owned(),
            ..Default::default()
        };
        let secret = v1::Secret {
            id: "s".to_owned(),
            ..Default::default()
        };
        let mut complete = message(Type::Complete, "", "1");
        complete.changes = vec![
            change(Item::Task(task.clone()), AssignmentAction::Update),
            v1::AssignmentChange::default(),
            change(
                Item::Volume(v1::VolumeAssignment::default()),
                AssignmentAction::Update,
            ),
            change(Item::Secret(secret.clone()), AssignmentAction::Remove),
        ];
        let changes = Changes::from(complete);
        assert!(changes.complete && changes.configs.is_empty());
        assert_eq!(changes.tasks, [Change::Put(task)]);
        assert_eq!(changes.secrets, [Change::Remove(secret)]);
    }
}
