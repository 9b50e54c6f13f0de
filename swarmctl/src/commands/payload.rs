//! What the commands for secrets and for configs have in common, which is nearly all.

mod create;
mod inspect;
mod ls;
mod rm;
mod update;

pub(crate) use create::{Data, NewPayload, named, print};
pub(crate) use inspect::Inspect;
pub(crate) use ls::Ls;
pub(crate) use rm::Rm;
pub(crate) use update::Update;

use skep_proto::v1::{Annotations, Driver, Meta};

use crate::{Error, client::Client, output::Described};

/// A secret or a config.
pub(crate) trait Payload: Described + Sized {
    /// `secret` or `config`.
    const KIND: &'static str;

    fn id(&self) -> &str;
    fn meta(&self) -> Meta;
    fn annotations(&self) -> Annotations;
    /// The plugin that has the data.
    fn driver(&self) -> Option<&Driver>;
    /// What expands the data on the nodes.
    fn templating(&self) -> Option<&Driver>;
    /// The data, where it may be seen.
    fn data(&self) -> &[u8];

    /// The one that `wanted` means.
    async fn find(client: &Client, wanted: &str) -> Result<Self, Error>;
    /// The one with this ID, as it is now.
    async fn get(client: &Client, id: String) -> Result<Self, Error>;
    async fn list(client: &Client) -> Result<Vec<Self>, Error>;
    /// Replaces the annotations of the one that was read as `self`.
    async fn update(self, client: &Client, annotations: Annotations) -> Result<Self, Error>;
    async fn remove(client: &Client, id: String) -> Result<(), Error>;
}

/// Implements [`Payload`] for one of the two, whose messages differ in names only.
macro_rules! payload {
    ($object:ident, $kind:ident, $version:ident, $id:ident, |$this:ident| $driver:expr, $many:ident,
     $get:ident($get_request:ident), $list:ident($list_request:ident),
     $update:ident($update_request:ident), $remove:ident($remove_request:ident)) => {
        impl crate::commands::payload::Payload for $object {
            const KIND: &'static str = stringify!($kind);

            fn id(&self) -> &str {
                &self.id
            }

            fn meta(&self) -> skep_proto::v1::Meta {
                *$object::meta(self)
            }

            fn annotations(&self) -> skep_proto::v1::Annotations {
                self.spec().annotations().clone()
            }

            fn driver(&self) -> Option<&skep_proto::v1::Driver> {
                let $this = self;
                $driver
            }

            fn templating(&self) -> Option<&skep_proto::v1::Driver> {
                self.spec().templating.as_ref()
            }

            fn data(&self) -> &[u8] {
                &self.spec().data
            }

            async fn find(client: &Client, wanted: &str) -> Result<Self, Error> {
                crate::lookup::$kind(client, wanted).await
            }

            async fn get(client: &Client, $id: String) -> Result<Self, Error> {
                let reply = client.control().$get($get_request { $id }).await?;
                $crate::commands::payload::present(Self::KIND, reply.into_inner().$kind)
            }

            async fn list(client: &Client) -> Result<Vec<Self>, Error> {
                let reply = client.control().$list($list_request::default()).await?;
                Ok(reply.into_inner().$many)
            }

            async fn update(
                self,
                client: &Client,
                annotations: skep_proto::v1::Annotations,
            ) -> Result<Self, Error> {
                let version = self.meta().version;
                let mut spec = self.spec.unwrap_or_default();
                spec.annotations = Some(annotations);
                let request = $update_request {
                    $id: self.id,
                    $version: version,
                    spec: Some(spec),
                };
                let reply = client.control().$update(request).await?;
                $crate::commands::payload::present(Self::KIND, reply.into_inner().$kind)
            }

            async fn remove(client: &Client, $id: String) -> Result<(), Error> {
                client.control().$remove($remove_request { $id }).await?;
                Ok(())
            }
        }
    };
}
pub(crate) use payload;

/// Makes the verbs of one of the two, which differ in words and in what can be created.
macro_rules! verbs {
    ($command:ident of $object:ident { $create:literal: $new:ty, $inspect:literal, $ls:literal,
     $rm:literal, $update:literal }) => {
        #[doc = concat!("The verbs of `", stringify!($object), "`.")]
        #[derive(Debug, clap::Subcommand)]
        pub(crate) enum $command {
            #[doc = $create]
            Create($new),
            #[doc = $inspect]
            Inspect(crate::commands::payload::Inspect),
            #[doc = $ls]
            #[command(visible_alias = "list")]
            Ls(crate::commands::payload::Ls),
            #[doc = $rm]
            #[command(visible_alias = "remove")]
            Rm(crate::commands::payload::Rm),
            #[doc = $update]
            Update(crate::commands::payload::Update),
        }

        impl $command {
            pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
                match self {
                    Self::Create(command) => create(command, context).await,
                    Self::Inspect(command) => command.run::<$object>(context).await,
                    Self::Ls(command) => command.run::<$object>(context).await,
                    Self::Rm(command) => command.run::<$object>(context).await,
                    Self::Update(command) => command.run::<$object>(context).await,
                }
            }
        }
    };
}
pub(crate) use verbs;

/// The object of an answer that must have one.
pub(crate) fn present<T>(kind: &str, object: Option<T>) -> Result<T, Error> {
    object.ok_or_else(|| Error::Answer(format!("no {kind}")))
}
