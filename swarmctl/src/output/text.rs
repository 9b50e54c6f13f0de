//! Small transformations of text for cells of tables.

use std::cmp::Ordering;

/// How much of an ID is shown where the whole is too wide. Docker shows as much.
const SHORT_ID: usize = 12;

/// The first characters of `id`, enough to be unambiguous in practice and accepted as a prefix.
pub(crate) fn short_id(id: &str) -> &str {
    id.char_indices()
        .nth(SHORT_ID)
        .map_or(id, |(end, _)| &id[..end])
}

/// `text` without control characters: what a node or a task says about itself must neither break
/// a table nor command the terminal.
pub(crate) fn one_line(text: &str) -> String {
    text.trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// `READY_NOW` as `Ready now`.
pub(crate) fn title(constant: &str) -> String {
    let mut chars = constant.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    let rest = chars.map(|c| {
        if c == '_' {
            ' '
        } else {
            c.to_ascii_lowercase()
        }
    });
    first.into_iter().chain(rest).collect()
}

/// The name of an enum value as shown, or its number if this version does not know it.
pub(crate) fn enum_name<E: TryFrom<i32>>(value: i32, name: fn(&E) -> &'static str) -> String {
    E::try_from(value).map_or_else(|_| value.to_string(), |known| title(name(&known)))
}

/// `reference` without a digest, which is too wide for a table and always behind a tag or name.
pub(crate) fn image_name(reference: &str) -> &str {
    reference
        .split_once('@')
        .map_or(reference, |(name, _)| name)
}

/// Compares so that runs of digits count as numbers: `node-2` is before `node-10`.
pub(crate) fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (digits_left, digits_right) = (leading_digits(left), leading_digits(right));
        let order = if digits_left > 0 && digits_right > 0 {
            let (number_left, number_right) = (&left[..digits_left], &right[..digits_right]);
            let significant = |number: &str| number.trim_start_matches('0').len();
            left = &left[digits_left..];
            right = &right[digits_right..];
            significant(number_left)
                .cmp(&significant(number_right))
                .then_with(|| {
                    number_left
                        .trim_start_matches('0')
                        .cmp(number_right.trim_start_matches('0'))
                })
        } else {
            let (mut chars_left, mut chars_right) = (left.chars(), right.chars());
            let (first_left, first_right) = (chars_left.next(), chars_right.next());
            if first_left.is_none() && first_right.is_none() {
                return a.cmp(b);
            }
            left = chars_left.as_str();
            right = chars_right.as_str();
            first_left.cmp(&first_right)
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// How many bytes of `text` are digits at its start.
fn leading_digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use skep_proto::v1::TaskState;

    use super::*;

    #[test]
    fn numbers_in_names_sort_as_numbers() {
        let mut names = ["web.10", "web.2", "api", "web.02", "web", "web.2a"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["api", "web", "web.02", "web.2", "web.2a", "web.10"]);
    }

    proptest! {
        #[test]
        fn natural_is_an_order(a in "[a0-2é]{0,6}", b in "[a0-2é]{0,6}", c in "[a0-2é]{0,6}") {
            prop_assert_eq!(natural(&a, &b), natural(&b, &a).reverse());
            prop_assert_eq!(natural(&a, &b) == Ordering::Equal, a == b);
            if natural(&a, &b).is_le() && natural(&b, &c).is_le() {
                prop_assert!(natural(&a, &c).is_le());
            }
        }
    }

    #[test]
    fn texts_of_others_cannot_break_the_table() {
        assert_eq!(one_line(" a\nb\u{1b}[2Jc\t"), "a b [2Jc");
        assert_eq!(short_id("0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("ééé"), "ééé");
        assert_eq!(image_name("redis:7@sha256:0123"), "redis:7");
    }

    #[test]
    fn enum_values_have_readable_names() {
        assert_eq!(enum_name(512, TaskState::as_str_name), "Running");
        assert_eq!(enum_name(5, TaskState::as_str_name), "5");
        assert_eq!(title("ROLLBACK_STARTED"), "Rollback started");
    }
}
