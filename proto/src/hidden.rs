//! What `Debug` shows of messages that carry secrets: everything but those.
//!
//! Messages end up in logs, errors and failed assertions, also deep inside of others. `build.rs`
//! names the same messages to the generator, which then leaves their `Debug` to this list; the
//! compiler refuses a message or a field that is in one of both only.

use std::fmt;

use crate::{
    skep::{RaftMessage, UnlockRequest},
    v1::{
        CaConfig, EncryptionKey, GetUnlockKeyResponse, IssueNodeCertificateRequest, JoinTokens,
        MaybeEncryptedRecord, ProcessRaftMessageRequest, RootCa, RootRotation, SecretSpec,
        StreamRaftMessageRequest, acceptance_policy::role_admission_policy::Secret,
        container_spec::PullOptions,
    },
};

struct Hidden;

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

/// A line a message: the fields that are shown, and after the bar those that are not.
macro_rules! hide {
    ($($message:ident { $($shown:ident)* | $($hidden:ident)+ })+) => {$(
        #[allow(deprecated)]
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self { $($shown,)* $($hidden: _,)+ } = self;
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($shown), $shown))*
                    $(.field(stringify!($hidden), &Hidden))+
                    .finish()
            }
        }
    )+};
}

hide! {
    CaConfig { node_cert_expiry external_cas signing_ca_cert force_rotate | signing_ca_key }
    EncryptionKey { subsystem algorithm lamport_time | key }
    GetUnlockKeyResponse { version | unlock_key }
    IssueNodeCertificateRequest { role csr availability | token }
    JoinTokens { | worker manager }
    MaybeEncryptedRecord { algorithm nonce | data }
    ProcessRaftMessageRequest { | message }
    PullOptions { | registry_auth }
    RaftMessage { | message }
    RootCa { ca_cert ca_cert_hash join_tokens root_rotation last_forced_rotation | ca_key }
    RootRotation { ca_cert cross_signed_ca_cert | ca_key }
    Secret { alg | data }
    SecretSpec { annotations templating driver | data }
    StreamRaftMessageRequest { | message }
    UnlockRequest { | unlock_key }
}
