//! Generic resources as the environment tells them: `DOCKER_RESOURCE_<KIND>`.

use std::collections::BTreeMap;

use skep_proto::v1::{GenericResource, generic_resource::Resource};

/// The variables for what was assigned to a task: the names of a kind with commas between them, or
/// the amount.
pub(super) fn variables(assigned: &[GenericResource]) -> BTreeMap<String, String> {
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for resource in assigned {
        let (kind, value) = match &resource.resource {
            Some(Resource::NamedResourceSpec(named)) => (&named.kind, named.value.clone()),
            Some(Resource::DiscreteResourceSpec(amount)) => {
                (&amount.kind, amount.value.to_string())
            }
            None => continue,
        };
        let name = format!("DOCKER_RESOURCE_{}", kind.to_uppercase());
        variables
            .entry(name)
            .and_modify(|values| {
                values.push(',');
                values.push_str(&value);
            })
            .or_insert(value);
    }
    variables
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::{DiscreteGenericResource, NamedGenericResource};

    use super::*;

    #[test]
    fn names_are_listed_and_amounts_told() {
        let named = |value: &str| GenericResource {
            resource: Some(Resource::NamedResourceSpec(NamedGenericResource {
                kind: "gpu".to_owned(),
                value: value.to_owned(),
            })),
        };
        let amount = GenericResource {
            resource: Some(Resource::DiscreteResourceSpec(DiscreteGenericResource {
                kind: "SSD".to_owned(),
                value: 3,
            })),
        };
        let variables = variables(&[named("a"), amount, named("b"), GenericResource::default()]);
        assert_eq!(
            variables.into_iter().collect::<Vec<_>>(),
            [
                ("DOCKER_RESOURCE_GPU".to_owned(), "a,b".to_owned()),
                ("DOCKER_RESOURCE_SSD".to_owned(), "3".to_owned())
            ]
        );
    }
}
