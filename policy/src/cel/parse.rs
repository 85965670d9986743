//! The tree of an expression, by the grammar of the language. Messages, leading dots and names that the language keeps
//! for itself are refused.

use super::MAX_DEPTH;
use super::expression::Function;
use super::lex::{Spot, Token, lex};

#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: usize,
    pub(super) kind: Tree,
}

#[derive(Debug)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Name(String),
    Field(Box<Node>, String),
    Call {
        on: Option<Box<Node>>,
        name: String,
        arguments: Vec<Node>,
    },
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    /// An operator with its one or two operands.
    Operator(Function, Vec<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    If(Box<[Node; 3]>),
}

pub(super) fn parse(text: &str) -> Result<Node, Spot> {
    let mut parser = Parser { tokens: lex(text)?, next: 0, depth: 0 };
    let tree = parser.expression()?;
    match parser.peek() == &Token::End {
        true => Ok(tree),
        false => Err(Spot::new(parser.at(), format!("{} is not expected here", shown(parser.peek())))),
    }
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    next: usize,
    depth: usize,
}

/// Names that the language keeps for itself; fields may have them.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "package",
    "return",
    "void",
    "while",
];

type Parsed<T> = Result<T, Spot>;

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(token, _)| token)
    }

    /// The place of the next token; behind the last, the end's.
    fn at(&self) -> usize {
        self.tokens.get(self.next).or(self.tokens.last()).map_or(0, |(_, at)| *at)
    }

    fn advance(&mut self) -> (Token, usize) {
        let found = (self.peek().clone(), self.at());
        self.next += 1;
        found
    }

    /// Passes a sign if it is next.
    fn takes(&mut self, sign: &str) -> bool {
        let is_next = matches!(self.peek(), Token::Sign(found) if *found == sign);
        self.next += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, sign: &str) -> Parsed<()> {
        if self.takes(sign) {
            return Ok(());
        }
        Err(Spot::new(self.at(), format!("'{sign}' is expected, not {}", shown(self.peek()))))
    }

    fn expression(&mut self) -> Parsed<Node> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Spot::new(self.at(), format!("nested deeper than {MAX_DEPTH}")));
        }
        let condition = self.junction("||")?;
        let at = self.at();
        let node = if self.takes("?") {
            let then = self.junction("||")?;
            self.expect(":")?;
            let otherwise = self.expression()?;
            Node { at, kind: Tree::If(Box::new([condition, then, otherwise])) }
        } else {
            condition
        };
        self.depth -= 1;
        Ok(node)
    }

    /// `a || b || c`, or with `&&`: one level, however many there are.
    fn junction(&mut self, sign: &str) -> Parsed<Node> {
        let part = |parser: &mut Self| match sign {
            "||" => parser.junction("&&"),
            _ => parser.relation(),
        };
        let first = part(self)?;
        let at = self.at();
        let mut parts = vec![first];
        while self.takes(sign) {
            parts.push(part(self)?);
        }
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let kind = if sign == "||" { Tree::Or(parts) } else { Tree::And(parts) };
        Ok(Node { at, kind })
    }

    /// The sign that is next, `in` too; empty where there is none.
    fn sign(&self) -> &'static str {
        match self.peek() {
            Token::Sign(sign) => sign,
            Token::Word(word) if word == "in" => "in",
            Token::Int(_)
            | Token::Uint(_)
            | Token::Double(_)
            | Token::Text(_)
            | Token::Bytes(_)
            | Token::Word(_)
            | Token::End => "",
        }
    }

    fn relation(&mut self) -> Parsed<Node> {
        let mut left = self.addition()?;
        loop {
            let function = match self.sign() {
                "==" => Function::Equal,
                "!=" => Function::Unequal,
                "<" => Function::Less,
                "<=" => Function::LessOrEqual,
                ">" => Function::Greater,
                ">=" => Function::GreaterOrEqual,
                "in" => Function::In,
                _ => return Ok(left),
            };
            left = self.binary(function, left, Self::addition)?;
        }
    }

    fn addition(&mut self) -> Parsed<Node> {
        let mut left = self.multiplication()?;
        loop {
            let function = match self.sign() {
                "+" => Function::Add,
                "-" => Function::Subtract,
                _ => return Ok(left),
            };
            left = self.binary(function, left, Self::multiplication)?;
        }
    }

    fn multiplication(&mut self) -> Parsed<Node> {
        let mut left = self.unary()?;
        loop {
            let function = match self.sign() {
                "*" => Function::Multiply,
                "/" => Function::Divide,
                "%" => Function::Remainder,
                _ => return Ok(left),
            };
            left = self.binary(function, left, Self::unary)?;
        }
    }

    /// The operator that is next, between what was read and what follows it.
    fn binary(&mut self, function: Function, left: Node, right: fn(&mut Self) -> Parsed<Node>) -> Parsed<Node> {
        let (_, at) = self.advance();
        let right = right(self)?;
        Ok(Node { at, kind: Tree::Operator(function, vec![left, right]) })
    }

    fn unary(&mut self) -> Parsed<Node> {
        let from = self.at();
        let mut signs = Vec::new();
        let sign = if self.sign() == "!" { "!" } else { "-" };
        while signs.len() <= MAX_DEPTH && self.sign() == sign {
            signs.push(self.at());
            self.next += 1;
        }
        if signs.len() > MAX_DEPTH {
            return Err(Spot::new(from, format!("nested deeper than {MAX_DEPTH}")));
        }
        // The smallest number has no positive of its own: a sign before a number belongs to it.
        let negative = match self.peek() {
            Token::Int(number) if sign == "-" && !signs.is_empty() => Some(-i128::from(*number)),
            Token::Int(_)
            | Token::Uint(_)
            | Token::Double(_)
            | Token::Text(_)
            | Token::Bytes(_)
            | Token::Word(_)
            | Token::Sign(_)
            | Token::End => None,
        };
        let primary = match negative {
            Some(number) => {
                let at = signs.pop().unwrap_or(from);
                self.next += 1;
                Node { at, kind: Tree::Int(i64::try_from(number).map_err(|_| out_of_range(at))?) }
            }
            None => self.primary()?,
        };
        let mut node = self.member(primary)?;
        let function = if sign == "!" { Function::Not } else { Function::Negate };
        for at in signs.into_iter().rev() {
            node = Node { at, kind: Tree::Operator(function, vec![node]) };
        }
        Ok(node)
    }

    /// Fields, calls and indexes behind what was read.
    fn member(&mut self, mut node: Node) -> Parsed<Node> {
        loop {
            let at = self.at();
            if self.takes(".") {
                let name = match self.advance() {
                    (Token::Word(name), _) => name,
                    (token, at) => return Err(Spot::new(at, format!("a name is expected, not {}", shown(&token)))),
                };
                node = if self.takes("(") {
                    let arguments = self.listed(")")?;
                    Node { at, kind: Tree::Call { on: Some(Box::new(node)), name, arguments } }
                } else {
                    Node { at, kind: Tree::Field(Box::new(node), name) }
                };
            } else if self.takes("[") {
                let index = self.expression()?;
                self.expect("]")?;
                node = Node { at, kind: Tree::Operator(Function::Index, vec![node, index]) };
            } else if matches!(node.kind, Tree::Name(_) | Tree::Field(..)) && self.sign() == "{" {
                return Err(Spot::new(at, "messages can't be made here"));
            } else {
                return Ok(node);
            }
        }
    }

    fn primary(&mut self) -> Parsed<Node> {
        let (token, at) = self.advance();
        let kind = match token {
            Token::Int(number) => Tree::Int(i64::try_from(number).map_err(|_| out_of_range(at))?),
            Token::Uint(number) => Tree::Uint(number),
            Token::Double(number) => Tree::Double(number),
            Token::Text(text) => Tree::Text(text),
            Token::Bytes(bytes) => Tree::Bytes(bytes),
            Token::Word(word) => match word.as_str() {
                "true" => Tree::Bool(true),
                "false" => Tree::Bool(false),
                "null" => Tree::Null,
                word if RESERVED.contains(&word) => {
                    return Err(Spot::new(at, format!("`{word}` is kept by the language and no name")));
                }
                _ if self.takes("(") => Tree::Call { on: None, name: word, arguments: self.listed(")")? },
                _ => Tree::Name(word),
            },
            Token::Sign("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Sign("[") => Tree::List(self.listed("]")?),
            Token::Sign("{") => Tree::Map(self.entries()?),
            Token::Sign(_) | Token::End => {
                return Err(Spot::new(at, format!("a value is expected, not {}", shown(&token))));
            }
        };
        Ok(Node { at, kind })
    }

    /// Expressions up to a closing sign, with commas between.
    fn listed(&mut self, close: &str) -> Parsed<Vec<Node>> {
        let mut found = Vec::new();
        while !self.takes(close) {
            found.push(self.expression()?);
            if !self.takes(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(found)
    }

    fn entries(&mut self) -> Parsed<Vec<(Node, Node)>> {
        let mut found = Vec::new();
        while !self.takes("}") {
            let key = self.expression()?;
            self.expect(":")?;
            found.push((key, self.expression()?));
            if !self.takes(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(found)
    }
}

fn out_of_range(at: usize) -> Spot {
    Spot::new(at, "the number is out of range")
}

fn shown(token: &Token) -> String {
    match token {
        Token::Int(_) | Token::Uint(_) | Token::Double(_) => "a number".to_owned(),
        Token::Text(_) => "text".to_owned(),
        Token::Bytes(_) => "bytes".to_owned(),
        Token::Word(word) => format!("`{word}`"),
        Token::Sign(sign) => format!("'{sign}'"),
        Token::End => "the end".to_owned(),
    }
}
