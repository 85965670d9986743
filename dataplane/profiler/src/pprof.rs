//! The format of `pprof`: a gzip'd protocol buffer (github.com/google/pprof, proto/profile.proto), as far as it is needed.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use super::Stacks;
use super::image::Images;

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

/// Texts are places in the string table everywhere.
#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    /// Innermost first.
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    text: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    memory_start: u64,
    #[prost(uint64, tag = "3")]
    memory_limit: u64,
    #[prost(uint64, tag = "4")]
    file_offset: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(int64, tag = "6")]
    build_id: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
}

/// Strings, each once; the first is empty.
struct Strings {
    table: Vec<String>,
    places: HashMap<String, i64>,
}

impl Strings {
    fn new() -> Self {
        Self { table: vec![String::new()], places: HashMap::from([(String::new(), 0)]) }
    }

    fn place(&mut self, text: &str) -> i64 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = signed(self.table.len() as u64);
        self.table.push(text.to_owned());
        self.places.insert(text.to_owned(), place);
        place
    }
}

/// The profile of `stacks`, compressed.
pub(super) fn encode(
    stacks: &Stacks,
    images: &Images,
    began: SystemTime,
    took: Duration,
    period: Duration,
) -> std::io::Result<Bytes> {
    let mut strings = Strings::new();
    let samples = ValueType { kind: strings.place("samples"), unit: strings.place("count") };
    let cpu = ValueType { kind: strings.place("cpu"), unit: strings.place("nanoseconds") };
    let (mapping, location, function, places) = locations(stacks, images, &mut strings);
    let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    let thread_key = strings.place("thread");
    let sample = stacks.iter().map(|((thread, stack), count)| Sample {
        location_id: stack.iter().map(|address| places[address]).collect(),
        value: vec![signed(*count), signed(*count).saturating_mul(nanos(period))],
        label: vec![Label { key: thread_key, text: strings.place(thread) }],
    });
    let profile = Profile {
        sample_type: vec![samples, cpu],
        sample: sample.collect(),
        mapping,
        location,
        function,
        time_nanos: nanos(began.duration_since(UNIX_EPOCH).unwrap_or_default()),
        duration_nanos: nanos(took),
        period_type: Some(cpu),
        period: nanos(period),
        string_table: strings.table,
    };
    let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
    zipped.write_all(&profile.encode_to_vec())?;
    Ok(zipped.finish()?.into())
}

type Locations = (Vec<Mapping>, Vec<Location>, Vec<Function>, HashMap<u64, u64>);

/// The tables that addresses stand in, and the id of each address.
fn locations(stacks: &Stacks, images: &Images, strings: &mut Strings) -> Locations {
    let mut addresses: Vec<u64> = stacks.keys().flat_map(|(_, stack)| stack.iter().copied()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let names = images.names(&addresses);
    let mut mappings: Vec<Mapping> = Vec::new();
    for (image, id) in images.files().iter().zip(1..) {
        mappings.push(Mapping {
            id,
            memory_start: image.range.start,
            memory_limit: image.range.end,
            file_offset: image.offset,
            filename: strings.place(&image.path),
            build_id: strings.place(&image.build_id),
            // False where we have no names, as for a stripped file: the tool may find them in another.
            has_functions: addresses.iter().any(|a| image.range.contains(a) && names.contains_key(a)),
        });
    }
    let (mut locations, mut functions) = (Vec::new(), Vec::new());
    let (mut ids, mut known) = (HashMap::new(), HashMap::new());
    for (address, id) in addresses.into_iter().zip(1..) {
        let line = names.get(&address).map(|name| {
            let next = functions.len() as u64 + 1;
            let function_id = *known.entry(name.as_str()).or_insert(next);
            if function_id == next {
                functions.push(Function { id: next, name: strings.place(name) });
            }
            Line { function_id }
        });
        let mapping_id = images.at(address).map_or(0, |index| mappings[index].id);
        locations.push(Location { id, mapping_id, address, line: line.into_iter().collect() });
        ids.insert(address, id);
    }
    (mappings, locations, functions, ids)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Read as _;

    use super::*;

    #[derive(Debug)]
    pub(crate) struct Stack {
        pub(crate) thread: String,
        pub(crate) functions: Vec<String>,
        pub(crate) count: i64,
    }

    /// Reads a profile back; every reference in it must lead somewhere.
    pub(crate) fn decode(zipped: &[u8]) -> Vec<Stack> {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(zipped).read_to_end(&mut plain).unwrap();
        let profile = Profile::decode(plain.as_slice()).unwrap();
        let text = |place: i64| profile.string_table[usize::try_from(place).unwrap()].clone();
        assert_eq!(text(0), "");
        assert_eq!(profile.sample_type.iter().map(|t| text(t.kind)).collect::<Vec<_>>(), ["samples", "cpu"]);
        let name = |id: u64| {
            let location = profile.location.iter().find(|location| location.id == id).expect("a location");
            let mapped = profile.mapping.iter().any(|mapping| mapping.id == location.mapping_id);
            assert!(mapped || location.mapping_id == 0);
            let function = location.line.first().map(|line| line.function_id);
            let named =
                function.map(|id| profile.function.iter().find(|function| function.id == id).expect("a function"));
            named.map_or_else(|| format!("{:#x}", location.address), |function| text(function.name))
        };
        let stack = |sample: &Sample| Stack {
            thread: text(sample.label[0].text),
            functions: sample.location_id.iter().map(|id| name(*id)).collect(),
            count: sample.value[0],
        };
        profile.sample.iter().map(stack).collect()
    }
}
