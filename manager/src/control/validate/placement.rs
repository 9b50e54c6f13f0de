//! Placements.

use skep_proto::v1::Placement;

use crate::{control::ApiError, reconcilers::constraint};

pub fn check(placement: Option<&Placement>) -> Result<(), ApiError> {
    let Some(placement) = placement else {
        return Ok(());
    };
    constraint::parse(&placement.constraints)
        .map(drop)
        .map_err(|err| ApiError::Plain(err.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::text;

    #[test]
    fn constraints() {
        let check_one = |constraints: &[&str], expected: &str| {
            let placement = Placement {
                constraints: constraints.iter().map(|&c| c.to_owned()).collect(),
                ..Default::default()
            };
            assert_eq!(text(check(Some(&placement))), expected);
        };
        assert_eq!(text(check(None)), "");
        check_one(&[], "");
        check_one(&["node.role==manager", "node.labels.zone != a"], "");
        check_one(
            &["node.role"],
            "constraint expected one operator from ==, !=",
        );
        check_one(&["node role==manager"], "key 'node role' is invalid");
        check_one(&["node.role=={}"], "value '{}' is invalid");
    }
}
