//! Instructions that a peer may send on its QPACK encoder and decoder streams (RFC 9204 section 4.3, 4.4) to someone
//! who announced a dynamic table of zero bytes: next to none. Holds at most one unfinished integer.

use super::integer::{self, Int};
use crate::h3::{Code, Violation};

/// The longest integer within 62 bits takes 10 octets.
const LONGEST: usize = 10;

/// Which of the two streams is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The peer's encoder talks: it may set the capacity of the table, to zero.
    Encoder,
    /// The peer's decoder talks: it may cancel streams.
    Decoder,
}

/// Checks the instructions of one stream as they come in.
#[derive(Debug)]
pub struct Instructions {
    direction: Direction,
    held: [u8; LONGEST],
    length: usize,
}

impl Instructions {
    #[must_use]
    pub fn new(direction: Direction) -> Self {
        Instructions { direction, held: [0; LONGEST], length: 0 }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        for &octet in bytes {
            let Some(slot) = self.held.get_mut(self.length) else {
                return Err(self.violation("QPACK instruction: integer too long"));
            };
            *slot = octet;
            self.length += 1;
            self.judge()?;
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<(), Violation> {
        let first = self.held[0];
        let (prefix, only) = match self.direction {
            //= rfc9204#section-4.3.1
            Direction::Encoder if first & 0xe0 == 0x20 => (5, Some(0)),
            Direction::Encoder => return Err(self.violation("QPACK insertion into a table of zero bytes")),
            //= rfc9204#section-4.4.2
            Direction::Decoder if first & 0xc0 == 0x40 => (6, None),
            Direction::Decoder => return Err(self.violation("QPACK acknowledgement of what was never inserted")),
        };
        match integer::read(&self.held[..self.length], prefix) {
            Int::Incomplete => Ok(()),
            Int::Overflow => Err(self.violation("QPACK instruction: integer overflow")),
            Int::Value(value, _) if only.is_some_and(|only| only != value) => {
                Err(self.violation("QPACK table capacity above the announced zero"))
            }
            Int::Value(..) => {
                self.length = 0;
                Ok(())
            }
        }
    }

    fn violation(&self, reason: &'static str) -> Violation {
        let code = match self.direction {
            Direction::Encoder => Code::QPACK_ENCODER_STREAM_ERROR,
            Direction::Decoder => Code::QPACK_DECODER_STREAM_ERROR,
        };
        Violation { code, reason }
    }
}
