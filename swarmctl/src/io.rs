//! The streams of a command: the process's own, or buffers in tests.

use std::io::{self, BufRead, IsTerminal as _, Read as _, Write};

use crate::{Error, Exit};

/// Where results (`out`) and everything else (`err`: progress, errors) go, and secrets come from.
pub struct Io {
    /// Results only, so that it can be piped on.
    pub out: Box<dyn Write + Send>,
    /// Progress, warnings and errors.
    pub err: Box<dyn Write + Send>,
    /// Whether progress may be drawn as bars, which go to the process's stderr.
    pub bars: bool,
    /// Where a secret is read from; `None` asks for it on the terminal.
    pub input: Option<Box<dyn BufRead + Send>>,
}

/// More bytes than any secret that is typed or piped in.
const MAX_SECRET_BYTES: u64 = 4096;

impl Io {
    /// The streams of this process, with bars if stderr is a terminal.
    pub fn process() -> Self {
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            bars: io::stderr().is_terminal(),
            input: match io::stdin().is_terminal() {
                true => None,
                false => Some(Box::new(io::BufReader::new(io::stdin()))),
            },
        }
    }

    /// One line of secret input: typed without being shown, or piped in.
    pub(crate) fn read_secret(&mut self, prompt: &str) -> Result<String, Error> {
        let mut line = String::new();
        match &mut self.input {
            Some(input) => input.take(MAX_SECRET_BYTES).read_line(&mut line).map(drop),
            None => rpassword::prompt_password(prompt).map(|typed| line = typed),
        }
        .map_err(|error| Error::Input(error.to_string()))?;
        Ok(line.trim().to_owned())
    }

    /// All that is piped in or typed, but `limit` bytes at most.
    pub(crate) fn read_all(&mut self, limit: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        match &mut self.input {
            Some(input) => input.take(limit).read_to_end(&mut bytes),
            None => io::stdin().lock().take(limit).read_to_end(&mut bytes),
        }
        .map_err(|error| Error::Input(error.to_string()))?;
        Ok(bytes)
    }

    /// Shows what clap says about a command line: help and version on `out`, errors on `err`.
    pub(crate) fn show_usage(&mut self, message: &clap::Error) -> Exit {
        let text = message.render();
        // There is no better place to report that a stream is closed.
        if message.use_stderr() {
            let _ = write!(self.err, "{text}");
            Exit::Usage
        } else {
            let _ = write!(self.out, "{text}");
            Exit::Ok
        }
    }

    /// Shows why a command failed.
    pub(crate) fn show_error(&mut self, error: &Error) -> Exit {
        let exit = error.exit();
        if !matches!(exit, Exit::Ok | Exit::Interrupted) {
            let _ = writeln!(self.err, "Error: {error}");
        }
        exit
    }
}
