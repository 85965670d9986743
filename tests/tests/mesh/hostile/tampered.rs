//! Components that somebody has tampered with: a sound one whose core module is changed section by section.

/// The preamble of a module and of a component.
const PREAMBLE: usize = 8;
/// The section of a component that is a core module.
const CORE_MODULE: u8 = 1;
/// Sections of a core module.
const TYPES: u8 = 1;
const IMPORTS: u8 = 2;
const FUNCTIONS: u8 = 3;
const TABLES: u8 = 4;
const MEMORIES: u8 = 5;
const START: u8 = 8;
const CODE: u8 = 10;
/// The order in which a core module has them.
const ORDER: [u8; 13] = [TYPES, IMPORTS, FUNCTIONS, TABLES, MEMORIES, 13, 6, 7, START, 9, 12, CODE, 11];

const END: u8 = 0x0b;

/// Instructions of a start function: a loop without end, and a trap.
pub(in crate::mesh) const LOOP: &[u8] = &[0x03, 0x40, 0x0c, 0x00, END];
pub(in crate::mesh) const TRAP: &[u8] = &[0x00];

/// The component with its largest core module as `change` leaves it.
pub(in crate::mesh) fn tampered(component: &[u8], change: impl FnOnce(&mut Module)) -> Vec<u8> {
    let mut sections = sections(&component[PREAMBLE..]);
    let largest = sections.iter_mut().filter(|(id, _)| *id == CORE_MODULE).max_by_key(|(_, bytes)| bytes.len());
    let (_, bytes) = largest.expect("a component of one of our filters has a core module");
    let mut module = Module { preamble: bytes[..PREAMBLE].to_vec(), sections: self::sections(&bytes[PREAMBLE..]) };
    change(&mut module);
    *bytes = joined(module.preamble, &module.sections);
    joined(component[..PREAMBLE].to_vec(), &sections)
}

/// The component with so many bytes more that mean nothing.
pub(in crate::mesh) fn padded(component: &[u8], bytes: usize) -> Vec<u8> {
    let mut padding = named("padding");
    padding.resize(bytes, 0);
    joined(component.to_vec(), &[(0, padding)])
}

/// The same bytes with `from` as `to` wherever it stands. Both have one length, so that all else stays in its place.
pub(in crate::mesh) fn renamed(component: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let (mut bytes, mut at) = (component.to_vec(), 0);
    while let Some(found) = bytes[at..].windows(from.len()).position(|window| window == from.as_bytes()) {
        at += found;
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    }
    assert_ne!(at, 0, "{from} is not there");
    bytes
}

/// A core module, section by section.
pub(in crate::mesh) struct Module {
    preamble: Vec<u8>,
    sections: Vec<(u8, Vec<u8>)>,
}

impl Module {
    /// Has the module start with a function of these instructions.
    pub(in crate::mesh) fn start(&mut self, instructions: &[u8]) {
        let function = self.functions(&[instructions.to_vec()]);
        *self.section(START) = leb(function);
    }

    /// A start that has the module's table grow for ever, whatever it is told.
    pub(in crate::mesh) fn start_with_growing_table(&mut self) {
        self.table(1_000);
        // loop: table.grow by 1,000 times null; drop; again
        self.start(&[0x03, 0x40, 0xd0, 0x70, 0x41, 0xe8, 0x07, 0xfc, 0x0f, 0x00, 0x1a, 0x0c, 0x00, END]);
    }

    /// Gives the module's table so many places at its start, and no bound.
    pub(in crate::mesh) fn table(&mut self, places: u32) {
        *self.section(TABLES) = [&[1_u8, 0x70, 0x00][..], &leb(places)].concat();
    }

    /// Gives the module's memory so many pages of 64 KiB at its start, and no bound.
    pub(in crate::mesh) fn memory(&mut self, pages: u32) {
        *self.section(MEMORIES) = [&[1_u8, 0x00][..], &leb(pages)].concat();
    }

    /// As many functions that nobody calls, each with as many additions: nothing to run, much to compile.
    pub(in crate::mesh) fn bomb(&mut self, functions: u32, additions: u32) {
        // local 0 := (local 0 + N) * N, for another N each time.
        let steps = |function: u32| {
            let number = move |step: u32| signed_leb(function.wrapping_mul(31).wrapping_add(step) & 0xffff);
            (0..additions).flat_map(move |step| {
                let number = number(step);
                [&[0x20_u8, 0x00, 0x41][..], &number, &[0x6a, 0x41], &number, &[0x6c, 0x21, 0x00]].concat()
            })
        };
        let bodies: Vec<Vec<u8>> = (0..functions).map(|function| steps(function).collect()).collect();
        self.functions(&bodies);
    }

    /// Functions without parameters and results and with one local number, of these instructions; the number of the first.
    fn functions(&mut self, bodies: &[Vec<u8>]) -> u32 {
        let kind = self.add(TYPES, &[vec![0x60, 0x00, 0x00]]);
        let kinds = vec![leb(kind); bodies.len()];
        let first = self.imported() + self.add(FUNCTIONS, &kinds);
        let code = |body: &Vec<u8>| {
            let body = [&[0x01_u8, 0x01, 0x7f][..], body, &[END]].concat();
            [leb(length(&body)), body].concat()
        };
        let code: Vec<_> = bodies.iter().map(code).collect();
        self.add(CODE, &code);
        first
    }

    /// How many functions are imported. A module of ours imports nothing else.
    fn imported(&self) -> u32 {
        let Some((_, section)) = self.sections.iter().find(|(id, _)| *id == IMPORTS) else { return 0 };
        let mut rest = &section[..];
        let count = unsigned(&mut rest);
        for _ in 0..count {
            for _ in ["module", "name"] {
                let length = unsigned(&mut rest) as usize;
                rest = &rest[length..];
            }
            assert_eq!(rest[0], 0x00, "a function is imported");
            rest = &rest[1..];
            unsigned(&mut rest);
        }
        count
    }

    /// Adds items to the end of a section that is a list; the number of the first of them.
    fn add(&mut self, id: u8, items: &[Vec<u8>]) -> u32 {
        let section = self.section(id);
        let mut rest = &section[..];
        let before = if rest.is_empty() { 0 } else { unsigned(&mut rest) };
        let count = before + u32::try_from(items.len()).expect("few items");
        *section = [leb(count), rest.to_vec(), items.concat()].concat();
        before
    }

    /// The section of this id, at its place; empty where there was none.
    fn section(&mut self, id: u8) -> &mut Vec<u8> {
        let rank = |id: u8| ORDER.iter().position(|known| *known == id);
        let known = self.sections.iter().position(|(known, _)| *known == id);
        let place = known.unwrap_or_else(|| {
            let behind = |(other, _): &(u8, Vec<u8>)| rank(*other).is_some() && rank(*other) > rank(id);
            let place = self.sections.iter().position(behind).unwrap_or(self.sections.len());
            self.sections.insert(place, (id, Vec::new()));
            place
        });
        &mut self.sections[place].1
    }
}

fn sections(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut sections = Vec::new();
    while let [id, rest @ ..] = bytes {
        bytes = rest;
        let length = unsigned(&mut bytes) as usize;
        sections.push((*id, bytes[..length].to_vec()));
        bytes = &bytes[length..];
    }
    sections
}

fn joined(mut bytes: Vec<u8>, sections: &[(u8, Vec<u8>)]) -> Vec<u8> {
    for (id, section) in sections {
        bytes.push(*id);
        bytes.extend(leb(length(section)));
        bytes.extend(section);
    }
    bytes
}

fn named(name: &str) -> Vec<u8> {
    [&leb(length(name.as_bytes()))[..], name.as_bytes()].concat()
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("less than 4 GiB")
}

/// LEB128, as WebAssembly writes its numbers.
fn leb(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).expect("7 bits") | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).expect("7 bits"));
    bytes
}

/// The same of a number that may be negative, and is not.
fn signed_leb(number: u32) -> Vec<u8> {
    let mut bytes = leb(number);
    if let Some(last) = bytes.last_mut().filter(|last| **last & 0x40 != 0) {
        *last |= 0x80;
        bytes.push(0);
    }
    bytes
}

fn unsigned(bytes: &mut &[u8]) -> u32 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (byte, rest) = bytes.split_first().expect("a number ends");
        *bytes = rest;
        number |= u32::from(*byte & 0x7f) << shift;
        if *byte & 0x80 == 0 {
            return number;
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use weft_policy::component::inspect;

    use super::*;
    use crate::mesh::in_process::wasm;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for number in [0, 1, 63, 64, 127, 128, 8_191, 8_192, 65_535, u32::MAX] {
            assert_eq!(unsigned(&mut &leb(number)[..]), number);
            let signed = signed_leb(number & 0xffff);
            assert_eq!(signed.last().map(|last| last & 0x40), Some(0), "{number} is not negative");
        }
    }

    #[test]
    fn what_is_tampered_with_is_still_a_component() {
        let sound = wasm("starter");
        assert_eq!(tampered(&sound, |_| {}), sound, "nothing was changed");
        for (what, bytes) in [
            ("a start", tampered(&sound, |module| module.start(LOOP))),
            ("a table", tampered(&sound, |module| module.start_with_growing_table())),
            ("functions", tampered(&sound, |module| module.bomb(10, 10))),
            ("padding", padded(&sound, 100)),
        ] {
            inspect(&bytes).unwrap_or_else(|fault| panic!("{what}: {fault}"));
            assert!(bytes.len() > sound.len(), "{what}");
        }
    }
}
