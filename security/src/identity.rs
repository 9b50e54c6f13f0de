//! Who a certificate speaks for.

use x509_parser::{der_parser::asn1_rs::Oid, prelude::*};

use crate::{Error, Role};

/// A node as its certificate names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The common name.
    pub node_id: String,
    /// The first organisational unit.
    pub role: Role,
    /// The first organisation.
    pub cluster_id: String,
}

impl Identity {
    /// Reads the subject of a DER certificate. It checks no signature: that is the handshake's work.
    ///
    /// # Errors
    /// When it is no certificate, or its subject lacks O, OU or CN, or OU is no role.
    pub fn from_der(cert: &[u8]) -> Result<Self, Error> {
        Subject::from_der(cert)?.identity()
    }
}

/// The parts of a subject that matter here, with every value.
#[derive(Debug, Default)]
pub(crate) struct Subject {
    pub organizations: Vec<String>,
    pub units: Vec<String>,
    pub common_name: String,
}

impl Subject {
    pub(crate) fn from_der(cert: &[u8]) -> Result<Self, Error> {
        let (_, cert) = X509Certificate::from_der(cert)
            .map_err(|error| Error::unusable("certificate", error))?;
        Ok(Self::of(cert.subject()))
    }

    pub(crate) fn of(name: &X509Name<'_>) -> Self {
        let values = |oid: &Oid<'_>| -> Vec<String> {
            name.iter_by_oid(oid)
                .filter_map(|attribute| attribute.as_str().ok())
                .filter(|value| !value.is_empty())
                .map(str::to_owned)
                .collect()
        };
        Self {
            organizations: values(&oid_registry::OID_X509_ORGANIZATION_NAME),
            units: values(&oid_registry::OID_X509_ORGANIZATIONAL_UNIT),
            common_name: values(&oid_registry::OID_X509_COMMON_NAME)
                .pop()
                .unwrap_or_default(),
        }
    }

    pub(crate) fn identity(&self) -> Result<Identity, Error> {
        let missing = |part| Error::unusable("certificate", format!("its subject has no {part}"));
        let cluster_id = self
            .organizations
            .first()
            .ok_or_else(|| missing("organisation"))?;
        let unit = self
            .units
            .first()
            .ok_or_else(|| missing("organisational unit"))?;
        if self.common_name.is_empty() {
            return Err(missing("common name"));
        }
        let role = Role::from_ou(unit).ok_or_else(|| {
            Error::unusable(
                "certificate",
                format!("its organisational unit {unit:?} is no role"),
            )
        })?;
        Ok(Identity {
            node_id: self.common_name.clone(),
            role,
            cluster_id: cluster_id.clone(),
        })
    }
}
