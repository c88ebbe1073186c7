//! Out: the one way to stdout. Whoever closes it has read enough; whatever else keeps it from being written is an error.
#![forbid(unsafe_code)]

use super::failure::{Code, Failure};
use std::fmt::Display;
use std::io::{ErrorKind, Write, stdout};

/// Prints the text and ends its line.
pub(crate) fn print(text: impl Display) -> Result<(), Failure> {
    let text = text.to_string();
    match writeln!(stdout(), "{}", text.trim_end_matches('\n')).and_then(|()| stdout().flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Code::Runtime, format!("write to stdout: {error}; nothing else went wrong")))
        }
        _ => Ok(()),
    }
}
