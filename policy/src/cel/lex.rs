//! The words and signs of an expression's text, with their places.

/// A fault and the byte of the text where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) at: usize,
    pub(super) message: String,
}

impl Spot {
    pub(super) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A whole number without its sign.
    Int(u64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Word(String),
    Sign(&'static str),
    End,
}

/// Longer ones first.
const SIGNS: [&str; 24] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "(", ")", "[", "]", "{", "}", ",", ".", "?", ":", "+", "-", "*", "/",
    "%", "!",
];

/// All tokens, `End` last.
pub(super) fn lex(text: &str) -> Result<Vec<(Token, usize)>, Spot> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip();
        let at = lexer.at;
        let token = lexer.token()?;
        let is_end = token == Token::End;
        tokens.push((token, at));
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn first(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// The characters that hold, which are passed.
    fn take(&mut self, holds: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let taken = &rest[..rest.find(|c: char| !holds(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    /// Passes blanks and comments.
    fn skip(&mut self) {
        loop {
            self.take(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}'));
            if !self.rest().starts_with("//") {
                return;
            }
            self.take(|c| c != '\n');
        }
    }

    fn token(&mut self) -> Result<Token, Spot> {
        let Some(first) = self.first() else { return Ok(Token::End) };
        if first.is_ascii_digit() || (first == '.' && self.rest()[1..].starts_with(|c: char| c.is_ascii_digit())) {
            return self.number();
        }
        if let Some(prefix) = self.prefix() {
            return self.quoted(prefix);
        }
        if is_word(first) {
            return Ok(Token::Word(self.take(is_word).to_owned()));
        }
        match SIGNS.into_iter().find(|sign| self.rest().starts_with(*sign)) {
            Some(sign) => {
                self.at += sign.len();
                Ok(Token::Sign(sign))
            }
            None => Err(Spot::new(self.at, format!("{first:?} means nothing here"))),
        }
    }

    /// What stands before the quotes of text or bytes that begin here.
    fn prefix(&self) -> Option<&'t str> {
        let rest = self.rest();
        let quote = rest.bytes().take(3).position(|byte| matches!(byte, b'"' | b'\''))?;
        let prefix = &rest[..quote];
        let is_prefix = matches!(prefix.to_ascii_lowercase().as_str(), "" | "r" | "b" | "rb" | "br");
        is_prefix.then_some(prefix)
    }

    fn number(&mut self) -> Result<Token, Spot> {
        let from = self.at;
        let out_of_range = || Spot::new(from, "the number is out of range");
        let hex = self.rest().strip_prefix("0x").or_else(|| self.rest().strip_prefix("0X"));
        let token = match hex {
            Some(_) => {
                self.at += 2;
                let digits = self.take(|c| c.is_ascii_hexdigit());
                let number = u64::from_str_radix(digits, 16).map_err(|_| out_of_range())?;
                self.whole(number)
            }
            None => {
                let digits = self.take(|c| c.is_ascii_digit());
                match self.fraction() {
                    true => {
                        let number = self.text[from..self.at].parse::<f64>().ok().filter(|number| number.is_finite());
                        Token::Double(number.ok_or_else(out_of_range)?)
                    }
                    false => {
                        let number = digits.parse().map_err(|_| out_of_range())?;
                        self.whole(number)
                    }
                }
            }
        };
        match self.first().filter(|next| is_word(*next)) {
            Some(next) => Err(Spot::new(self.at, format!("{next:?} can't follow a number"))),
            None => Ok(token),
        }
    }

    fn whole(&mut self, number: u64) -> Token {
        match self.rest().starts_with(['u', 'U']) {
            true => {
                self.at += 1;
                Token::Uint(number)
            }
            false => Token::Int(number),
        }
    }

    /// Passes a fraction and an exponent; true if there was one of them.
    fn fraction(&mut self) -> bool {
        let from = self.at;
        let digit_at = |text: &str, at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
        if self.rest().starts_with('.') && digit_at(self.rest(), 1) {
            self.at += 1;
            self.take(|c| c.is_ascii_digit());
        }
        if self.rest().starts_with(['e', 'E']) {
            let sign = usize::from(self.rest()[1..].starts_with(['+', '-']));
            if digit_at(self.rest(), 1 + sign) {
                self.at += 1 + sign;
                self.take(|c| c.is_ascii_digit());
            }
        }
        self.at > from
    }

    fn quoted(&mut self, prefix: &str) -> Result<Token, Spot> {
        let from = self.at;
        self.at += prefix.len();
        let rest = self.rest();
        let long = ["\"\"\"", "'''"].into_iter().find(|quotes| rest.starts_with(*quotes));
        let quotes = long.unwrap_or(if rest.starts_with('"') { "\"" } else { "'" });
        self.at += quotes.len();
        let is = |letter: char| prefix.contains(|c: char| c.eq_ignore_ascii_case(&letter));
        let (raw, bytes) = (is('r'), is('b'));
        let mut content = Content { text: String::new(), bytes: Vec::new(), is_bytes: bytes };
        loop {
            if self.rest().starts_with(quotes) {
                self.at += quotes.len();
                return Ok(match bytes {
                    true => Token::Bytes(content.bytes),
                    false => Token::Text(content.text),
                });
            }
            match self.first() {
                None => return Err(Spot::new(from, "the text has no end")),
                Some('\n' | '\r') if long.is_none() => return Err(Spot::new(from, "the text has no end in its line")),
                Some('\\') if !raw => self.escape(&mut content)?,
                Some(plain) => {
                    self.at += plain.len_utf8();
                    content.push(plain);
                }
            }
        }
    }

    /// Passes an escape.
    fn escape(&mut self, content: &mut Content) -> Result<(), Spot> {
        let from = self.at;
        let wrong = || Spot::new(from, "there is no such escape");
        let Some(kind) = self.rest()[1..].chars().next() else { return Err(wrong()) };
        self.at += 1 + kind.len_utf8();
        let plain = match kind {
            '\\' | '?' | '"' | '\'' | '`' => kind,
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            'x' | 'X' | 'u' | 'U' | '0'..='3' => {
                let (digits, radix, is_octet) = match kind {
                    'x' | 'X' => (2, 16, true),
                    'u' => (4, 16, false),
                    'U' => (8, 16, false),
                    _ => (3, 8, true),
                };
                if radix == 8 {
                    // The kind is the first of its digits.
                    self.at -= 1;
                }
                let text = self.rest().get(..digits).ok_or_else(wrong)?;
                let is_digit = |c: char| c.is_digit(radix);
                let code = u32::from_str_radix(text, radix).ok().filter(|_| text.chars().all(is_digit));
                let code = code.ok_or_else(wrong)?;
                self.at += digits;
                return content.code(code, is_octet).ok_or_else(wrong);
            }
            _ => return Err(wrong()),
        };
        content.push(plain);
        Ok(())
    }
}

/// What is between quotes, of which one of the two is kept.
struct Content {
    text: String,
    bytes: Vec<u8>,
    is_bytes: bool,
}

impl Content {
    fn push(&mut self, plain: char) {
        match self.is_bytes {
            true => self.bytes.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes()),
            false => self.text.push(plain),
        }
    }

    /// A number that stands for an octet in bytes, and for a character in text.
    fn code(&mut self, code: u32, is_octet: bool) -> Option<()> {
        match (self.is_bytes, is_octet) {
            (true, true) => self.bytes.push(u8::try_from(code).ok()?),
            (true, false) => return None,
            (false, _) => self.text.push(char::from_u32(code)?),
        }
        Some(())
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}
