//! User-defined resources as the command line names them: `gpu=GPU-1,GPU-2` or `ssd=3`.

use std::collections::BTreeMap;

use skep_proto::v1::{
    DiscreteGenericResource, GenericResource, NamedGenericResource, generic_resource::Resource,
};

/// The resources that `texts` name, always in the same order; an error says what is wrong.
pub(crate) fn parse(texts: &[String]) -> Result<Vec<GenericResource>, String> {
    let mut kinds: BTreeMap<&str, Vec<GenericResource>> = BTreeMap::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let (kind, value) = text
            .split_once('=')
            .filter(|(kind, value)| !kind.is_empty() && !value.is_empty())
            .ok_or_else(|| {
                format!("generic resource {text:?} is not of the form KIND=NAMES or KIND=AMOUNT")
            })?;
        let resources = match value.parse::<i64>() {
            Ok(amount) if amount < 0 => {
                return Err(format!("generic resource {text:?}: the amount is negative"));
            }
            Ok(amount) => vec![discrete(kind, amount)],
            Err(_) => value.split(',').map(|name| named(kind, name)).collect(),
        };
        let mut names: Vec<_> = value.split(',').collect();
        names.sort_unstable();
        if names[0].is_empty() || names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(format!(
                "generic resource {text:?}: a name is empty or twice there"
            ));
        }
        if kinds.insert(kind, resources).is_some() {
            return Err(format!(
                "generic resource {kind:?} is given twice; name all of a kind at once"
            ));
        }
    }
    Ok(kinds.into_values().flatten().collect())
}

fn named(kind: &str, name: &str) -> GenericResource {
    GenericResource {
        resource: Some(Resource::NamedResourceSpec(NamedGenericResource {
            kind: kind.to_owned(),
            value: name.to_owned(),
        })),
    }
}

fn discrete(kind: &str, amount: i64) -> GenericResource {
    GenericResource {
        resource: Some(Resource::DiscreteResourceSpec(DiscreteGenericResource {
            kind: kind.to_owned(),
            value: amount,
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Result<Vec<GenericResource>, String> {
        let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
        parse(&texts)
    }

    #[test]
    fn names_and_amounts() {
        assert_eq!(
            of(&["ssd=3", "gpu=a,b", ""]),
            Ok(vec![
                named("gpu", "a"),
                named("gpu", "b"),
                discrete("ssd", 3)
            ])
        );
        for text in ["", "gpu", "=a", "gpu=", "gpu=a,,b", "gpu=a,a", "gpu=-1"] {
            assert_eq!(of(&[text]).is_err(), !text.is_empty(), "{text}");
        }
        assert!(of(&["gpu=a", "gpu=b"]).is_err());
    }
}
