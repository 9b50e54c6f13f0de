//! External CAs as they are written on the command line: `protocol=cfssl,url=https://…`.

use std::{collections::BTreeMap, path::PathBuf};

use skep_proto::v1::{ExternalCa, external_ca::CaProtocol};

use crate::Error;

/// An external CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct External {
    url: String,
    /// Of the root that it signs for; without it the present one.
    cert: Option<PathBuf>,
    options: BTreeMap<String, String>,
}

/// Reads `KEY=VALUE,…`. Keys that are not known here are handed to the protocol.
pub(super) fn parse(text: &str) -> Result<External, String> {
    const FORM: &str = "expected protocol=cfssl,url=https://HOST/PATH[,cacert=FILE]";
    let (mut url, mut cert, mut protocol) = (None, None, None);
    let mut options = BTreeMap::new();
    for part in text.split(',') {
        let (key, value) = part.split_once('=').ok_or(FORM)?;
        match key.to_lowercase().as_str() {
            "protocol" => protocol = Some(value.to_lowercase()),
            "url" => url = Some(value.to_owned()),
            "cacert" => cert = Some(PathBuf::from(value)),
            _ => {
                options.insert(key.to_owned(), value.to_owned());
            }
        }
    }
    match protocol.as_deref() {
        Some("cfssl") => {}
        Some(other) => return Err(format!("unknown protocol {other}: only cfssl is known")),
        None => return Err(format!("the protocol is missing: {FORM}")),
    }
    let url = url.ok_or_else(|| format!("the URL is missing: {FORM}"))?;
    if !url.starts_with("https://") {
        return Err(format!("{url} is no https:// URL"));
    }
    Ok(External { url, cert, options })
}

impl External {
    pub(super) fn to_wire(&self) -> Result<ExternalCa, Error> {
        let cert = self.cert.as_ref().map(super::read).transpose()?;
        Ok(ExternalCa {
            protocol: CaProtocol::Cfssl.into(),
            url: self.url.clone(),
            options: self.options.clone().into_iter().collect(),
            ca_cert: cert.unwrap_or_default().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_docker() {
        let ca = parse("protocol=CFSSL,url=https://ca:8888/api/v1/cfssl/sign,Label=x").unwrap();
        assert_eq!(ca.url, "https://ca:8888/api/v1/cfssl/sign");
        assert_eq!((ca.cert, ca.options["Label"].as_str()), (None, "x"));
        let ca = parse("url=https://ca,cacert=/root.pem,protocol=cfssl").unwrap();
        assert_eq!(ca.cert, Some(PathBuf::from("/root.pem")));
        for (bad, text) in [
            ("", "expected protocol="),
            ("https://ca", "expected protocol="),
            ("url=https://ca", "the protocol is missing"),
            ("protocol=vault,url=https://ca", "unknown protocol vault"),
            ("protocol=cfssl", "the URL is missing"),
            (
                "protocol=cfssl,url=http://ca",
                "http://ca is no https:// URL",
            ),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains(text), "{bad}: {error}");
        }
    }
}
