//! Image references: `[domain[:port]/]path[:tag][@digest]`, in the short forms that users of Docker
//! write.

/// Longest path, in bytes.
const MAX_PATH: usize = 255;

/// Longest tag, in bytes.
const MAX_TAG: usize = 128;

/// Length of an image ID in hex digits; it is no name.
const ID_LEN: usize = 64;

/// Whether `text` is the reference of an image.
pub fn is_reference(text: &str) -> bool {
    if text.len() == ID_LEN && text.bytes().all(is_lower_hex) {
        return false;
    }
    let (domain, rest) = split_domain(text);
    // Names are written in lower case, and what looks like the start of one is taken for it.
    let start = rest.split(':').next().unwrap_or_default();
    if start.chars().any(char::is_uppercase) {
        return false;
    }
    let (name, digest) = match rest.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (rest, None),
    };
    let (path, tag) = match name.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (name, None),
    };
    domain.is_none_or(is_domain)
        && path.len() <= MAX_PATH
        && path.split('/').all(is_path_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
}

/// The first part is a domain if it cannot be the start of a path.
fn split_domain(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.chars().any(char::is_uppercase) =>
        {
            (Some(first), rest)
        }
        _ => (None, text),
    }
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                let digits = |b: u8| b.is_ascii_hexdigit() || b == b':';
                if address.is_empty() || !address.bytes().all(digits) {
                    return false;
                }
                match port.strip_prefix(':') {
                    Some(port) => (None, Some(port)),
                    None if port.is_empty() => (None, None),
                    None => return false,
                }
            }
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    host.is_none_or(|host| host.split('.').all(is_domain_component))
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

fn is_domain_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// Lower-case letters and digits, separated by `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut separators = text.split(alphanumeric).filter(|s| !s.is_empty());
    text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && separators.all(|separator| {
            matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else {
        return false;
    };
    let len = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == len && hex.bytes().all(is_lower_hex)
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references() {
        let hex = "0123456789abcdef".repeat(4);
        let good = [
            "nginx".to_owned(),
            "nginx:1.27".to_owned(),
            "nginx:_A.b-c".to_owned(),
            "library/nginx".to_owned(),
            "a/b/c/d".to_owned(),
            "a.b/c".to_owned(),
            "localhost/a".to_owned(),
            "localhost:5000/a:b".to_owned(),
            "Host/a".to_owned(),
            "registry.example.com:443/a-b__c.d/e_f---g:t".to_owned(),
            "[2001:db8::1]/a".to_owned(),
            "[2001:db8::1]:5000/a".to_owned(),
            format!("nginx@sha256:{hex}"),
            format!("nginx:1@sha256:{hex}"),
            format!("r.io/nginx@sha512:{hex}{hex}"),
            format!("{hex}:1"),
            "a".repeat(255),
            format!("a:{}", "t".repeat(128)),
        ];
        for text in good {
            assert!(is_reference(&text), "{text}");
        }
        let bad = [
            String::new(),
            " ".to_owned(),
            "Nginx".to_owned(),
            "nginx:".to_owned(),
            "nginx:-a".to_owned(),
            "nginx:a:b".to_owned(),
            "nginx:é".to_owned(),
            "-nginx".to_owned(),
            "nginx-".to_owned(),
            "a..b".to_owned(),
            "a___b".to_owned(),
            "a._b".to_owned(),
            "a//b".to_owned(),
            "/a".to_owned(),
            "a/".to_owned(),
            "localhost/A".to_owned(),
            "-a.b/c".to_owned(),
            "a.b:/c".to_owned(),
            "a.b:x/c".to_owned(),
            "[::1/c".to_owned(),
            "[]:1/c".to_owned(),
            "[::1]x:/c".to_owned(),
            hex.clone(),
            "nginx@".to_owned(),
            "nginx@sha256".to_owned(),
            format!("nginx@sha256:{}", &hex[1..]),
            format!("nginx@sha256:{}", hex.to_uppercase()),
            format!("nginx@md5:{hex}"),
            "a".repeat(256),
            format!("a:{}", "t".repeat(129)),
            "a b".to_owned(),
            "http://a/b".to_owned(),
        ];
        for text in bad {
            assert!(!is_reference(&text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = is_reference(&text);
        }

        #[test]
        fn what_the_grammar_makes_is_valid(
            text in "([a-z]{1,5}\\.[a-z]{2,3}(:[0-9]{1,5})?/)?[a-z0-9]{1,9}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,3}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})?"
        ) {
            prop_assert!(is_reference(&text));
        }
    }
}
