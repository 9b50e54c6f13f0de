//! `swarmctl cluster ca`.

mod certificate;
mod external;
mod progress;
mod wait;

use std::{fs, path::PathBuf};

use clap::{Args, builder::NonEmptyStringValueParser};
use skep_proto::{
    Duration as WireDuration,
    v1::{Cluster, ClusterSpec, KeyRotation},
};

use super::change;
use crate::{Error, commands::Context, lookup, output::Format, spec::values};
use external::External;

/// Largest file with a certificate or key that is read, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Shows the root CA certificate of the cluster, or replaces it.
///
/// With --rotate all nodes get certificates of a new root, a few at a time, and the old one is
/// forgotten when the last has its own. Nodes that are down count too: start or remove them.
/// Join tokens are new afterwards.
#[derive(Debug, Args)]
pub(crate) struct Ca {
    /// Replace the root CA: by the one of --ca-cert, otherwise by a new one
    #[arg(long)]
    rotate: bool,
    /// PEM file with the root certificate to change to
    #[arg(long, value_name = "FILE", requires = "rotate")]
    ca_cert: Option<PathBuf>,
    /// PEM file with its key. Without it an external CA must sign for it
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    ca_key: Option<PathBuf>,
    /// An external CA that signs certificates of nodes, as
    /// protocol=cfssl,url=https://HOST/PATH[,cacert=FILE]; again for more. They take the place of
    /// those that there are
    #[arg(long, value_name = "CA", value_parser = external::parse)]
    external_ca: Vec<External>,
    /// How long certificates of nodes are valid, such as 720h
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    cert_expiry: Option<std::time::Duration>,
    /// Do not wait for the end of the rotation
    #[arg(short, long, requires = "rotate")]
    detach: bool,
    /// Do not show progress
    #[arg(short, long, requires = "rotate")]
    quiet: bool,
    /// ID, name or unique ID prefix of the cluster
    #[arg(
        value_name = "CLUSTER",
        default_value = "default",
        value_parser = NonEmptyStringValueParser::new()
    )]
    cluster: String,
}

impl Ca {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let edit = self.edit()?;
        let client = context.connect().await?;
        let mut cluster = lookup::cluster(&client, &self.cluster).await?;
        if self.changes() {
            cluster = change(&client, cluster, KeyRotation::default(), edit).await?;
        }
        if self.rotate && !self.detach {
            cluster = wait::wait(context, &client, cluster, self.quiet).await?;
        }
        match self.detach {
            true => Ok(()),
            false => print(context, &cluster),
        }
    }

    fn changes(&self) -> bool {
        self.rotate || self.cert_expiry.is_some() || !self.external_ca.is_empty()
    }

    /// What is done to the spec. Files are read before anything is asked of the cluster.
    fn edit(&self) -> Result<impl Fn(&mut ClusterSpec) + use<>, Error> {
        let cert = self.ca_cert.as_ref().map(read).transpose()?;
        let key = self.ca_key.as_ref().map(read).transpose()?;
        let mut external = Vec::new();
        for ca in &self.external_ca {
            external.push(ca.to_wire()?);
        }
        let expiry = match self.cert_expiry {
            None => None,
            Some(expiry) => Some(WireDuration::try_from(expiry).map_err(|_| {
                Error::Usage("--cert-expiry is longer than a certificate can last".to_owned())
            })?),
        };
        let rotate = self.rotate;
        Ok(move |spec: &mut ClusterSpec| {
            let config = spec.ca_config_mut();
            if expiry.is_some() {
                config.node_cert_expiry = expiry;
            }
            if !external.is_empty() {
                config.external_cas.clone_from(&external);
            }
            match &cert {
                Some(cert) => {
                    config.signing_ca_cert = cert.clone().into();
                    config.signing_ca_key = key.clone().unwrap_or_default().into();
                }
                None if rotate => config.force_rotate = config.force_rotate.wrapping_add(1),
                None => {}
            }
        })
    }
}

/// Shows the root that nodes trust.
fn print(context: &mut Context<'_>, cluster: &Cluster) -> Result<(), Error> {
    let root = cluster.root_ca();
    let pem = std::str::from_utf8(&root.ca_cert)
        .map_err(|_| Error::Answer("a root certificate that is no PEM".to_owned()))?;
    match context.format {
        Format::Json => {
            let object = serde_json::json!({
                "caCert": pem,
                "caCertHash": root.ca_cert_hash,
                "rotating": root.root_rotation.is_some(),
            });
            Ok(writeln!(context.io.out, "{object:#}")?)
        }
        Format::Table => Ok(write!(context.io.out, "{pem}")?),
    }
}

/// The PEM in a file.
fn read(path: &PathBuf) -> Result<Vec<u8>, Error> {
    let unusable = |reason: String| Error::Usage(format!("{}: {reason}", path.display()));
    let size = fs::metadata(path)
        .map_err(|err| unusable(err.to_string()))?
        .len();
    if size > MAX_FILE_BYTES {
        return Err(unusable("larger than 64 KiB: not a PEM file".to_owned()));
    }
    fs::read(path).map_err(|err| unusable(err.to_string()))
}
