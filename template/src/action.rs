//! The lexical part: where placeholders begin and end, and what is in one.

use super::{Error, Fault};

/// The most of a placeholder that an error shows.
const SHOWN: usize = 80;
/// Words that Go's templates know and we do not.
const GO_WORDS: [&str; 29] = [
    "and", "block", "break", "call", "continue", "define", "else", "end", "eq", "false", "ge",
    "gt", "html", "if", "js", "le", "len", "lt", "ne", "not", "or", "print", "printf", "println",
    "range", "slice", "template", "true", "with",
];
/// What else may begin a word there, or end one: variables, numbers, characters, parentheses, pipes.
const GO_MARKS: &[char] = &['$', '(', ')', '|', ',', ':', '=', '\'', '+', '-'];
/// What may follow a backslash there.
const GO_ESCAPES: &str = "abfrvxuU01234567";

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Plain(&'a [u8]),
    /// What stands between the braces, without spaces around it; never a comment.
    Action(String),
}

/// A word of a placeholder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    /// `.A.B`
    Field(Vec<String>),
    /// `"text"` or a text in backquotes.
    Text(String),
    /// A function.
    Name(String),
}

/// The parts of `bytes` in their order; ends after an error.
pub(super) fn pieces(bytes: &[u8]) -> Pieces<'_> {
    Pieces {
        rest: bytes,
        trim: false,
        action: None,
        failed: false,
    }
}

pub(super) struct Pieces<'a> {
    rest: &'a [u8],
    /// The placeholder before takes away the space that follows it.
    trim: bool,
    /// Comes next, before the rest.
    action: Option<String>,
    failed: bool,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<Piece<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(action) = self.action.take() {
            return Some(Ok(Piece::Action(action)));
        }
        if self.failed || self.rest.is_empty() {
            return None;
        }
        let open = find(self.rest, b"{{");
        let (mut plain, inner) = match open {
            Some(at) => (&self.rest[..at], Some(&self.rest[at + 2..])),
            None => (self.rest, None),
        };
        if self.trim {
            plain = plain.trim_ascii_start();
        }
        let Some(mut inner) = inner else {
            self.rest = &[];
            return Some(Ok(Piece::Plain(plain)));
        };
        // `{{- ` and ` -}}` take the space beside them away.
        if let [b'-', space, ..] = inner
            && space.is_ascii_whitespace()
        {
            plain = plain.trim_ascii_end();
            inner = &inner[1..];
        }
        let Some(close) = close(inner) else {
            self.failed = true;
            return Some(Err(Error::Open));
        };
        let mut action = &inner[..close];
        self.trim = matches!(action, [.., space, b'-'] if space.is_ascii_whitespace());
        if self.trim {
            action = &action[..action.len() - 1];
        }
        self.rest = &inner[close + 2..];
        let action = action.trim_ascii();
        if !(action.len() >= 4 && action.starts_with(b"/*") && action.ends_with(b"*/")) {
            self.action = Some(String::from_utf8_lossy(action).into_owned());
        }
        Some(Ok(Piece::Plain(plain)))
    }
}

/// Where the closing braces are, which may also stand in a text.
fn close(inner: &[u8]) -> Option<usize> {
    let mut quote = None;
    let mut at = 0;
    while at < inner.len() {
        match (quote, inner[at]) {
            (None, b'}') if inner.get(at + 1) == Some(&b'}') => return Some(at),
            (None, byte @ (b'"' | b'`')) => quote = Some(byte),
            (Some(b'"'), b'\\') => at += 1,
            (Some(open), byte) if open == byte => quote = None,
            _ => {}
        }
        at += 1;
    }
    None
}

fn find(bytes: &[u8], what: &[u8; 2]) -> Option<usize> {
    bytes.windows(2).position(|window| window == what)
}

/// The words of a placeholder.
pub(super) fn operands(action: &str) -> Result<Vec<Operand>, Fault> {
    let mut operands = Vec::new();
    let mut rest = action.trim_start();
    while let Some(first) = rest.chars().next() {
        let (operand, after) = match first {
            '"' => quoted(&rest[1..])?,
            '`' => raw(&rest[1..])?,
            '.' => field(rest)?,
            _ => name(rest)?,
        };
        if !(after.is_empty() || after.starts_with(char::is_whitespace)) {
            return Err(unknown(after, "its words must be separated by spaces"));
        }
        operands.push(operand);
        rest = after.trim_start();
    }
    Ok(operands)
}

fn quoted(text: &str) -> Result<(Operand, &str), Fault> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((Operand::Text(value), &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, char @ ('"' | '\\'))) => value.push(char),
                other => {
                    let why = "a text has an escape that is not known here".to_owned();
                    let is_go = other.is_some_and(|(_, char)| GO_ESCAPES.contains(char));
                    return Err(if is_go {
                        Fault::Foreign(why)
                    } else {
                        Fault::Wrong(why)
                    });
                }
            },
            char => value.push(char),
        }
    }
    Err("a text is not closed".into())
}

fn raw(text: &str) -> Result<(Operand, &str), Fault> {
    match text.split_once('`') {
        Some((value, after)) => Ok((Operand::Text(value.to_owned()), after)),
        None => Err("a text is not closed".into()),
    }
}

fn field(text: &str) -> Result<(Operand, &str), Fault> {
    let end = text.find(|char| !is_word(char) && char != '.');
    let (path, after) = text.split_at(end.unwrap_or(text.len()));
    let path: Vec<_> = path[1..].split('.').map(str::to_owned).collect();
    if path.iter().any(String::is_empty) {
        return Err("there is no such field".into());
    }
    Ok((Operand::Field(path), after))
}

fn name(text: &str) -> Result<(Operand, &str), Fault> {
    let end = text.find(|char| !is_word(char)).unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    if name.is_empty() || name.starts_with(|char: char| char.is_numeric()) {
        return Err(unknown(text, "it has something that is not known here"));
    }
    Ok((Operand::Name(name.to_owned()), after))
}

/// The fault of a placeholder that goes on with `rest`.
fn unknown(rest: &str, why: &str) -> Fault {
    if rest.starts_with(GO_MARKS) || rest.starts_with(|char: char| char.is_ascii_digit()) {
        Fault::Foreign(why.to_owned())
    } else {
        Fault::Wrong(why.to_owned())
    }
}

/// Whether Go's templates know this word, though we do not.
pub(super) fn is_go(word: &str) -> bool {
    GO_WORDS.contains(&word)
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// A placeholder for an error's text.
pub(super) fn shown(action: &str) -> String {
    action.chars().take(SHOWN).collect()
}
