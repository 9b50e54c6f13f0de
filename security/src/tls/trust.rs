//! Roots that a node trusts besides its own, and the TLS configurations that follow from them.

use std::sync::Arc;

use bytes::Bytes;
use rustls::{ClientConfig, ServerConfig, pki_types::CertificateDer};

use crate::{Credentials, Error, RootCa, crypto::certificates};

type Configs = (Arc<ServerConfig>, Arc<ClientConfig>);

/// More roots. Configurations are made when they are first asked for after a change.
#[derive(Default)]
pub(super) struct Trust {
    roots: Vec<CertificateDer<'static>>,
    made: Option<(Arc<Credentials>, Configs)>,
}

/// The certificates of root bundles.
pub(super) fn roots(pem: &[Bytes]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let mut roots = Vec::new();
    for pem in pem {
        RootCa::from_pem(pem, None)?;
        roots.extend(certificates("root certificate", pem)?);
    }
    Ok(roots)
}

impl Trust {
    pub(super) fn new(roots: Vec<CertificateDer<'static>>) -> Self {
        Self { roots, made: None }
    }

    /// The configurations of a node with these credentials.
    pub(super) fn configs(&mut self, credentials: &Arc<Credentials>) -> Configs {
        let own = || {
            (
                credentials.server_config().clone(),
                credentials.client_config().clone(),
            )
        };
        if self.roots.is_empty() {
            return own();
        }
        if let Some((made_for, configs)) = &self.made
            && Arc::ptr_eq(made_for, credentials)
        {
            return configs.clone();
        }
        let configs = credentials.trusting(&self.roots).unwrap_or_else(|error| {
            tracing::error!(%error, "other roots than the own one cannot be trusted");
            own()
        });
        self.made = Some((credentials.clone(), configs.clone()));
        configs
    }
}
