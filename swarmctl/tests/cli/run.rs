//! Runs the command line in this process.

use std::{
    ffi::OsString,
    io::{self, BufRead, Cursor, Write},
    path::Path,
    sync::{Arc, Mutex},
};

use swarmctl::{Exit, Io, run_with};

use crate::fake::Fake;

/// What a command left behind.
#[derive(Debug)]
pub struct Run {
    pub exit: Exit,
    pub out: String,
    pub err: String,
}

impl Run {
    /// The output of a command that must have succeeded without a word on stderr.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(
            (self.exit, self.err.as_str()),
            (Exit::Ok, ""),
            "{}",
            self.out
        );
        self.out
    }

    /// The error of a command that must have failed with `exit`.
    #[track_caller]
    pub fn failed(self, exit: Exit) -> String {
        assert_eq!(self.exit, exit, "{self:?}");
        self.err
    }
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Runs `swarmctl` with the words of `line` against `fake`.
pub async fn swarmctl(fake: &Fake, line: &str) -> Run {
    swarmctl_at(&fake.socket, line).await
}

/// Runs `swarmctl` with the words of `line` against the socket at `socket`.
pub async fn swarmctl_at(socket: &Path, line: &str) -> Run {
    run_at(socket, line, None).await
}

/// Runs `swarmctl` with the words of `line` against `fake`, with `input` piped in.
pub async fn swarmctl_with_input(fake: &Fake, line: &str, input: &str) -> Run {
    run_at(&fake.socket, line, Some(input.to_owned())).await
}

async fn run_at(socket: &Path, line: &str, input: Option<String>) -> Run {
    let (out, err) = (Buffer::default(), Buffer::default());
    let mut io = Io {
        out: Box::new(out.clone()),
        err: Box::new(err.clone()),
        bars: false,
        input: input.map(|input| Box::new(Cursor::new(input)) as Box<dyn BufRead + Send>),
    };
    let start = [OsString::from("swarmctl"), "--socket".into(), socket.into()];
    let words = line.split_whitespace().map(OsString::from);
    let exit = run_with(start.into_iter().chain(words), &mut io).await;
    Run {
        exit,
        out: out.text(),
        err: err.text(),
    }
}
