//! Flags that hold several values: `key=value` fields with commas between them. A field with a
//! comma in it is put in quotes, as in CSV.

/// The fields of `text`, all of which must have a value. `expected` tells users the form.
pub(super) fn assignments(text: &str, expected: &str) -> Result<Vec<(String, String)>, String> {
    flags(text)?
        .into_iter()
        .map(|(key, value)| match value {
            Some(value) => Ok((key, value)),
            None => Err(format!("{key:?} has no value: {expected}")),
        })
        .collect()
}

/// The fields of `text`; one without `=` has no value. Keys are in lower case.
pub(super) fn flags(text: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let mut records = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(text.as_bytes())
        .into_records();
    let fields = match (records.next(), records.next()) {
        (None, _) => return Ok(Vec::new()),
        (Some(Ok(fields)), None) => fields,
        _ => return Err("expected one line of key=value fields with commas between".to_owned()),
    };
    Ok(fields
        .iter()
        .map(|field| match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value.to_owned())),
            None => (field.to_ascii_lowercase(), None),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_can_be_quoted() {
        let field = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
        assert_eq!(
            flags("Type=bind,\"opt=a=1,b\",ro,empty="),
            Ok(vec![
                field("type", Some("bind")),
                field("opt", Some("a=1,b")),
                field("ro", None),
                field("empty", Some("")),
            ])
        );
        assert_eq!(flags(""), Ok(Vec::new()));
        assert!(flags("a=1\nb=2").is_err());
        assert!(
            assignments("a=1,b", "expected X")
                .unwrap_err()
                .contains("expected X")
        );
    }
}
