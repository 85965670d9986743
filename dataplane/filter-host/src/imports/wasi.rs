//! WASI 0.2 for filters of contract 0.2, linked as the component's own types say. Clocks and randomness are a capability,
//! output goes to the log, there are no variables, arguments, files or input, and everything else fails. Nothing waits.

mod answer;
mod calls;

use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Component, Linker, LinkerInstance, ResourceAny, ResourceDynamic, ResourceType, Val};
use wasmtime::{StoreContextMut, bail, ensure};
use weft_policy::component::wasi_interface;

use super::Level;
use crate::failure::HostRefusal;
use crate::state::State;
use crate::wasi::{MAX_HANDLES, Output};

type Store<'s> = StoreContextMut<'s, State>;

/// Resources that a filter can get hold of. All others of WASI are of one kind, of which nobody has a handle.
const OTHER: u32 = 0;
const INPUT_STREAM: u32 = 1;
const OUTPUT_STREAM: u32 = 2;
const POLLABLE: u32 = 3;
const NETWORK: u32 = 4;

/// Functions that a component may import: several times as many as WASI 0.2 has.
const MAX_FUNCTIONS: usize = 1_024;

/// The representation of a pollable that is ready.
const READY: u32 = 0;

/// Names are unique in WASI, and each interface that uses a resource of another one calls it by the same.
fn kind_of(resource: &str) -> u32 {
    match resource {
        "input-stream" => INPUT_STREAM,
        "output-stream" => OUTPUT_STREAM,
        "pollable" => POLLABLE,
        "network" => NETWORK,
        _ => OTHER,
    }
}

/// A handle that a call was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Handle {
    kind: u32,
    representation: u32,
}

/// Links every interface of WASI that the component imports.
///
/// # Errors
/// It imports something that WASI does not have in this form.
pub(crate) fn link(linker: &mut Linker<State>, component: &Component) -> wasmtime::Result<()> {
    let engine = component.engine();
    let types = component.component_type();
    let mut functions = 0;
    for (name, import) in types.imports(engine) {
        let Some(interface) = wasi_interface(name) else { continue };
        let ComponentItem::ComponentInstance(instance) = import.ty else {
            bail!("it imports {name}, but not as an interface");
        };
        let mut at = linker.instance(name)?;
        for (item, export) in instance.exports(engine) {
            match export.ty {
                ComponentItem::ComponentFunc(_) => {
                    functions += 1;
                    ensure!(functions <= MAX_FUNCTIONS, "it imports more than {MAX_FUNCTIONS} functions of WASI");
                    function(&mut at, interface, item)?;
                }
                ComponentItem::Resource(_) => resource(&mut at, item)?,
                ComponentItem::Type(_) => {}
                ComponentItem::CoreFunc(_)
                | ComponentItem::Module(_)
                | ComponentItem::Component(_)
                | ComponentItem::ComponentInstance(_) => bail!("it imports {item} of {name}, which is no function"),
            }
        }
    }
    Ok(())
}

fn resource(at: &mut LinkerInstance<'_, State>, name: &str) -> wasmtime::Result<()> {
    let kind = kind_of(name);
    at.resource(name, ResourceType::host_dynamic(kind), move |mut store: Store<'_>, representation: u32| {
        let timer = (kind == POLLABLE).then_some(representation);
        store.data_mut().wasi.release(timer);
        Ok(())
    })
}

/// Functions that take or give many bytes, or many handles, know their types; all others are called with what the
/// component's types say.
fn function(at: &mut LinkerInstance<'_, State>, interface: &str, name: &str) -> wasmtime::Result<()> {
    match (interface, name) {
        ("wasi:io/streams", "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush") => {
            at.func_wrap(name, calls::write)
        }
        ("wasi:io/poll", "poll") => at.func_wrap(name, calls::poll),
        ("wasi:random/random", "get-random-bytes") | ("wasi:random/insecure", "get-insecure-random-bytes") => {
            at.func_wrap(name, calls::random_bytes)
        }
        _ => {
            let known = calls::of(interface, name);
            let called = format!("{interface}#{name}");
            at.func_new(name, move |mut store: Store<'_>, ty: ComponentFunc, given: &[Val], results: &mut [Val]| {
                let mut handles = Vec::new();
                given.iter().try_for_each(|value| take(&mut store, value, &mut handles))?;
                let value = match known {
                    Some(call) => call(&mut store, given, &handles)?,
                    None => Some(failing(&called, &ty)?),
                };
                match (results.first_mut(), value) {
                    (Some(place), Some(value)) => *place = value,
                    (None, None) => {}
                    (Some(_), None) | (None, Some(_)) => return refuse(format!("{called} is declared otherwise")),
                }
                Ok(())
            })
        }
    }
}

/// The answer of a function that does nothing for filters.
fn failing(called: &str, ty: &ComponentFunc) -> wasmtime::Result<Val> {
    let answer = ty.results().next().and_then(|result| answer::nothing(&result));
    answer.map_or_else(|| refuse(format!("{called} is not there for filters, and has no error to say so")), Ok)
}

fn refuse<T>(why: impl Into<String>) -> wasmtime::Result<T> {
    Err(HostRefusal(why.into()).into())
}

/// Takes the handles of a parameter back from the store, which would keep them: a borrowed one is the call's alone, and
/// one that is given away is gone.
#[expect(clippy::wildcard_enum_match_arm, reason = "values have many kinds; few can hold others")]
fn take(store: &mut Store<'_>, value: &Val, handles: &mut Vec<Handle>) -> wasmtime::Result<()> {
    match value {
        Val::Resource(handle) => handles.push(taken(store, *handle)?),
        Val::List(values) | Val::Tuple(values) => {
            for value in values {
                take(store, value, handles)?;
            }
        }
        Val::Record(fields) => {
            for (_, value) in fields {
                take(store, value, handles)?;
            }
        }
        Val::Variant(_, Some(value)) | Val::Option(Some(value)) | Val::Result(Ok(Some(value)) | Err(Some(value))) => {
            take(store, value, handles)?;
        }
        _ => {}
    }
    Ok(())
}

fn taken(store: &mut Store<'_>, handle: ResourceAny) -> wasmtime::Result<Handle> {
    let handle = ResourceDynamic::try_from_resource_any(handle, &mut *store)?;
    let (kind, representation) = (handle.ty(), handle.rep());
    if handle.owned() {
        store.data_mut().wasi.release((kind == POLLABLE).then_some(representation));
    }
    Ok(Handle { kind, representation })
}

/// A handle for the filter to own.
fn own(store: &mut Store<'_>, kind: u32, representation: u32) -> wasmtime::Result<Option<Val>> {
    if !store.data_mut().wasi.hold() {
        return refuse(format!("it holds {MAX_HANDLES} handles of WASI, and may hold no more"));
    }
    let handle = ResourceDynamic::new_own(representation, kind).try_into_resource_any(&mut *store)?;
    Ok(Some(Val::Resource(handle)))
}

impl State {
    /// Logs what a filter writes, line by line.
    fn write_output(&mut self, output: Output, bytes: &[u8]) {
        for line in self.wasi.write(output, bytes) {
            self.log(level(output), line);
        }
    }

    /// Logs lines that were not ended, for the configuration that is left.
    pub(crate) fn end_lines(&mut self) {
        for output in Output::ALL {
            if let Some(line) = self.wasi.rest(output) {
                self.log(level(output), line);
            }
        }
    }
}

fn level(output: Output) -> Level {
    match output {
        Output::Stdout => Level::Info,
        Output::Stderr => Level::Warn,
    }
}
