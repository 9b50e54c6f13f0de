//! How a task names its image, and what follows from that.

/// An image's reference, taken apart as the engine's API wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Reference {
    /// As the task has it.
    pub(in super::super) text: String,
    /// Without tag and digest.
    pub(in super::super) name: String,
    /// The digest, else the tag, else `latest`: with none of them the engine pulls all tags.
    pub(in super::super) tag: String,
    pub(in super::super) kind: Kind,
}

/// What the reference says about the image's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Kind {
    /// The ID of an image, which only this engine knows: it can be had or not, but not be pulled.
    Id,
    /// It means the same content for ever: what is there need not be pulled.
    Digest,
    /// It may mean something else by now.
    Tag,
}

impl Reference {
    pub(super) fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the task names no image".to_owned());
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before a slash is that of a registry's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (rest, "latest"),
        };
        let kind = match digest {
            Some(_) => Kind::Digest,
            None if name == "sha256" && is_digest(tag) => Kind::Id,
            None => Kind::Tag,
        };
        Ok(Self {
            text: text.to_owned(),
            name: name.to_owned(),
            tag: digest.unwrap_or(tag).to_owned(),
            kind,
        })
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, Kind) {
        let reference = Reference::new(text).unwrap();
        (reference.name, reference.tag, reference.kind)
    }

    #[test]
    fn tags_digests_and_ids_are_told_apart() {
        let hex = "0".repeat(64);
        for (text, name, tag, kind) in [
            ("nginx", "nginx", "latest", Kind::Tag),
            ("nginx:1.27", "nginx", "1.27", Kind::Tag),
            ("host:5000/a/b", "host:5000/a/b", "latest", Kind::Tag),
            ("host:5000/a/b:2", "host:5000/a/b", "2", Kind::Tag),
            ("a:1@sha256:abc", "a", "sha256:abc", Kind::Digest),
            ("h:1/a@sha256:abc", "h:1/a", "sha256:abc", Kind::Digest),
            ("sha256:short", "sha256", "short", Kind::Tag),
        ] {
            assert_eq!(parts(text), (name.into(), tag.into(), kind), "{text}");
        }
        assert_eq!(parts(&format!("sha256:{hex}")).2, Kind::Id);
        assert!(Reference::new("").is_err());
    }
}
