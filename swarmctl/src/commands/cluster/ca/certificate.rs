//! Subject and public key of a certificate, as the bytes that nodes report of their issuer.

use base64::{Engine as _, prelude::BASE64_STANDARD};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The tag of the version, which old certificates leave out.
const VERSION: u8 = 0xa0;

/// What a node reports of the issuer of its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Issuer {
    /// DER of the subject.
    pub subject: Vec<u8>,
    /// DER of the SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
}

impl Issuer {
    /// That of the first certificate in a PEM text.
    pub(super) fn of_pem(pem: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(pem).ok()?;
        let (_, rest) = text.split_once(BEGIN)?;
        let (body, _) = rest.split_once(END)?;
        let body: String = body.split_whitespace().collect();
        let der = BASE64_STANDARD.decode(body).ok()?;
        let (_, certificate, _) = element(&der)?;
        let (_, mut fields, _) = element(certificate)?;
        if fields.first() == Some(&VERSION) {
            fields = element(fields)?.2;
        }
        // Serial number, signature algorithm, issuer, validity.
        for _ in 0..4 {
            fields = element(fields)?.2;
        }
        let (subject, _, rest) = element(fields)?;
        let (public_key, _, _) = element(rest)?;
        Some(Self {
            subject: subject.to_vec(),
            public_key: public_key.to_vec(),
        })
    }
}

/// The first element of some DER: with its header, without it, and what follows.
fn element(der: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let first = usize::from(*der.get(1)?);
    let (header, length) = match first {
        0..=0x7f => (2, first),
        // Certificates are shorter than what three bytes count.
        0x81..=0x83 => {
            let bytes = der.get(2..2 + first - 0x80)?;
            let length = bytes
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            (2 + bytes.len(), length)
        }
        _ => return None,
    };
    let whole = der.get(..header.checked_add(length)?)?;
    Some((whole, &whole[header..], &der[whole.len()..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// SEQUENCE { SEQUENCE { version, serial, algorithm, issuer, validity, subject, key } }, each of
    /// the latter an element whose only byte says which.
    fn certificate(version: bool) -> Vec<u8> {
        let mut fields = match version {
            true => vec![VERSION, 1, 0],
            false => Vec::new(),
        };
        for field in 1..=6 {
            fields.extend([0x30, 1, field]);
        }
        let mut tbs = vec![0x30, 0x81, fields.len() as u8];
        tbs.extend(fields);
        let mut der = vec![0x30, 0x82, 0, tbs.len() as u8];
        der.extend(tbs);
        der
    }

    fn pem(der: &[u8]) -> String {
        format!("text\n{BEGIN}\n{}\n{END}\n", BASE64_STANDARD.encode(der))
    }

    #[test]
    fn subject_and_key_are_the_sixth_and_seventh_field() {
        for version in [true, false] {
            let issuer = Issuer::of_pem(pem(&certificate(version)).as_bytes()).unwrap();
            assert_eq!(issuer.subject, [0x30, 1, 5]);
            assert_eq!(issuer.public_key, [0x30, 1, 6]);
        }
        let whole = certificate(true);
        for length in 0..whole.len() {
            assert_eq!(Issuer::of_pem(pem(&whole[..length]).as_bytes()), None);
        }
        assert_eq!(Issuer::of_pem(b""), None);
    }

    proptest! {
        #[test]
        fn no_certificate_ends_the_program(der in any::<Vec<u8>>()) {
            let _ = Issuer::of_pem(pem(&der).as_bytes());
        }
    }
}
