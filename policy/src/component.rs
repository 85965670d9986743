//! Decides whether a component is a filter, by facts that can be read from it without running it. It is the one check of
//! `weft filter inspect`, of the control plane and of proxies: what one of them takes, the others take.

#[cfg(feature = "component")]
pub mod cases;
#[cfg(feature = "component")]
mod read;
#[cfg(test)]
mod tests;

#[cfg(feature = "component")]
pub use read::{inspect, read, with_section};

use std::fmt;

/// The package of the contract between a filter and its host.
const PACKAGE: &str = "weft:filter/";
/// The custom section with the JSON Schema of the configuration.
pub const SCHEMA_SECTION: &str = "weft:config-schema";
/// Bytes of a configuration schema.
pub const MAX_SCHEMA: usize = 64 << 10;
/// The custom section with the cases of the filter's author, as JSON.
pub const CASES_SECTION: &str = "weft:cases";
/// Bytes of all cases.
pub const MAX_CASES: usize = 256 << 10;
/// Bytes of a binary that a proxy takes; a control plane may take less (`limits.max_filter_bytes`).
pub const MAX_BYTES: usize = 64 << 20;
/// Core instances of one component, as a proxy has places for. A filter in Rust or C has 1 to 4, one in JavaScript 13; an
/// interpreter of Python comes as 38, one for each library.
pub const MAX_CORE_INSTANCES: u32 = 48;
/// Linear memories of one component: its own, and those of adapters to WASI.
pub const MAX_MEMORIES: u32 = 4;
/// Tables of one component.
pub const MAX_TABLES: u32 = 16;
/// Imports and exports of one component: far more than the contract has.
const MAX_NAMES: usize = 256;

/// Functions that the world 0.1 exports, every one of them.
const HOOKS_01: [&str; 5] = ["configure", "on-connection", "on-request-head", "on-response-head", "on-done"];
const IMPORTS_01: [&str; 4] = ["types", "log", "metrics", "token-bucket"];
/// Interfaces that a component of the world 0.2 may export; the first it must.
const HOOKS_02: [&str; 13] = [
    "configuration",
    "connection",
    "request-head",
    "request-body",
    "request-trailers",
    "response-head",
    "response-body",
    "response-trailers",
    "reply-body",
    "stream-data",
    "callout-answer",
    "tick",
    "done",
];
const IMPORTS_02: [&str; 8] = ["types", "log", "metrics", "token-bucket", "kv", "callouts", "secrets", "crypto"];

/// Packages of WASI 0.2 that a component of the world 0.2 may import, whatever interfaces of theirs.
const WASI: [&str; 6] = ["cli", "clocks", "filesystem", "io", "random", "sockets"];
/// Those of them that bring something in; the others are empty or fail for everybody.
const WASI_GRANTED: [&str; 2] = ["clocks", "random"];

/// What was found in a binary.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    pub bytes: usize,
    /// False: it is a core module.
    pub is_component: bool,
    /// Names of what it imports but types, which bring nothing in.
    pub imports: Vec<String>,
    pub functions: Vec<String>,
    /// Names of the interfaces that it exports.
    pub interfaces: Vec<String>,
    pub core_instances: u32,
    pub memories: u32,
    pub tables: u32,
    /// The text of its configuration schema.
    pub schema: Option<String>,
    /// The text of its cases.
    pub cases: Option<String>,
}

/// A filter by its facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// `weft:filter@MAJOR.MINOR.PATCH`
    pub abi: String,
    pub world: World,
    /// Capabilities that it may use, by the names that FilterPolicies grant.
    pub capabilities: Vec<String>,
}

/// The contracts that this release runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum World {
    V01,
    V02,
}

impl World {
    /// The version without its patch, which changes nothing.
    #[must_use]
    pub fn number(self) -> &'static str {
        match self {
            Self::V01 => "0.1",
            Self::V02 => "0.2",
        }
    }

    fn imports(self) -> &'static [&'static str] {
        match self {
            Self::V01 => &IMPORTS_01,
            Self::V02 => &IMPORTS_02,
        }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.number())
    }
}

/// Why a binary is no filter that this release runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComponentFault {
    #[error("it is not a WebAssembly binary")]
    NoWasm,
    #[error(
        "it is a core WebAssembly module, not a component: make one of it with `wasm-tools component new`, or see \
         docs/filters.md"
    )]
    CoreModule,
    #[error("it is not a valid WebAssembly component: {0}")]
    Invalid(String),
    #[error("it has {found} {what}, and at most {most} are taken")]
    TooMany { what: &'static str, found: usize, most: usize },
    #[error(
        "it imports {0:?}: a filter may import interfaces of {PACKAGE} and, in the world 0.2, of WASI 0.2 those of cli, \
         clocks, filesystem, io, random and sockets"
    )]
    ForeignImport(String),
    #[error(
        "it imports {name:?}, which the world {world} of this release does not have (`weft filter inspect` lists all)"
    )]
    UnknownImport { name: String, world: World },
    #[error("it exports {name:?}, a hook that the world {world} of this release does not have")]
    UnknownHook { name: String, world: World },
    #[error("it is made for {PACKAGE}*@{0}; this release runs 0.1 and 0.2")]
    World(String),
    #[error("it imports {name:?} and is of the world {world}: one component is of one world")]
    Mixed { name: String, world: World },
    #[error(
        "it does not export {0:?}: it is not a filter. Of the world 0.2 that is the interface \
         {PACKAGE}configuration@0.2.0, of 0.1 the function configure and each hook"
    )]
    MissingExport(&'static str),
    #[error("its section {SCHEMA_SECTION:?} {0}")]
    Schema(&'static str),
    #[error("its section {CASES_SECTION:?} {0}")]
    Cases(&'static str),
}

/// The filter that a binary with these facts is.
///
/// # Errors
/// It is none, or none that this release runs.
pub fn judge(facts: &Facts) -> Result<Shape, ComponentFault> {
    if !facts.is_component {
        return Err(ComponentFault::CoreModule);
    }
    let names = facts.imports.len() + facts.functions.len() + facts.interfaces.len();
    let bounds = [
        ("bytes", facts.bytes, MAX_BYTES),
        ("imports and exports", names, MAX_NAMES),
        ("core instances", count(facts.core_instances), count(MAX_CORE_INSTANCES)),
        ("memories", count(facts.memories), count(MAX_MEMORIES)),
        ("tables", count(facts.tables), count(MAX_TABLES)),
    ];
    if let Some((what, found, most)) = bounds.into_iter().find(|(_, found, most)| found > most) {
        return Err(ComponentFault::TooMany { what, found, most });
    }
    let (world, told) = world(facts)?;
    let mut shape = Shape { abi: String::new(), world, capabilities: Vec::new() };
    let mut version = told;
    for name in &facts.imports {
        if let Some((package, _)) = wasi(name).filter(|_| world == World::V02) {
            shape.capabilities.extend(WASI_GRANTED.contains(&package).then(|| "wasi".to_owned()));
            continue;
        }
        let (interface, imported) = own(name).ok_or_else(|| ComponentFault::ForeignImport(name.clone()))?;
        match world_of(imported) {
            None => return Err(ComponentFault::World(imported.to_owned())),
            Some(other) if other != world => return Err(ComponentFault::Mixed { name: name.clone(), world }),
            Some(_) => {}
        }
        if !world.imports().contains(&interface) {
            return Err(ComponentFault::UnknownImport { name: name.clone(), world });
        }
        shape.capabilities.extend(capability(interface).map(str::to_owned));
        version.get_or_insert(imported);
    }
    shape.capabilities.sort();
    shape.capabilities.dedup();
    shape.abi = match version {
        Some(version) => format!("weft:filter@{version}"),
        None => format!("weft:filter@{world}.0"),
    };
    Ok(shape)
}

/// The world by what it exports, which a filter of either must, and the version that its exports say.
fn world(facts: &Facts) -> Result<(World, Option<&str>), ComponentFault> {
    let has = |wanted: &str| facts.functions.iter().any(|name| name == wanted);
    let hooks: Vec<_> = facts.interfaces.iter().filter_map(|name| Some((name, own(name)?))).collect();
    let Some((_, (_, version))) = hooks.iter().find(|(_, (interface, _))| *interface == HOOKS_02[0]) else {
        let missing = HOOKS_01.into_iter().find(|hook| !has(hook));
        return match missing {
            None => Ok((World::V01, None)),
            // What exports none of the functions is measured by the newer world.
            Some(_) if !has(HOOKS_01[0]) => Err(ComponentFault::MissingExport(HOOKS_02[0])),
            Some(hook) => Err(ComponentFault::MissingExport(hook)),
        };
    };
    let world = World::V02;
    for (name, (interface, version)) in &hooks {
        if world_of(version) != Some(world) {
            return Err(ComponentFault::World((*version).to_owned()));
        }
        if !HOOKS_02.contains(interface) {
            return Err(ComponentFault::UnknownHook { name: (*name).clone(), world });
        }
    }
    Ok((world, Some(*version)))
}

/// Interface and version of a name of the contract's package.
fn own(name: &str) -> Option<(&str, &str)> {
    let inner = name.strip_prefix(PACKAGE)?;
    Some(inner.split_once('@').unwrap_or((inner, "?")))
}

/// The interface, without its version, of an import from WASI 0.2 that filters of the world 0.2 may have.
#[must_use]
pub fn wasi_interface(import: &str) -> Option<&str> {
    wasi(import).map(|(_, interface)| interface)
}

/// Package and interface: `clocks` and `wasi:clocks/wall-clock`. Patches add only.
fn wasi(import: &str) -> Option<(&str, &str)> {
    let (interface, version) = import.split_once('@')?;
    let (package, _) = interface.strip_prefix("wasi:")?.split_once('/')?;
    let patch = version.strip_prefix("0.2.")?;
    let is_release = !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit());
    (is_release && WASI.contains(&package)).then_some((package, interface))
}

/// The world of a version `MAJOR.MINOR.PATCH`.
fn world_of(version: &str) -> Option<World> {
    let (rest, patch) = version.rsplit_once('.')?;
    if patch.is_empty() || !patch.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    [World::V01, World::V02].into_iter().find(|world| world.number() == rest)
}

/// The capability that an interface is, by the name that a FilterPolicy grants it by. `None`: every filter has it.
fn capability(interface: &str) -> Option<&'static str> {
    match interface {
        "token-bucket" => Some("token-bucket"),
        "kv" => Some("kv"),
        "callouts" => Some("callout"),
        "secrets" => Some("secret"),
        "crypto" => Some("crypto"),
        _ => None,
    }
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
