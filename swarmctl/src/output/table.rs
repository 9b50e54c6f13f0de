//! Tables without borders, columns three spaces apart.

use std::io::{self, Write};

use super::text::one_line;

/// Spaces between columns, as docker has them.
const GAP: u16 = 3;

/// Rows under a heading.
pub(crate) struct Table {
    inner: comfy_table::Table,
}

impl Table {
    pub(crate) fn new<const N: usize>(heading: [&str; N]) -> Self {
        let mut inner = comfy_table::Table::new();
        inner
            .load_style(comfy_table::presets::NOTHING)
            .force_no_tty()
            .set_header(heading);
        for column in inner.column_iter_mut() {
            column.set_padding((0, GAP));
        }
        Self { inner }
    }

    /// Adds a row; what is not printable becomes spaces, at the start of a cell spaces stay.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.inner.add_row(cells.map(|cell| {
            let indent = cell.len() - cell.trim_start_matches(' ').len();
            format!("{}{}", " ".repeat(indent), one_line(&cell))
        }));
    }

    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for line in self.inner.lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(table: &Table) -> String {
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["ID", "NAME", "ERROR"]);
        table.row(["1".to_owned(), "web-server".to_owned(), String::new()]);
        table.row([
            "22".to_owned(),
            " \\_ a".to_owned(),
            "two\nlines".to_owned(),
        ]);
        let expected = "\
ID   NAME         ERROR
1    web-server
22    \\_ a        two lines
";
        assert_eq!(text(&table), expected);
    }

    #[test]
    fn a_long_cell_is_never_wrapped() {
        let mut table = Table::new(["A"]);
        table.row(["word ".repeat(200)]);
        assert_eq!(text(&table).lines().count(), 2);
    }
}
