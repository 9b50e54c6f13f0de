//! One object as lines of `Key:  value`, for people who inspect it.

use std::io::{self, Write};

use super::text::one_line;

/// Spaces a section is indented by.
const INDENT: usize = 1;

/// The fields of an object, in the order they are shown.
#[derive(Default)]
pub(crate) struct Fields {
    lines: Vec<(usize, String, String)>,
    depth: usize,
}

impl Fields {
    /// Adds a field, unless its value is empty.
    pub(crate) fn add(&mut self, key: &str, value: impl ToString) -> &mut Self {
        let value = one_line(&value.to_string());
        if !value.is_empty() {
            self.lines.push((self.depth, one_line(key), value));
        }
        self
    }

    /// Adds a field if there is a value.
    pub(crate) fn maybe(&mut self, key: &str, value: Option<impl ToString>) -> &mut Self {
        if let Some(value) = value {
            self.add(key, value);
        }
        self
    }

    /// Adds what users named themselves, such as labels; empty values are values, too.
    pub(crate) fn entries<'a>(
        &mut self,
        entries: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> &mut Self {
        for (key, value) in entries {
            self.lines
                .push((self.depth, one_line(key), one_line(value)));
        }
        self
    }

    /// Adds a section with the fields that `fill` adds, unless those are none.
    pub(crate) fn section(&mut self, key: &str, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.lines.len();
        self.lines.push((self.depth, key.to_owned(), String::new()));
        self.depth += 1;
        fill(self);
        self.depth -= 1;
        if self.lines.len() == start + 1 {
            self.lines.truncate(start);
        }
        self
    }

    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let end = |depth: &usize, key: &str| depth * INDENT + key.chars().count() + 1;
        let width = self
            .lines
            .iter()
            .map(|(depth, key, _)| end(depth, key))
            .max()
            .unwrap_or(0);
        for (depth, key, value) in &self.lines {
            let line = format!("{}{key}:", " ".repeat(depth * INDENT));
            writeln!(out, "{}", format!("{line:width$}  {value}").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_aligned_and_empty_ones_left_out() {
        let mut fields = Fields::default();
        fields
            .add("ID", "1")
            .add("Nothing", "")
            .maybe("None", None::<u8>);
        fields.section("Empty", |_| {});
        fields.section("Placement", |section| {
            section.add("Max", 2);
        });
        let mut out = Vec::new();
        fields.write(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "ID:         1\nPlacement:\n Max:       2\n"
        );
    }
}
