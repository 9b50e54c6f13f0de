//! Files with environment variables, one a line.

use std::{env, fs, path::PathBuf};

use super::values;
use crate::Error;

/// The variables of the files and then `more`. One that comes again takes the place of the first.
pub(super) fn merge(files: &[PathBuf], more: &[String]) -> Result<Vec<String>, Error> {
    let mut variables = Vec::<String>::new();
    let mut add = |variable: String| {
        let key = key_of(&variable);
        match variables.iter_mut().find(|old| key_of(old) == key) {
            Some(old) => *old = variable,
            None => variables.push(variable),
        }
    };
    for path in files {
        let failed = |problem: &dyn std::fmt::Display| {
            Error::Usage(format!("--env-file {}: {problem}", path.display()))
        };
        let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
        for (number, line) in (1..).zip(text.lines()) {
            let variable =
                read(line).map_err(|problem| failed(&format!("line {number}: {problem}")))?;
            variable.into_iter().for_each(&mut add);
        }
    }
    more.iter().cloned().for_each(&mut add);
    Ok(variables)
}

/// The variable of a line, if there is one on it: not on an empty line or a comment, and not where
/// a name alone stands for a variable that is not set here.
fn read(line: &str) -> Result<Option<String>, String> {
    let line = line.trim_start();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let key = key_of(line);
    if key.contains(char::is_whitespace) {
        return Err(format!("a name has no spaces, {key:?} has"));
    }
    if line.contains('=') {
        return values::assignment(line).map(Some);
    }
    Ok(env::var(key).ok().map(|value| format!("{key}={value}")))
}

/// The name of an environment variable written as `KEY=VALUE`.
pub(super) fn key_of(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(key, _)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_variables() {
        assert_eq!(read("A=1 # 2"), Ok(Some("A=1 # 2".to_owned())));
        assert_eq!(read("  A= x "), Ok(Some("A= x ".to_owned())));
        assert_eq!(read("# A=1"), Ok(None));
        assert_eq!(read(" "), Ok(None));
        assert_eq!(read("SKEP_TEST_NOT_SET"), Ok(None));
        assert!(matches!(read("PATH"), Ok(Some(path)) if path.starts_with("PATH=")));
        assert!(read("=1").is_err());
        assert!(read("A B=1").is_err());
    }

    #[test]
    fn flags_win_over_files_and_errors_name_the_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("env");
        fs::write(&path, "A=1\nB=2\n\n# C=3\n").unwrap();
        let files = [path.clone()];
        let more = ["B=9".to_owned(), "D=4".to_owned()];
        assert_eq!(merge(&files, &more).unwrap(), ["A=1", "B=9", "D=4"]);
        fs::write(&path, "A=1\n=2\n").unwrap();
        let error = merge(&files, &[]).unwrap_err().to_string();
        assert!(error.contains("line 2: expected KEY=VALUE"), "{error}");
        assert!(matches!(
            merge(&[directory.path().join("none")], &[]),
            Err(Error::Usage(_))
        ));
    }
}
