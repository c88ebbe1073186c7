//! What the machine and we say to each other: messages on its second serial line, apart from the kernel's console.
//!
//! A message is a byte for its kind, four for the length (little-endian), and so many bytes.
#![forbid(unsafe_code)]

use std::io::{self, Write};

/// The longest message, in bytes.
pub const LONGEST: usize = 16 << 20;
const HEADER: usize = 5;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The command is about to start: the guest's monotonic nanoseconds, a space, and its kernel's release.
    Begin = b'B',
    /// The command wrote this.
    Stdout = b'O',
    /// The command complained so.
    Stderr = b'E',
    /// The next message is the contents of the file of this name.
    Name = b'N',
    /// The contents of a file.
    File = b'F',
    /// The kernel warned so while the command ran.
    Warning = b'W',
    /// The machine could not be made ready, for this reason.
    Broken = b'X',
    /// The command ended: its status, a space, and the guest's monotonic nanoseconds.
    End = b'Z',
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Begin,
        Self::Stdout,
        Self::Stderr,
        Self::Name,
        Self::File,
        Self::Warning,
        Self::Broken,
        Self::End,
    ];
}

/// Writes one message; what is longer than the longest is cut.
pub fn write(to: &mut impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    let bytes = &bytes[..bytes.len().min(LONGEST)];
    let mut header = [kind as u8; HEADER];
    header[1..].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    to.write_all(&header)?;
    to.write_all(bytes)
}

/// Takes messages out of a stream that arrives in pieces.
#[derive(Debug, Default)]
pub struct Reader {
    pending: Vec<u8>,
}

impl Reader {
    /// Adds what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole message; `None` until there is one.
    ///
    /// # Errors
    /// The bytes that are no message.
    pub fn take(&mut self) -> Result<Option<(Kind, Vec<u8>)>, String> {
        let Some(header) = self.pending.first_chunk::<HEADER>() else { return Ok(None) };
        let len = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let kind = Kind::ALL.into_iter().find(|kind| *kind as u8 == header[0]);
        let (Some(kind), true) = (kind, len <= LONGEST) else {
            let shown = &self.pending[..self.pending.len().min(64)];
            return Err(shown.escape_ascii().to_string());
        };
        if self.pending.len() < HEADER + len {
            return Ok(None);
        }
        let message = self.pending[HEADER..HEADER + len].to_vec();
        self.pending.drain(..HEADER + len);
        Ok(Some((kind, message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_however_they_are_cut() {
        let sent = [
            (Kind::Begin, &b"7 x"[..]),
            (Kind::Stdout, b""),
            (Kind::File, &[0xff; 300]),
            (Kind::End, b"0 9"),
        ];
        let mut stream = Vec::new();
        for (kind, bytes) in sent {
            write(&mut stream, kind, bytes).unwrap();
        }
        for piece in [1, 4, 5, 7, 1000] {
            let mut reader = Reader::default();
            let mut got = Vec::new();
            for bytes in stream.chunks(piece) {
                reader.push(bytes);
                while let Some(message) = reader.take().unwrap() {
                    got.push(message);
                }
            }
            let sent = sent.map(|(kind, bytes)| (kind, bytes.to_vec()));
            assert_eq!(got, sent, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_message_is_shown() {
        let mut reader = Reader::default();
        reader.push(b"qemu: error\n");
        assert_eq!(reader.take(), Err("qemu: error\\n".to_string()));
        let mut reader = Reader::default();
        reader.push(&[b'O', 0xff, 0xff, 0xff, 0xff]);
        assert!(reader.take().is_err(), "longer than the longest");
    }
}
