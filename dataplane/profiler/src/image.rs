//! The executable files that this process has mapped: how to unwind through them, and what their addresses are called. Read
//! from disk in pieces, when a profile is taken.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use framehop::{ExplicitModuleSectionInfo, Module};
use object::read::{ReadCache, ReadRef};
use object::{Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, SymbolKind};

/// The process's map of code.
pub(super) struct Images {
    files: Vec<Image>,
    /// Code without a file: what wasmtime compiled.
    anonymous: Vec<Range<u64>>,
}

/// One mapped file.
pub(super) struct Image {
    pub(super) path: String,
    pub(super) range: Range<u64>,
    /// Offset in the file at which `range` begins.
    pub(super) offset: u64,
    pub(super) build_id: String,
    /// Offset to add to an address in the file to get the address in memory.
    bias: u64,
    open_as: String,
    sections: ExplicitModuleSectionInfo<Vec<u8>>,
}

/// A line of /proc/self/maps that may be executed.
struct Mapping<'m> {
    range: Range<u64>,
    offset: u64,
    path: &'m str,
}

impl Images {
    pub(super) fn load() -> std::io::Result<Self> {
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        let own = std::fs::read_link("/proc/self/exe")?;
        let (mut files, mut anonymous) = (Vec::<Image>::new(), Vec::new());
        for mapping in maps.lines().filter_map(executable) {
            if mapping.path.is_empty() {
                anonymous.push(mapping.range);
            } else if let Some(known) = files.iter_mut().find(|image| image.path == mapping.path) {
                known.range.end = known.range.end.max(mapping.range.end);
            } else if mapping.path.starts_with('/') {
                // Opened through /proc, our own file is the one that runs, whatever lies in its place now.
                let open_as = if Path::new(mapping.path) == own { "/proc/self/exe" } else { mapping.path };
                files.extend(Image::load(&mapping, open_as));
            }
        }
        Ok(Self { files, anonymous })
    }

    pub(super) fn files(&self) -> &[Image] {
        &self.files
    }

    pub(super) fn modules(&self) -> impl Iterator<Item = Module<Vec<u8>>> {
        let module =
            |image: &Image| Module::new(image.path.clone(), image.range.clone(), image.bias, image.sections.clone());
        self.files.iter().map(module)
    }

    /// The file that `address` lies in, by its place in `files`.
    pub(super) fn at(&self, address: u64) -> Option<usize> {
        self.files.iter().position(|image| image.range.contains(&address))
    }

    /// The names of `addresses`; what has none is left out.
    pub(super) fn names(&self, addresses: &[u64]) -> HashMap<u64, String> {
        let mut names = HashMap::new();
        for image in &self.files {
            let inside = addresses.iter().copied().filter(|address| image.range.contains(address)).collect::<Vec<_>>();
            image.name(&inside, &mut names);
        }
        let compiled = |address: &&u64| self.anonymous.iter().any(|range| range.contains(address));
        names.extend(addresses.iter().filter(compiled).map(|address| (*address, "[wasm]".to_owned())));
        names
    }
}

fn executable(line: &str) -> Option<Mapping<'_>> {
    let mut fields = line.splitn(6, ' ');
    let (range, rights, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let path = fields.nth(2).unwrap_or("").trim();
    let (start, end) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let range = number(start)?..number(end)?;
    rights.contains('x').then_some(Mapping { range, offset: number(offset)?, path })
}

impl Image {
    /// `None`: not an ELF file that can be read; its addresses stay numbers.
    fn load(mapping: &Mapping<'_>, open_as: &str) -> Option<Self> {
        let cache = ReadCache::new(File::open(open_as).ok()?);
        let file = object::File::parse(&cache).ok()?;
        let segment = file.segments().find(|segment| {
            let (start, length) = segment.file_range();
            (start..start + length).contains(&mapping.offset.max(start)) && mapping.offset.abs_diff(start) < PAGE
        })?;
        let in_file = segment.address().wrapping_sub(segment.file_range().0).wrapping_add(mapping.offset);
        let build_id = file.build_id().ok().flatten().unwrap_or_default();
        Some(Self {
            path: mapping.path.to_owned(),
            range: mapping.range.clone(),
            offset: mapping.offset,
            build_id: build_id.iter().map(|byte| format!("{byte:02x}")).collect(),
            bias: mapping.range.start.wrapping_sub(in_file),
            open_as: open_as.to_owned(),
            sections: sections(&file),
        })
    }

    fn name(&self, addresses: &[u64], names: &mut HashMap<u64, String>) {
        let Ok(file) = File::open(&self.open_as) else { return };
        let cache = ReadCache::new(file);
        let Ok(file) = object::File::parse(&cache) else { return };
        let mut symbols: Vec<_> = file
            .symbols()
            .chain(file.dynamic_symbols())
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
            .map(|symbol| (symbol.address(), symbol.size(), symbol))
            .collect();
        symbols.sort_by_key(|(address, ..)| *address);
        for address in addresses {
            let in_file = address.wrapping_sub(self.bias);
            let after = symbols.partition_point(|(start, ..)| *start <= in_file);
            let Some((start, size, symbol)) = after.checked_sub(1).and_then(|index| symbols.get(index)) else {
                continue;
            };
            if in_file - start < (*size).max(1)
                && let Ok(name) = symbol.name()
            {
                names.insert(*address, format!("{:#}", rustc_demangle::demangle(name)));
            }
        }
    }
}

/// Segments are mapped by whole pages.
const PAGE: u64 = 0x1_0000;

fn sections<'f, R: ReadRef<'f>>(file: &object::File<'f, R>) -> ExplicitModuleSectionInfo<Vec<u8>> {
    let range = |name| file.section_by_name(name).map(|section| section.address()..section.address() + section.size());
    let data =
        |name| file.section_by_name(name).and_then(|section| Some(section.uncompressed_data().ok()?.into_owned()));
    ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: range(".text"),
        got_svma: range(".got"),
        eh_frame_svma: range(".eh_frame"),
        eh_frame: data(".eh_frame"),
        eh_frame_hdr_svma: range(".eh_frame_hdr"),
        eh_frame_hdr: data(".eh_frame_hdr"),
        ..ExplicitModuleSectionInfo::default()
    }
}
