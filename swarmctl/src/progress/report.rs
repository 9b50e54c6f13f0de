//! Shows views: as bars on a terminal, as lines elsewhere, or not at all.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::view::{Row, View};

/// Something that shows one view after another.
pub(crate) trait Report: Send {
    /// Shows `view` in place of the one before it.
    fn show(&mut self, view: &View) -> io::Result<()>;

    /// Leaves what was shown last on the screen.
    fn finish(&mut self) {}
}

/// Shows nothing.
pub(crate) struct Quiet;

impl Report for Quiet {
    fn show(&mut self, _: &View) -> io::Result<()> {
        Ok(())
    }
}

/// Writes every line that differs from the one it replaces.
pub(crate) struct Lines<W> {
    out: W,
    /// The last line of each place: the summary, each task by its label, the conclusion.
    shown: BTreeMap<String, String>,
}

impl<W: Write + Send> Lines<W> {
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            shown: BTreeMap::new(),
        }
    }

    fn line(&mut self, place: &str, line: String) -> io::Result<()> {
        if self.shown.get(place) != Some(&line) {
            writeln!(self.out, "{line}")?;
            self.shown.insert(place.to_owned(), line);
        }
        Ok(())
    }
}

impl<W: Write + Send> Report for Lines<W> {
    fn show(&mut self, view: &View) -> io::Result<()> {
        if let Some(why) = &view.rollback {
            self.line("rollback", format!("rollback: {why}"))?;
        }
        self.line("overall", view.overall())?;
        for row in &view.rows {
            self.line(&format!("row {}", row.label), row.line())?;
        }
        match &view.verify {
            Some(verify) => self.line("verify", verify.line())?,
            // Verification that starts anew is worth a line.
            None => drop(self.shown.remove("verify")),
        }
        self.out.flush()
    }
}

/// Draws bars on stderr.
pub(crate) struct Bars {
    screen: MultiProgress,
    overall: ProgressBar,
    rows: BTreeMap<String, ProgressBar>,
    verify: Option<ProgressBar>,
}

impl Bars {
    pub(crate) fn new() -> Self {
        // The default target is stderr, and nothing if that is not a terminal.
        let screen = MultiProgress::new();
        let overall = screen.add(text_bar());
        Self {
            screen,
            overall,
            rows: BTreeMap::new(),
            verify: None,
        }
    }
}

impl Report for Bars {
    fn show(&mut self, view: &View) -> io::Result<()> {
        let head = match &view.rollback {
            Some(why) => format!("rollback: {why}\n{}", view.overall()),
            None => view.overall(),
        };
        self.overall.set_message(head);
        let gone = |label: &String| !view.rows.iter().any(|row| row.label == *label);
        for (_, bar) in self.rows.extract_if(.., |label, _| gone(label)) {
            bar.finish_and_clear();
            self.screen.remove(&bar);
        }
        let mut above = self.overall.clone();
        for row in &view.rows {
            let bar = self.rows.entry(row.label.clone()).or_insert_with(|| {
                let bar = ProgressBar::new(Row::STAGES).with_prefix(row.label.clone());
                self.screen.insert_after(&above, bar)
            });
            bar.set_style(style(row.error.is_some()));
            bar.set_message(match &row.error {
                Some(error) => format!("{:<9} {error}", row.state_name()),
                None => row.state_name(),
            });
            bar.set_position(row.stage());
            bar.tick();
            above = bar.clone();
        }
        match (&view.verify, &self.verify) {
            (Some(verify), shown) => {
                let bar = shown.clone().unwrap_or_else(|| self.screen.add(text_bar()));
                bar.set_message(verify.countdown());
                self.verify = Some(bar);
            }
            (None, Some(bar)) => {
                bar.finish_and_clear();
                self.screen.remove(bar);
                self.verify = None;
            }
            (None, None) => {}
        }
        Ok(())
    }

    fn finish(&mut self) {
        let bars = self
            .rows
            .values()
            .chain([&self.overall])
            .chain(&self.verify);
        bars.for_each(ProgressBar::abandon);
    }
}

/// A bar that is only a message.
fn text_bar() -> ProgressBar {
    ProgressBar::new(1).with_style(template("{msg}"))
}

/// The look of a task: a bar, or an error in its place.
fn style(error: bool) -> ProgressStyle {
    if error {
        template("{prefix}: {msg}")
    } else {
        template("{prefix}: {msg:9} [{bar:40}]").progress_chars("=> ")
    }
}

fn template(text: &str) -> ProgressStyle {
    ProgressStyle::with_template(text).expect("the templates of this file are well formed")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use skep_proto::v1::TaskState;

    use super::*;
    use crate::progress::view::Verify;

    fn view(ready: u64, states: &[TaskState]) -> View {
        let row = |(index, &state): (usize, &TaskState)| Row {
            label: format!("{}/2", index + 1),
            state,
            error: None,
        };
        View {
            ready,
            wanted: 2,
            rows: states.iter().enumerate().map(row).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn lines_are_written_only_when_they_change() {
        let stable = |left| {
            Some(Verify::Stable {
                period: Duration::from_secs(5),
                left: Duration::from_secs(left),
            })
        };
        let mut views = [
            view(0, &[TaskState::New, TaskState::New]),
            view(0, &[TaskState::New, TaskState::New]),
            view(1, &[TaskState::Running, TaskState::New]),
            view(2, &[TaskState::Running, TaskState::Running]),
            view(2, &[TaskState::Running, TaskState::Running]),
        ];
        views[3].verify = stable(5);
        views[4].verify = stable(4);
        let mut out = Vec::new();
        let mut lines = Lines::new(&mut out);
        views.iter().for_each(|view| lines.show(view).unwrap());
        let expected = "\
overall progress: 0 out of 2 tasks
1/2: new
2/2: new
overall progress: 1 out of 2 tasks
1/2: running
overall progress: 2 out of 2 tasks
2/2: running
verify: Waiting 5 seconds to verify that tasks are stable...
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn bars_follow_the_rows_of_the_view() {
        let mut bars = Bars::new();
        let mut first = view(0, &[TaskState::New, TaskState::Running]);
        first.rows[0].error = Some("no suitable node".to_owned());
        bars.show(&first).unwrap();
        assert_eq!(bars.rows.len(), 2);
        assert_eq!(bars.rows["2/2"].position(), Row::STAGES);
        assert_eq!(bars.rows["1/2"].message(), "new       no suitable node");
        let mut second = view(1, &[TaskState::Running]);
        second.verify = Some(Verify::Update);
        bars.show(&second).unwrap();
        assert_eq!(bars.rows.len(), 1);
        assert!(bars.verify.is_some());
        bars.show(&view(1, &[TaskState::New])).unwrap();
        assert!(bars.verify.is_none());
        bars.finish();
        assert!(bars.overall.is_finished());
    }
}
