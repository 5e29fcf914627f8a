//! Rows as `COPY … TO STDOUT` writes them: a line each, its columns between tabs.

/// Takes the whole lines out of what has arrived so far; the beginning of one that has not ended stays.
#[derive(Default)]
pub(super) struct Lines(Vec<u8>);

impl Lines {
    /// Adds what has arrived, and calls with each line that is whole.
    pub(super) fn arrived<E>(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            if self.0.is_empty() {
                each(line)?;
            } else {
                self.0.extend(line);
                each(&self.0)?;
                self.0.clear();
            }
            bytes = rest;
        }
        self.0.extend(bytes);
        Ok(())
    }
}

/// A column's text; `None` is NULL. What is escaped is written to `room`.
pub(super) fn text<'a>(column: &'a [u8], room: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    if column == b"\\N" {
        return None;
    }
    if !column.contains(&b'\\') {
        return Some(column);
    }
    room.clear();
    let mut bytes = column.iter().copied();
    while let Some(byte) = bytes.next() {
        room.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'b') => 8,
                Some(b'f') => 12,
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'v') => 11,
                Some(other) => other,
                None => b'\\',
            },
            byte => byte,
        });
    }
    Some(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_may_arrive_in_pieces() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for piece in [&b"a\tb\nc"[..], b"", b"d\n\ne", b"\n"] {
            let taken: Result<(), ()> = lines.arrived(piece, |line| {
                seen.push(String::from_utf8_lossy(line).into_owned());
                Ok(())
            });
            assert_eq!(taken, Ok(()));
        }
        assert_eq!(seen, ["a\tb", "cd", "", "e"]);
    }

    #[test]
    fn what_is_escaped_is_read_as_it_was() {
        let mut room = Vec::new();
        assert_eq!(text(b"\\N", &mut room), None);
        assert_eq!(text(b"plain", &mut room), Some(&b"plain"[..]));
        assert_eq!(text(b"", &mut room), Some(&b""[..]));
        assert_eq!(
            text(br"a\tb\\N\n\b\f\r\v", &mut room),
            Some(&b"a\tb\\N\n\x08\x0c\r\x0b"[..])
        );
    }
}
