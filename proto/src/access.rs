//! Access to fields that are never absent in meaning.
//!
//! SwarmKit always writes some message fields, even when they are empty, and readers treat absent
//! and empty alike (the note `nonnull` of the wire tables). The generated structs hold them as
//! `Option`s. The methods here hide that: `task.status()` is the stored status or an empty one, and
//! `task.status_mut()` puts an empty one in place first. For all other message fields absent and
//! empty differ, and there is no such method.

use std::sync::LazyLock;

use crate::v1::*;

macro_rules! never_absent {
    ($($message:ident { $($field:ident: $ty:ident / $field_mut:ident),* $(,)? },)*) => {$(
        impl $message {$(
            #[doc = concat!("The field `", stringify!($field), "`, or an empty `", stringify!($ty), "`.")]
            pub fn $field(&self) -> &$ty {
                static EMPTY: LazyLock<$ty> = LazyLock::new($ty::default);
                self.$field.as_ref().unwrap_or(&EMPTY)
            }

            #[doc = concat!("The field `", stringify!($field), "` to change, made if absent.")]
            pub fn $field_mut(&mut self) -> &mut $ty {
                self.$field.get_or_insert_default()
            }
        )*}
    )*};
}

never_absent! {
    RootCa { join_tokens: JoinTokens / join_tokens_mut },
    Certificate { status: IssuanceStatus / status_mut },
    JobStatus { job_iteration: Version / job_iteration_mut },
    NodeSpec { annotations: Annotations / annotations_mut },
    ServiceSpec { annotations: Annotations / annotations_mut, task: TaskSpec / task_mut },
    NetworkSpec { annotations: Annotations / annotations_mut },
    ClusterSpec { annotations: Annotations / annotations_mut, orchestration: OrchestrationConfig / orchestration_mut, raft: RaftConfig / raft_mut, dispatcher: DispatcherConfig / dispatcher_mut, ca_config: CaConfig / ca_config_mut, task_defaults: TaskDefaults / task_defaults_mut, encryption_config: EncryptionConfig / encryption_config_mut },
    SecretSpec { annotations: Annotations / annotations_mut },
    ConfigSpec { annotations: Annotations / annotations_mut },
    VolumeSpec { annotations: Annotations / annotations_mut },
    Meta { version: Version / version_mut },
    Node { meta: Meta / meta_mut, spec: NodeSpec / spec_mut, status: NodeStatus / status_mut, certificate: Certificate / certificate_mut },
    Service { meta: Meta / meta_mut, spec: ServiceSpec / spec_mut },
    Task { meta: Meta / meta_mut, annotations: Annotations / annotations_mut, service_annotations: Annotations / service_annotations_mut, status: TaskStatus / status_mut },
    Network { meta: Meta / meta_mut, spec: NetworkSpec / spec_mut },
    Cluster { meta: Meta / meta_mut, spec: ClusterSpec / spec_mut, root_ca: RootCa / root_ca_mut },
    Secret { meta: Meta / meta_mut, spec: SecretSpec / spec_mut },
    Config { meta: Meta / meta_mut, spec: ConfigSpec / spec_mut },
    Resource { meta: Meta / meta_mut, annotations: Annotations / annotations_mut },
    Extension { meta: Meta / meta_mut, annotations: Annotations / annotations_mut },
    Volume { meta: Meta / meta_mut, spec: VolumeSpec / spec_mut },
    UpdateClusterRequest { rotation: KeyRotation / rotation_mut },
    GetUnlockKeyResponse { version: Version / version_mut },
    RaftMember { status: RaftMemberStatus / status_mut },
    LogMessage { context: LogContext / context_mut },
    Snapshot { membership: ClusterSnapshot / membership_mut, store: StoreSnapshot / store_mut },
}

/// A task's spec is in a [`Shared`](crate::Shared).
impl Task {
    /// The field `spec`, or an empty `TaskSpec`.
    pub fn spec(&self) -> &TaskSpec {
        static EMPTY: LazyLock<TaskSpec> = LazyLock::new(TaskSpec::default);
        self.spec.as_deref().unwrap_or(&EMPTY)
    }

    /// The field `spec` to change, made if absent, and no longer shared with other tasks.
    pub fn spec_mut(&mut self) -> &mut TaskSpec {
        self.spec.get_or_insert_default().make_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_empty_read_alike() {
        let mut task = Task::default();
        assert_eq!(task.status(), &TaskStatus::default());
        assert!(task.status.is_none(), "reading changes nothing");
        task.status_mut().message = "created".to_owned();
        assert_eq!(task.status().message, "created");
    }
}
