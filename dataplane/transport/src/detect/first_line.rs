//! Tells whether an HTTP server could take the first bytes of a connection for a request. Lenient where servers are, and
//! without a deadline: it keeps a few bytes, however long the line is and however slowly it comes.

/// Says what the bytes so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// More of them could make a request line.
    Open,
    /// A request line of HTTP/1, or of HTTP/0.9.
    Request,
    /// The preface of HTTP/2, whose fields nobody can read along.
    Preface,
    /// The first line is none, nor is anything behind it.
    Other,
}

/// The first line of a connection, read byte by byte.
#[derive(Debug)]
pub struct FirstLine {
    at: At,
    /// The last bytes, in lower case, with every blank as a space.
    last: [u8; 6],
    /// The first word may be GET so far, which HTTP/0.9 sends with no version behind it.
    is_get: bool,
    /// The same of PRI, and of PROXY, whose line some servers read before that of a request.
    is_pri: bool,
    is_proxy: bool,
    word_len: usize,
    /// Something looks like a request target.
    has_target: bool,
    /// Bytes of a PROXY header of version 2 so far, and those that are still to come behind its fixed part.
    v2: usize,
    v2_left: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the first word, where servers pass over empty lines and blanks.
    Blanks,
    Word,
    Rest,
    /// Within the binary header, behind what could be empty lines.
    Version2,
    Over(Judged),
}

impl Default for FirstLine {
    fn default() -> Self {
        Self {
            at: At::Blanks,
            last: [b' '; 6],
            is_get: true,
            is_pri: true,
            is_proxy: true,
            word_len: 0,
            has_target: false,
            v2: 0,
            v2_left: 0,
        }
    }
}

impl FirstLine {
    /// Reads on. A verdict stays.
    pub fn read(&mut self, bytes: &[u8]) -> Judged {
        for byte in bytes {
            if let At::Over(judged) = self.at {
                return judged;
            }
            self.at = self.next(*byte);
        }
        if let At::Over(judged) = self.at { judged } else { Judged::Open }
    }

    fn next(&mut self, byte: u8) -> At {
        match self.at {
            At::Version2 => self.version2(byte),
            At::Blanks if V2.get(self.v2) == Some(&byte) => {
                self.v2 += 1;
                if byte == 0 { At::Version2 } else { At::Blanks }
            }
            At::Blanks if byte == b'\n' || is_blank(byte) => At::Blanks,
            At::Blanks | At::Word if !is_blank(byte) => self.word(byte),
            At::Blanks | At::Word => {
                self.is_get &= self.word_len == GET.len();
                At::Rest
            }
            At::Rest if byte == b'\n' && self.is_proxy && self.word_len == PROXY.len() => {
                *self = Self::default();
                At::Blanks
            }
            At::Rest if byte == b'\n' => {
                At::Over(if self.is_get && self.has_target { Judged::Request } else { Judged::Other })
            }
            At::Rest => self.rest(byte),
            over @ At::Over(_) => over,
        }
    }

    /// A server that takes such a header reads a request behind it; one whose signature is broken is none.
    fn version2(&mut self, byte: u8) -> At {
        let at = self.v2;
        self.v2 += 1;
        match at {
            14 => self.v2_left = usize::from(byte) << 8,
            15 => self.v2_left |= usize::from(byte),
            16.. => self.v2_left -= 1,
            _ if V2.get(at).is_some_and(|expected| *expected != byte) => return At::Over(Judged::Other),
            _ => {}
        }
        if self.v2 < V2_FIXED || self.v2_left > 0 {
            return At::Version2;
        }
        *self = Self::default();
        At::Blanks
    }

    /// Servers differ in what a method may be made of: everything that can be seen is taken for one.
    fn word(&mut self, byte: u8) -> At {
        if byte.is_ascii_control() {
            return At::Over(Judged::Other);
        }
        self.is_get &= GET.get(self.word_len) == Some(&byte);
        self.is_pri &= PRI.get(self.word_len) == Some(&byte);
        self.is_proxy &= PROXY.get(self.word_len) == Some(&byte);
        self.word_len += 1;
        At::Word
    }

    fn rest(&mut self, byte: u8) -> At {
        self.last.rotate_left(1);
        self.last[5] = if is_blank(byte) { b' ' } else { byte.to_ascii_lowercase() };
        self.has_target |= self.last.ends_with(b" /") || self.last.ends_with(b"://");
        match self.last == *b" http/" {
            true if self.is_pri => At::Over(Judged::Preface),
            true => At::Over(Judged::Request),
            false => At::Rest,
        }
    }
}

const GET: &[u8] = b"GET";
const PRI: &[u8] = b"PRI";
const PROXY: &[u8] = b"PROXY";
/// The signature of a PROXY header of version 2; version, family and two octets of length follow.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;

/// True for all that some server takes for a blank between the parts of a request line.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c | 0x1c..=0x1f | 0x85 | 0xa0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judged whole and byte by byte; gives the number of bytes that it took.
    #[track_caller]
    fn judged(bytes: &[u8]) -> (Judged, usize) {
        let mut line = FirstLine::default();
        let at = bytes.iter().position(|byte| line.read(&[*byte]) != Judged::Open);
        let verdict = FirstLine::default().read(bytes);
        assert_eq!(verdict, line.read(b""), "{:?}", String::from_utf8_lossy(bytes));
        (verdict, at.map_or(bytes.len(), |at| at + 1))
    }

    #[test]
    fn a_request_is_one_however_a_server_may_be_told() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "GET\t/ HTTP/1.1\r\n",
            "\n\nGET / HTTP/1.1\r\n",
            "\r\n \r\n\tGET / HTTP/1.1\n",
            "GGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGG / HTTP/1.1\r\n",
            "G\u{b5}T / HTTP/1.1\r\n",
            "get / http/1.1\r\n",
            "GET /\x0bHTTP/1.1\r\n",
            "GET / \u{1}HTTP HTTP/1.0\r\n",
            "PRINT * HTTP/2.0\r\n",
            "GET /admin\r\nx-forwarded-client-cert: URI=spiffe://a\r\n",
            "GET http://a/admin\r\n",
        ] {
            assert_eq!(judged(line.as_bytes()).0, Judged::Request, "{line:?}");
        }
        assert_eq!(judged(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").0, Judged::Preface);
        assert_eq!(judged(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n").0, Judged::Request);
        assert_eq!(judged(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n\x16\x03").0, Judged::Other);
        let version2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02";
        let empty = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        for header in [&version2[..], empty] {
            assert_eq!(judged(&[header, b"GET / HTTP/1.1\r\n"].concat()).0, Judged::Request);
            assert_eq!(judged(&[header, b"\x16\x03"].concat()).0, Judged::Other);
            assert_eq!(judged(header).0, Judged::Open);
        }
        assert_eq!(judged(b"\r\n\r\n\0\r\nQUIX\nGET / HTTP/1.1\r\n").0, Judged::Other);
        let long = [&b"\n".repeat(20_000)[..], b"GET /", &b"a".repeat(2 << 20), b" HTTP/1.1\r\n"].concat();
        assert_eq!(judged(&long).0, Judged::Request);
    }

    #[test]
    fn it_is_one_before_a_server_can_know() {
        let line = b"GET / HTTP/1.1\r\nx: y\r\n\r\n";
        assert_eq!(judged(line), (Judged::Request, 11));
        assert_eq!(judged(b"GET / HTTP"), (Judged::Open, 10));
    }

    #[test]
    fn other_protocols_are_none() {
        let tls = [&[0x16, 3, 1, 2, 0, 1][..], b"\0\x08http/1.1 http/"].concat();
        for (bytes, most) in [
            (&tls[..], 1),
            (b"SSH-2.0-OpenSSH_9.6\r\n", 21),
            (b"*2\r\n$3\r\nGET\r\n$5\r\n/ HTTP/1\r\n", 4),
            (b"GET key\r\n", 9),
            (b"get key\r\n", 9),
            (b"PING\r\n", 6),
            (b"EHLO client.example HTTP\r\n", 26),
            (b"HELO a\n", 7),
            (b"a1 LOGIN user pass\r\n", 20),
            (b"USER anonymous\r\n", 16),
            (b"NICK a\r\nUSER a 0 * :HTTP/1.1\r\n", 8),
            (b"CONNECT {\"verbose\":false}\r\n", 27),
            (b"CONNECT\naccept-version:1.2\n", 8),
            (b"set key 0 0 5\r\n", 15),
            (b"DESCRIBE rtsp://a/b RTSP/1.0\r\n", 30),
            (b"INVITE sip:a@b SIP/2.0\r\n", 24),
            // PostgreSQL, MySQL, MongoDB, Kafka, AMQP, MQTT, SMB, RTMP.
            (b"\0\0\0\x08\x04\xd2\x16\x2f HTTP/1.1", 1),
            (b"\x20\0\0\x01\x85\xa6\xff\x01", 2),
            (b"?\0\0\0\x01\0\0\0", 2),
            (b"\0\0\0\x24\0\x12", 1),
            (b"AMQP\0\0\x09\x01", 5),
            (b"\x10\x0c\0\x04MQTT", 1),
            (b"\0\0\0\x54\xffSMB", 1),
            (b"\x03\0\0\0\0 HTTP/", 1),
        ] {
            let shown = String::from_utf8_lossy(bytes);
            let (verdict, took) = judged(bytes);
            assert_eq!(verdict, Judged::Other, "{shown:?}");
            assert!(took <= most, "{shown:?} after {took} bytes");
            assert_eq!(FirstLine::default().read(&[bytes, b" / HTTP/1.1\r\n"].concat()), Judged::Other, "{shown:?}");
        }
    }
}
